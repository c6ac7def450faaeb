"""Several seeds together."""

import pytest

from evals.samples import dial, gaussian
from perimetry.evals.seeds import over_seeds
from perimetry.evals.shift import BenchConfig, bench

QUICK = BenchConfig(resamples=200)


def test_seeds_are_put_together_row_by_row() -> None:
    suite = dial(80, (0.2, 0.5))
    rows = []
    for seed, gain in ((1, 8.0), (2, 9.0), (3, 0.0)):
        table = gaussian(suite.cases, {"surprise": gain, "nll": 1.0}, seed)
        rows += bench(lambda _, t=table: t, suite, main="surprise", seed=seed, config=QUICK).rows
    found = over_seeds(rows)
    areas = [r.estimate for r in rows if r.metric == "auroc" and r.detector == "surprise" and r.dose == 0.5]
    (area,) = [r for r in found if r.metric == "auroc" and r.detector == "surprise" and r.dose == 0.5]
    assert (area.seeds, area.least, area.greatest) == (3, min(areas), max(areas))
    assert area.mean == pytest.approx(sum(areas) / 3)
    differences = [r for r in found if r.metric == "auroc_difference" and r.dose == 0.5 and r.selection == "main"]
    assert {r.against for r in differences} == {"nll", "best baseline"}
    assert not any(r.every_interval_above_zero for r in differences), "seed 3 does not beat the baseline"
    two = over_seeds([r for r in rows if r.seed < 3])
    kept = [r for r in two if r.metric == "auroc_difference" and r.dose == 0.5]
    assert kept
    assert all(r.every_interval_above_zero and r.seeds == 2 for r in kept)
    assert {r.detector for r in kept if r.selection == "post_hoc"} == {""}
