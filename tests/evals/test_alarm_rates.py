"""Alarms on novel, harmless texts: counted by family, with the matched clean texts beside them."""

import pytest
import torch

from perimetry.errors import UsageError
from perimetry.evals.alarm_rates import benign_alarm_rows
from perimetry.evals.rows import Kind
from perimetry.measures.stats import wilson
from perimetry.suites import Case, Suite

KINDS: dict[str, Kind] = {"l0": "concept", "nll": "baseline"}


def suite(benign: tuple[str, ...]) -> Suite:
    cases: list[Case] = []
    for i in range(20):
        family = "code" if i % 2 else "hex/attack"
        cases.append(Case(f"s{i}", "x", str(i), family, 1.0, True))
        cases.append(Case(f"c{i}", "y", str(i), "passage", 0.0, False))
    return Suite("domain", "Synthetic.", tuple(cases), {}, benign)


def test_rates_by_family_with_wilson_intervals() -> None:
    p = torch.ones(40, dtype=torch.float64)
    p[2] = p[6] = 0.05  # shifted cases 1 and 3: family `code`, exactly at the rate
    p[10] = 0.01
    p[3] = 0.001  # the clean partner of case 1
    p[0] = 0.001  # an attack: of no interest here
    rows = {
        (r.detector, r.family, r.metric): r
        for r in benign_alarm_rows({"l0": p, "nll": torch.ones(40)}, KINDS, suite(("code",)), seed=5)
    }
    five, one = rows["l0", "all", "alarm_rate_at_5"], rows["l0", "code", "alarm_rate_at_1"]
    assert (five.estimate, five.n_shifted, five.n_clean, five.seed) == (0.3, 10, 0, 5)
    assert (five.low, five.high) == wilson(3, 10)[1:3]
    assert one.estimate == 0.1
    clean = rows["l0", "passage", "alarm_rate_at_1"]
    assert (clean.estimate, clean.n_clean, clean.n_shifted, clean.dose) == (0.1, 10, 0, 0.0)
    assert rows["nll", "all", "alarm_rate_at_5"].estimate == 0.0
    assert {family for _, family, _ in rows} == {"all", "code", "passage"}


def test_suites_without_harmless_families_have_no_such_rows() -> None:
    assert benign_alarm_rows({"l0": torch.zeros(40)}, KINDS, suite(())) == []
    with pytest.raises(UsageError, match="'l0' has 3 p-values for 40 cases; give one a case"):
        benign_alarm_rows({"l0": torch.zeros(3)}, KINDS, suite(("code",)))
