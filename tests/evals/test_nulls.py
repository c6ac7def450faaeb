"""Where nothing is to be found nothing is found; and what is there is not taken for nothing."""

import pytest
import torch

from perimetry.errors import TooFewSamples, UsageError
from perimetry.evals.nulls import clean_halves, held_out_p_values, shuffled_labels, simulated_p_values
from perimetry.measures.ranking import auroc
from perimetry.runtime import generator
from perimetry.shift.conformal import conformal_p


def normal(n: int, seed: int, shift: float = 0.0) -> torch.Tensor:
    return torch.randn(n, generator=generator(seed), dtype=torch.float64) + shift


def test_halves_of_one_text_are_one_half() -> None:
    one, two = {"l0": normal(150, 1), "nll": normal(150, 2)}, {"l0": normal(150, 3), "nll": normal(150, 4)}
    rows = clean_halves(one, two, seed=5)
    assert [(r.detector, r.holds, r.n, r.seed) for r in rows] == [("l0", True, 150, 5), ("nll", True, 150, 5)]
    for row in rows:
        assert row.estimate == pytest.approx(auroc(one[row.detector], two[row.detector]))
    alone = clean_halves({"l0": one["l0"]}, two)[0]
    assert alone.high - alone.low < rows[0].high - rows[0].low, "several scores share one confidence"
    assert "95 %" in alone.method
    assert "97.5 %" in rows[0].method


def test_halves_that_differ_fail() -> None:
    (row,) = clean_halves({"l0": normal(150, 1)}, {"l0": normal(150, 3, 0.6)})
    assert row.holds is False
    assert row.low > 0.5


def test_halves_are_refused_where_there_is_nothing_to_compare() -> None:
    with pytest.raises(TooFewSamples, match="7 and 9 clean prompts give no interval; wanted 8 on each side"):
        clean_halves({"l0": normal(7, 1)}, {"l0": normal(9, 1)})
    with pytest.raises(UsageError, match="no score was given for clean against clean"):
        clean_halves({}, {})


def test_shuffled_labels_leave_nothing_of_a_perfect_score() -> None:
    clean = normal(60, 1)
    rows = shuffled_labels("l0", clean, clean + 9, shuffles=400, draw=generator(2), dose=0.2, seed=7)
    assert [(r.metric, r.holds, r.dose, r.seed) for r in rows] == [
        ("mean_auroc", True, 0.2, 7),
        ("missed_share", True, 0.2, 7),
    ]
    mean, missed = rows
    assert mean.estimate == pytest.approx(0.5, abs=0.03)
    assert mean.low < 0.45 < 0.55 < mean.high
    assert (mean.n, missed.n) == (60, 400)
    assert 0.01 < missed.estimate < 0.09, "a 95 % interval misses about once in twenty"


def test_shuffled_labels_follow_the_generator() -> None:
    clean = normal(20, 1)
    one, again, other = (
        shuffled_labels("l0", clean, clean + 1, shuffles=100, draw=generator(seed))[0].estimate for seed in (1, 1, 2)
    )
    assert one == again != other


def test_shuffles_are_refused_where_they_say_nothing() -> None:
    with pytest.raises(TooFewSamples, match="7 pairs give no interval; wanted at least 8"):
        shuffled_labels("l0", normal(7, 1), normal(7, 2), shuffles=100, draw=generator(0))
    with pytest.raises(UsageError, match="9 clean and 8 shifted scores, 100 shuffles; wanted pairs"):
        shuffled_labels("l0", normal(9, 1), normal(8, 2), shuffles=100, draw=generator(0))
    with pytest.raises(UsageError, match="0 shuffles"):
        shuffled_labels("l0", normal(9, 1), normal(9, 2), shuffles=0, draw=generator(0))


def test_p_values_of_one_calibration_set_hold_by_group_and_shifted_ones_fail() -> None:
    calibration = normal(120, 1).sort().values
    p = torch.cat([conformal_p(calibration, normal(300, 2)), conformal_p(calibration, normal(300, 3, 0.7))])
    groups = ["short"] * 300 + ["long"] * 300
    rows = {r.against: r for r in held_out_p_values("l0", p, groups, [120] * 600, seed=4)}
    assert (rows["short"].holds, rows["long"].holds) == (True, False)
    assert {r.control for r in rows.values()} == {"p_values"}
    assert rows["short"].n == 300
    assert "120 calibration prompts" in rows["short"].method
    assert "p = 0.025" in rows["short"].method, "two groups share 5 %"


def test_simulated_p_values_are_uniform() -> None:
    rows = simulated_p_values(20_000, calibration=300, groups=3, draw=generator(1), seed=2)
    assert len(rows) == 4
    assert all(row.holds for row in rows), rows
    assert rows[0].n == 20_000
    assert rows[0].high < 0.01
    assert sum(row.n for row in rows[1:]) == 20_000
    assert {row.seed for row in rows} == {2}
    with pytest.raises(UsageError, match="99 simulated scores test nothing; wanted at least 100"):
        simulated_p_values(99, calibration=300, groups=3, draw=generator(1))


def test_simulated_p_values_would_betray_a_wrong_formula(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the one that stands for the prompt itself p-values are a hundredth too small: 20,000 draws see it."""

    def wrong(calibration: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        return conformal_p(calibration, scores) * (calibration.numel() + 1) / calibration.numel() - 0.02

    monkeypatch.setattr("perimetry.evals.nulls.conformal_p", wrong)
    rows = simulated_p_values(20_000, calibration=300, groups=3, draw=generator(1))
    assert rows[0].holds is False


def test_simulated_scores_are_exchangeable_only_by_length() -> None:
    """One group for all lengths would hold as well; but each length by itself would not: the groups are needed."""
    from perimetry.evals.nulls import _lengths, _score

    draw = generator(3)
    lengths = _lengths(4000, draw)
    scores = _score(lengths, draw)
    longer = lengths > 60
    assert auroc(scores[~longer], scores[longer]) > 0.6
