"""The choice of the main score on a validation suite, and the check of a score table."""

import pytest
import torch

from evals.samples import dial, gaussian
from perimetry.errors import NonFinite, UsageError
from perimetry.evals.scores import ScoreTable, checked, choose_main


def test_the_best_concept_score_is_chosen_and_baselines_are_not() -> None:
    suite = dial(150)
    table = gaussian(suite.cases, {"l0": 1.0, "surprise": 4.0, "l0.top10": -3.0, "nll": 9.0})
    choice = choose_main(lambda _: table, suite)
    assert choice.detector == "surprise"
    assert set(choice.others) == {"l0", "surprise", "l0.top10"}
    assert choice.mean_auroc == max(choice.others.values())
    assert choice.others["l0.top10"] < 0.5, "the direction is fixed, not turned round"


def test_without_a_concept_score_there_is_no_choice() -> None:
    suite = dial(5)
    with pytest.raises(UsageError, match="no concept score among nll; wanted at least one"):
        choose_main(lambda cases: gaussian(cases, {"nll": 1.0}), suite)


def test_a_table_with_holes_is_refused() -> None:
    suite = dial(3, (0.5,))
    good = torch.zeros(6)
    bad = torch.tensor([0.0, 0.0, 0.0, float("nan"), 0.0, 0.0])
    with pytest.raises(NonFinite, match=r"'l0' gave no finite score for case '0/typos/0\.5'"):
        checked(ScoreTable({"l0": bad}, {"l0": "concept"}), suite)
    with pytest.raises(UsageError, match="'l0' gave 5 scores for 6 cases"):
        checked(ScoreTable({"l0": good[:5]}, {"l0": "concept"}), suite)
    with pytest.raises(UsageError, match="'l0' is neither called concept nor baseline"):
        checked(ScoreTable({"l0": good}, {}), suite)
    with pytest.raises(UsageError, match="no detector was scored"):
        checked(ScoreTable({}, {}), suite)
