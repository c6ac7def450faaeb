import pytest
import torch

from perimetry.errors import TooFewSamples, UnknownName, UsageError
from perimetry.robust.selection import SELECTIONS, choose

SCORES = {name: torch.tensor([0.0, 5.0, 1.0, 4.0]) for name in ("energy", "entropy", "mahalanobis")}


def test_each_way_takes_what_its_score_puts_first() -> None:
    lengths = [10, 10, 10, 10]
    assert choose("shift", SCORES, lengths, 20, 0).rows == (1, 3)
    assert choose("lowest", SCORES, lengths, 20, 0).rows == (0, 2)
    assert choose("entropy", SCORES, lengths, 20, 0).rows == (1, 3)


def test_budgets_are_equal_up_to_one_text() -> None:
    lengths = [7, 30, 9, 8]
    for how in SELECTIONS:
        found = choose(how, SCORES, lengths, 24, 3)
        assert found.tokens == sum(lengths[i] for i in found.rows) <= 24


def test_random_choice_follows_the_seed() -> None:
    lengths = [1] * 40
    one, again, other = (choose("random", {}, lengths, 20, seed).rows for seed in (0, 0, 1))
    assert one == again != other


def test_bad_requests_say_what_is_wanted() -> None:
    with pytest.raises(UnknownName, match="nearest name is 'shift'"):
        choose("shft", SCORES, [1], 1, 0)
    with pytest.raises(UsageError, match="wants the score 'energy'"):
        choose("shift", {"nll": torch.zeros(1)}, [1], 1, 0)
    with pytest.raises(TooFewSamples, match="have 1 tokens and 5"):
        choose("random", {}, [1], 5, 0)
