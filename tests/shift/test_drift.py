"""Drift: false alarms as promised, planted shifts found, each test against a second computation."""

import math
from collections import Counter

import pytest
import torch
from scipy import stats
from tests.shift.drift_worlds import drawn, make_readings, make_reference

from perimetry.errors import ModelMismatch, TooFewSamples, UsageError
from perimetry.shift.drift import DriftConfig, drift, spending

FAST = DriftConfig(permutations=199, resamples=50)


def test_false_alarms_of_every_test_and_of_the_verdict() -> None:
    trials, alpha = 200, 0.1
    low: Counter[str] = Counter()
    for seed in range(trials):
        reference = make_reference(120, 2 * seed, minimum=20)
        (window,) = drift(reference, make_readings(reference, *drawn(160, 2 * seed + 1)), FAST)
        low.update([t.name for t in window.tests if t.p_value <= alpha])
        low["verdict"] += window.p_value <= alpha
    most = stats.binom.ppf(0.999, trials, alpha)
    least = stats.binom.ppf(0.001, trials, alpha)
    for name in ("score", "p_value", "scores", "alarms", "verdict"):
        assert low[name] <= most, low
    # The two permutation tests are exact, not only conservative.
    assert low["p_value"] >= least, low
    assert low["scores"] >= least, low


def test_a_window_larger_than_the_calibration_is_not_drift_of_its_own() -> None:
    naive = mine = 0
    for seed in range(25):
        reference = make_reference(100, 1000 + seed, minimum=10)
        readings = make_readings(reference, *drawn(3000, 2000 + seed))
        (window,) = drift(reference, readings, FAST)
        naive += stats.kstest([r.p_value for r in readings], "uniform").pvalue <= 0.05
        mine += window.drifted
    assert naive >= 8, "against the uniform law alone a large window always seems to drift"
    assert mine <= stats.binom.ppf(0.999, 25, 0.05)


@pytest.mark.parametrize("kind", ["shift", "coupling", "alarms"])
def test_planted_drift_is_found(kind: str) -> None:
    reference = make_reference(400, 1)
    rows, lengths = drawn(300, 2, shift=0.6 if kind == "shift" else 0.0, coupling=-0.9 if kind == "coupling" else 0.6)
    if kind == "coupling":
        rows[:, 0] = drawn(300, 2)[0][:, 0]
        rows[:, 1] = -rows[:, 1]
    if kind == "alarms":
        rows[:36, 0] += 9
    (window,) = drift(reference, make_readings(reference, rows, lengths), FAST)
    assert window.drifted
    low = {t.name for t in window.tests if t.p_value <= 0.0125}
    if kind == "shift":
        assert {"score", "p_value", "scores"} <= low
        assert window.effects[0].cliff.low > 0.1
        assert window.effects[0].hedges.low > 0.2
    if kind == "coupling":
        assert low == {"scores"}, "each score alone looks as before"
    if kind == "alarms":
        assert "alarms" in low
        assert window.alarms.exceeds
        assert window.alarms.realised >= 36


def test_another_mix_of_lengths_moves_the_score_and_not_the_p_values() -> None:
    reference = make_reference(400, 3)
    rows, lengths = drawn(2000, 4)
    (window,) = drift(reference, make_readings(reference, rows[lengths > 90], lengths[lengths > 90]), FAST)
    found = {t.name: t.p_value for t in window.tests}
    assert found["score"] < 1e-6
    assert found["p_value"] > 0.01
    assert found["alarms"] > 0.01


def test_the_order_of_readings_does_not_matter() -> None:
    reference = make_reference(200, 5)
    readings = make_readings(reference, *drawn(90, 6, shift=0.2))
    turned = readings[::-1]
    one, two = next(drift(reference, readings, FAST)), next(drift(reference, turned, FAST))
    for a, b in zip(one.tests, two.tests, strict=True):
        assert (a.name, a.p_value) == (b.name, b.p_value)
        assert a.statistic == pytest.approx(b.statistic, abs=1e-12)
    assert (one.alarms, one.drifted) == (two.alarms, two.drifted)


