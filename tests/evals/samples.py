"""Synthetic suites and scores whose AUROC is known."""

import math
from collections.abc import Sequence

import torch

from perimetry.evals.scores import ScoreTable
from perimetry.suites import Case, Suite

DOSES = (0.05, 0.2, 0.5)


def dial(pairs: int, doses: Sequence[float] = DOSES, families: Sequence[str] = ("typos",)) -> Suite:
    cases = [Case(f"{i}/clean", "text", str(i), "clean", 0.0, False) for i in range(pairs)]
    for family in families:
        for dose in doses:
            cases += [Case(f"{i}/{family}/{dose}", "txet", str(i), family, dose, True) for i in range(pairs)]
    return Suite("dial", "Synthetic.", tuple(cases), {"negatives": "twins"})


def matched(attacks: int) -> Suite:
    """Two families of attacks, up to two kinds of negatives each; every third attack lacks the second kind."""
    cases: list[Case] = []
    for i in range(attacks):
        cases.append(Case(f"a{i}", "x", f"p{i}", "dan" if i % 2 else "tap", 1.0, True))
        cases.append(Case(f"w{i}", "x", f"p{i}", "passage", 0.0, False))
        if i % 3:
            cases.append(Case(f"b{i}", "x", f"p{i}", "prompt", 0.0, False))
    return Suite("matched", "Synthetic.", tuple(cases), {})


def gaussian(cases: Sequence[Case], gains: dict[str, float], seed: int = 0) -> ScoreTable:
    """Scores N(gain * dose, 1), with a part that all detectors and all cases of a pair share."""
    draw = torch.Generator().manual_seed(seed)
    pairs = {case.pair: i for i, case in enumerate({c.pair: c for c in cases}.values())}
    shared = torch.randn(len(pairs), generator=draw, dtype=torch.float64)
    passage = torch.stack([shared[pairs[case.pair]] for case in cases])
    noise = torch.randn(len(cases), generator=draw, dtype=torch.float64)
    dose = torch.tensor([case.dose for case in cases], dtype=torch.float64)
    scores: dict[str, torch.Tensor] = {}
    for name, gain in gains.items():
        own = torch.randn(len(cases), generator=draw, dtype=torch.float64)
        scores[name] = gain * dose + math.sqrt(0.3) * passage + math.sqrt(0.4) * noise + math.sqrt(0.3) * own
    kinds = {name: "concept" if name.startswith(("l0", "surprise")) else "baseline" for name in gains}
    return ScoreTable(scores, kinds)  # pyright: ignore[reportArgumentType]


def area(shift: float) -> float:
    """AUROC of N(shift, 1) against N(0, 1)."""
    return 0.5 * (1 + math.erf(shift / 2))
