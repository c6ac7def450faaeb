"""Damage beside scores: the rows follow from the damage of the twins, and questions are answered with and without typos."""

from typing import Any

import pytest
import torch
from scipy.stats import spearmanr
from tests.worlds import World, text_of

from perimetry.activations.twins import Twin
from perimetry.assets import Document
from perimetry.config import build
from perimetry.errors import UsageError
from perimetry.evals.damage import damage
from perimetry.evals.scores import ScoreTable
from perimetry.pipeline.bench_config import BenchConfig
from perimetry.pipeline.bench_damage import choice_part, damage_part, twin_damage
from perimetry.pipeline.bench_suites import build_suites
from perimetry.shift.meter import Meter
from perimetry.suites import Suite

CLEAN = [Document(f"c{i}", text_of(f"c{i}", 60), {}) for i in range(12)]


def config(**values: Any) -> BenchConfig:
    return build(BenchConfig, {"suites": ("typos",), "words": 15, "passages": 10, "resamples": 100, **values}, "test")


@pytest.fixture(scope="module")
def suite(meter: Meter) -> Suite:
    return build_suites(meter, config(), CLEAN)[0]


def test_rows_follow_from_the_damage_of_the_twins(meter: Meter, suite: Suite) -> None:
    twins = twin_damage(meter.lm, meter.policy, suite, (0.05, 0.2))
    clean = {c.pair: c.text for c in suite.cases if not c.shifted}
    cases = [c for c in suite.cases if c.shifted and c.dose in (0.05, 0.2)]
    assert [suite.cases[i] for i in twins.cases] == cases
    wanted = damage(meter.lm, [Twin(c.id, clean[c.pair], c.text) for c in cases], policy=meter.policy)
    assert twins.found.ids == wanted.ids
    assert torch.allclose(twins.found.kl, wanted.kl, atol=1e-5)
    draw = torch.Generator().manual_seed(0)
    scores = {n: torch.randn(len(suite.cases), generator=draw, dtype=torch.float64) for n in ("l0", "nll", "knn")}
    kl = torch.zeros(len(suite.cases), dtype=torch.float64)
    kl[list(twins.cases)] = twins.found.kl.double()
    scores["nll"] = 2 * kl + 1
    table = ScoreTable(scores, {"l0": "concept", "nll": "baseline", "knn": "baseline"})
    part = damage_part(suite, twins, [table], ["l0"], config(), [7])
    rows = {(r.detector, r.metric, r.dose): r for r in part.rows}
    assert {dose for _, _, dose in rows} == {0.0, 0.05, 0.2}
    assert rows["nll", "damage_kl_spearman", 0.2].estimate == pytest.approx(1.0)
    own = [i for i in twins.cases if suite.cases[i].dose == 0.2]
    expected = spearmanr(scores["l0"][own].numpy(), kl[own].numpy()).statistic
    assert rows["l0", "damage_kl_spearman", 0.2].estimate == pytest.approx(float(expected), abs=1e-9)
    gain = rows["l0", "damage_kl_spearman_difference", 0.2]
    assert (gain.against, gain.best_baseline, gain.seed, gain.n_pairs) == ("nll", True, 7, 10)
    assert gain.estimate == pytest.approx(float(expected) - 1.0, abs=1e-9)
    assert gain.low <= gain.estimate <= gain.high < 0
    means = {(e["dose"], e["measure"]): e for e in part.damage}
    two = torch.tensor([c.dose == 0.2 for c in cases])
    assert means[0.2, "kl"]["estimate"] == pytest.approx(float(wanted.kl[two].double().mean()), abs=1e-5)
    assert means[0.2, "kl"]["low"] <= means[0.2, "kl"]["estimate"] <= means[0.2, "kl"]["high"]
    assert [p["detector"] for p in part.points] == ["l0", "nll"]
    assert all(len(p["score"]) == len(p["kl"]) == len(p["dose"]) == len(cases) for p in part.points)


def test_doses_without_twins_are_named(meter: Meter, suite: Suite) -> None:
    with pytest.raises(UsageError, match=r"suite 'typos' has no twins at the doses \[0.3\]; leave it out of `damage`"):
        twin_damage(meter.lm, meter.policy, suite, (0.3,))


def question(name: str, i: int) -> Document:
    options = [text_of(f"{name}{i}{k}", 3) for k in range(3)]
    if name.endswith("open_qa"):
        return Document(f"q{i}", f"{text_of(i, 8)} (A) {options[0]} (B) {options[1]} (C) {options[2]}", {"label": "B"})
    if name.endswith("social_iqa"):
        text = (
            f"Context: {text_of(i, 6)}| Question: why?| Option A: {options[0]}| Option B: {options[1]}| "
            f"Option C: {options[2]}. The correct answer is "
        )
        return Document(f"q{i}", text, {"label": "1"})
    return Document(f"q{i}", f"{text_of(i, 8)}\n\nA.{options[0]}\nB.{options[1]}", {"label": "0"})


def test_questions_are_answered_with_and_without_typing_errors(meter: Meter, world: World) -> None:
    found = choice_part(meter.lm, meter.policy, config(questions=6), lambda name: [question(name, i) for i in range(9)])
    by_set: dict[str, dict[str, Any]] = {}
    for entry in found:
        assert (entry["suite"], entry["dose"], entry["n_pairs"]) == ("questions", 0.2, 6)
        by_set.setdefault(entry["family"], {})[entry["measure"]] = entry
    assert set(by_set) == {"44_phys_tf", "55_open_qa", "86_social_iqa"}
    for entries in by_set.values():
        before, after = entries["accuracy_clean"]["estimate"], entries["accuracy_corrupted"]["estimate"]
        assert entries["accuracy_loss"]["estimate"] == pytest.approx(before - after)
    assert by_set["55_open_qa"]["accuracy_clean"]["chance"] == pytest.approx(1 / 3)
