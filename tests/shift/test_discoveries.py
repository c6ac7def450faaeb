"""Adjusted p-values equal scipy's, and the share of false flags is what was asked for."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from perimetry.errors import ConfigError, UsageError
from perimetry.shift.conformal import conformal_p
from perimetry.shift.discoveries import Method, adjusted_p, with_discoveries
from perimetry.shift.reading import Reading

shares = st.lists(st.floats(0, 1), min_size=1, max_size=40)


def reading(p: float) -> Reading:
    return Reading("a", 1.0, p, False, 0.05, "tokens 1+", False, 9, 1, False, "l0", {"l0": 1.0}, (), (), "digest")


@settings(deadline=None, max_examples=100)
@given(shares, st.sampled_from(["bh", "by"]))
def test_equals_scipy(p: list[float], method: Method) -> None:
    values = torch.tensor(p, dtype=torch.float64)
    wanted = torch.from_numpy(stats.false_discovery_control(values.numpy(), method=method))
    assert torch.allclose(adjusted_p(values, method), wanted, atol=1e-12, rtol=1e-12)


@settings(deadline=None, max_examples=50)
@given(shares, st.randoms(use_true_random=False))
def test_order_does_not_matter(p: list[float], rng: object) -> None:
    where = list(range(len(p)))
    rng.shuffle(where)  # pyright: ignore[reportAttributeAccessIssue]
    values = torch.tensor(p, dtype=torch.float64)
    assert torch.equal(adjusted_p(values[where]), adjusted_p(values)[where])


def test_controls_false_discoveries() -> None:
    draw, rate, trials, batch = torch.Generator().manual_seed(6), 0.1, 400, 100
    false, power = [], []
    for _ in range(trials):
        calibration = torch.randn(1000, generator=draw)
        scores = torch.randn(batch, generator=draw)
        scores[:10] += 4
        p = conformal_p(calibration.sort().values, scores)
        flags = torch.tensor([r.flagged for r in with_discoveries([reading(float(x)) for x in p], rate)])
        false.append(float(flags[10:].sum()) / max(1, int(flags.sum())))
        power.append(float(flags[:10].double().mean()))
    spread = torch.tensor(false).std() / trials**0.5
    assert float(torch.tensor(false).mean()) <= rate + 3 * float(spread)
    assert sum(power) / trials > 0.5


def test_readings_carry_q_and_its_rate() -> None:
    judged = with_discoveries([reading(0.01), reading(0.5), reading(0.02)], 0.03)
    assert [r.flagged for r in judged] == [True, False, True]
    assert judged[0].to_json()["q"] == pytest.approx(0.03)
    assert judged[0].to_json()["fdr"] == 0.03
    assert "q" not in reading(0.01).to_json()
    assert with_discoveries([], 0.05) == []


def test_refusals() -> None:
    with pytest.raises(UsageError, match="give p-values, not scores"):
        adjusted_p(torch.tensor([1.5]))
    with pytest.raises(ConfigError, match=r"false discovery rate is 1\.0;"):
        with_discoveries([reading(0.5)], 1.0)