def test_windows_share_the_budget_and_find_where_it_began() -> None:
    reference = make_reference(400, 7)
    calm, moved = drawn(600, 8), drawn(230, 9, shift=1.5)
    rows, lengths = torch.cat([calm[0], moved[0]]), torch.cat([calm[1], moved[1]])
    found = list(drift(reference, make_readings(reference, rows, lengths), FAST.model_copy(update={"window": 100})))
    assert [w.prompts for w in found] == [100] * 7 + [130], "a rest shorter than half a window joins the one before"
    assert [w.drifted for w in found] == [False] * 6 + [True] * 2
    assert all(w.level == pytest.approx(0.05 / 8) for w in found)
    assert (found[0].first, found[0].last, found[1].first) == ("p0", "p99", "p100")


def test_spending_never_exceeds_the_budget() -> None:
    shares = [spending(0.05, k) for k in range(10_000)]
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) == pytest.approx(0.05 * (1 - 1 / 10_001))


def test_a_prompt_counts_once() -> None:
    reference = make_reference(200, 10)
    readings = make_readings(reference, *drawn(60, 11))
    one, two = next(drift(reference, readings, FAST)), next(drift(reference, readings + readings[:20], FAST))
    assert (two.prompts, two.repeats) == (60, 20)
    assert one.tests == two.tests


def test_prompts_of_unknown_lengths_are_judged_by_the_pooled_set() -> None:
    reference = make_reference(120, 12, minimum=31)
    readings = make_readings(reference, *drawn(80, 13))
    assert {r.fallback for r in readings} == {True, False}
    (window,) = drift(reference, readings, FAST)
    assert not window.drifted
    assert window.alarms.expected == pytest.approx(
        sum(math.floor(0.05 * (n + 1)) / (n + 1) for n in _calibrated(reference, readings)), abs=1e-9
    )


def _calibrated(reference: object, readings: list) -> list[int]:  # pyright: ignore[reportMissingTypeArgument]
    table = reference.calibration.scores["surprise"]  # pyright: ignore[reportAttributeAccessIssue]
    return [table["pooled" if r.fallback else r.group].numel() for r in readings]


def test_a_window_as_plain_values() -> None:
    reference = make_reference(200, 14)
    (window,) = drift(reference, make_readings(reference, *drawn(40, 15)), FAST)
    plain = window.to_json()
    assert [t["name"] for t in plain["tests"]] == ["score", "p_value", "scores", "alarms"]
    assert [e["score"] for e in plain["effects"]] == ["surprise", "nll", "l0"]
    assert plain["alarms"]["interval"]["method"] == "Clopper-Pearson 95 %"


def test_refusals() -> None:
    reference = make_reference(100, 16)
    readings = make_readings(reference, *drawn(40, 17))

    def run(rows: list = readings, **settings: object) -> None:  # pyright: ignore[reportMissingTypeArgument]
        list(drift(reference, rows, FAST.model_copy(update=settings)))

    with pytest.raises(ModelMismatch, match=r"'p3' was made by meter other, and this is meter dddddddddddd; give the"):
        run([*readings[:3], readings[3]._replace(meter="other")])
    with pytest.raises(UsageError, match=r"judges by 'l0', and the meter by 'surprise'"):
        run([readings[0]._replace(detector="l0")])
    with pytest.raises(TooFewSamples, match=r"window 0 holds 7 prompts .* at least 8"):
        run(readings[:7])
    with pytest.raises(TooFewSamples, match=r"holds 1 prompts with an id of their own .40 readings.*its own id"):
        run([r._replace(id="0") for r in readings])
    with pytest.raises(TooFewSamples, match="no readings"):
        run([])
    with pytest.raises(TooFewSamples, match="window of 3 prompts is too small"):
        run(window=3)
    with pytest.raises(UsageError, match="not every reading carries entropy; those that all carry: surprise, nll, l0"):
        run(scores=("entropy",))
    with pytest.raises(UsageError, match=r"budget is 2.0; a rate between 0 and 1"):
        run(budget=2.0)
    with pytest.raises(UsageError, match="5 permutations say too little"):
        run(permutations=5)
    with pytest.raises(UsageError, match="no group 'tokens 9'"):
        run([r._replace(group="tokens 9", fallback=False) for r in readings])
    reference.calibration.order.clear()
    with pytest.raises(UsageError, match=r"did not keep which scores go together.*--reference"):
        run()
    reference.joint = {n: drawn(100, 3)[0][:, i].contiguous() for i, n in enumerate(("surprise", "nll", "l0"))}
    run()
