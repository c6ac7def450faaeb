"""Effects of an intervention on likelihoods: told apart, and not fooled by damage."""

import random

import pytest
import torch

from perimetry.activations.model import LanguageModel
from perimetry.errors import EmptyText, TooFewSamples, WidthMismatch
from perimetry.evals.steering import (
    Likelihoods,
    continuation_likelihoods,
    continuation_of,
    contrast_vector,
    effects,
    normalised,
    random_like,
    verdict,
)

N = 40


def likelihoods(up: float, down: float, noise: float = 0.1) -> Likelihoods:
    draw = torch.Generator().manual_seed(0)

    def drawn(mean: float) -> torch.Tensor:
        return mean + noise * torch.randn(N, generator=draw)

    before = drawn(-2.0), drawn(-2.2)
    return Likelihoods(*before, before[0] + up + drawn(0), before[1] + down + drawn(0))


@pytest.mark.parametrize(
    ("up", "down", "said"),
    [
        (0.5, -0.5, "steers"),
        (-0.5, -0.5, "damages"),
        (0.0, -0.5, "suppresses only"),
        (0.0, 0.0, "null"),
        (0.5, 0.5, "null"),
    ],
)
def test_the_verdict_follows_both_sides(up: float, down: float, said: str) -> None:
    assert verdict(effects(likelihoods(up, down))) == said


def test_effects_are_differences_with_intervals_that_hold_them() -> None:
    found = {(e.metric, e.share): e.interval for e in effects(likelihoods(0.5, -0.3))}
    assert len(found) == 12
    whole = found["positive", 1.0]
    assert whole.low < whole.estimate < whole.high
    assert whole.estimate == pytest.approx(0.5, abs=0.06)
    assert found["negative", 1.0].estimate == pytest.approx(-0.3, abs=0.06)
    assert found["contrast", 1.0].estimate == pytest.approx(whole.estimate - found["negative", 1.0].estimate)
    assert (found["positive", 0.25].n, whole.n) == (10, 40)


def test_the_weakest_are_those_that_had_most_to_gain() -> None:
    before = torch.linspace(-4, -1, N)
    after = before.clone()
    after[: N // 4] += 1.0
    found = {(e.metric, e.share): e.interval.estimate for e in effects(Likelihoods(before, before, after, before))}
    assert found["positive", 0.25] == pytest.approx(1.0)
    assert found["positive", 1.0] == pytest.approx(0.25)


def test_centring_cannot_see_damage_and_the_published_rule_can_call_it_a_success() -> None:
    assert normalised(likelihoods(-0.5, -0.5, 0.0))["positive_centred"] == pytest.approx(0, abs=1e-6)
    # One extreme prompt moves the normaliser, and everybody seems to rise.
    found = likelihoods(-0.1, -0.3, 0.0)
    worse = found.positive.clone()
    worse[0] = -12.0
    assert normalised(found._replace(positive=worse))["positive_published"] > 0
    assert verdict(effects(found._replace(positive=worse))) != "steers"


def test_likelihoods_are_those_of_the_continuation_alone(tiny_lm: LanguageModel) -> None:
    rows = [
        continuation_of(tiny_lm, p, t)
        for p, t in (("the cat sat", " on the mat"), ("a child", " looked at the sea again"))
    ]
    found = continuation_likelihoods(tiny_lm, rows, 1, batch_tokens=8)
    for one, value in zip(rows, found.tolist(), strict=True):
        ids = torch.tensor([one.row.ids])
        logs = tiny_lm.model(input_ids=ids).logits[0].log_softmax(-1)
        wanted = [float(logs[i - 1, one.row.ids[i]]) for i in range(one.first, len(one.row.ids))]
        assert value == pytest.approx(sum(wanted) / len(wanted), rel=1e-4)
    nothing = continuation_likelihoods(tiny_lm, rows, 1, torch.zeros(tiny_lm.d_model))
    torch.testing.assert_close(nothing, found)
    pushed = continuation_likelihoods(tiny_lm, rows, 1, 50 * torch.ones(tiny_lm.d_model))
    assert not torch.allclose(pushed, found, atol=1e-3)


def test_a_contrast_points_from_one_class_to_the_other(tiny_lm: LanguageModel) -> None:
    words = ["cat", "mat", "sea", "hill", "wall"]
    draw = random.Random(0)
    positive = [continuation_of(tiny_lm, "the", " cat" * 3) for _ in range(3)]
    negative = [continuation_of(tiny_lm, "the", " " + draw.choice(words[1:])) for _ in range(3)]
    vector = contrast_vector(tiny_lm, positive, negative, 1)
    torch.testing.assert_close(contrast_vector(tiny_lm, negative, positive, 1), -vector)
    assert float(contrast_vector(tiny_lm, positive, positive, 1).norm()) == 0
    drawn = random_like(vector, 1)
    assert float(drawn.norm()) == pytest.approx(float(vector.norm()), rel=1e-5)
    assert float((drawn * vector).sum()) == pytest.approx(0, abs=1e-4)
    assert not torch.equal(drawn, random_like(vector, 2))


def test_what_is_refused(tiny_lm: LanguageModel) -> None:
    with pytest.raises(EmptyText, match="continuation of 'the'"):
        continuation_of(tiny_lm, "the", "")
    with pytest.raises(WidthMismatch, match="gives width"):
        continuation_likelihoods(tiny_lm, [continuation_of(tiny_lm, "a", "b")], 0, torch.zeros(3))
    one = torch.zeros(1)
    with pytest.raises(TooFewSamples, match="1 prompts"):
        effects(Likelihoods(one, one, one, one))
