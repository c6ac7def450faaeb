"""Where nothing is to be found, nothing must be found: clean against clean, shuffled labels, exchangeable scores."""

import math
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from perimetry.errors import TooFewSamples, UsageError
from perimetry.evals.control_rows import HALF, RARE, ControlRow, control_row, ks_row
from perimetry.evals.false_alarms import p_uniformity
from perimetry.measures.ranking import auroc_interval
from perimetry.measures.stats import KolmogorovSmirnov, ks_uniform, percentile_interval, wilson
from perimetry.shift.conformal import Calibration, conformal_p

__all__ = ["clean_halves", "held_out_p_values", "shuffled_labels", "simulated_p_values"]

LEAST = 8
SIGNIFICANCE = 0.05
SHORTEST, LONGEST = 15, 200
"""Lengths of simulated prompts, in tokens."""


def clean_halves(
    one: Mapping[str, Float[Tensor, " one"]],
    two: Mapping[str, Float[Tensor, " two"]],
    *,
    seed: int = 0,
    significance: float = SIGNIFICANCE,
) -> list[ControlRow]:
    """AUROC of each score between two disjoint sets of clean prompts, which must be one half within its interval.

    The intervals of all scores together have the confidence 1 - `significance` (Bonferroni). Errors: `TooFewSamples` for
    fewer than 8 prompts a side, `UsageError` for no score.
    """
    if not one:
        raise UsageError("no score was given for clean against clean; wanted at least one")
    found: list[ControlRow] = []
    for name, values in one.items():
        other = two[name]
        if min(values.numel(), other.numel()) < LEAST:
            raise TooFewSamples(
                f"{values.numel()} and {other.numel()} clean prompts give no interval; wanted {LEAST} on each side; give "
                "more text"
            )
        box = auroc_interval(values.double(), other.double(), pairs=False, confidence=1 - significance / len(one))
        found.append(
            control_row("clean_against_clean", name, "auroc", box, expected=HALF, against="other clean text", seed=seed)
        )
    return found


def shuffled_labels(
    name: str,
    clean: Float[Tensor, " clean"],
    shifted: Float[Tensor, " shifted"],
    *,
    shuffles: int,
    draw: torch.Generator,
    dose: float = 0.0,
    seed: int = 0,
) -> list[ControlRow]:
    """What is left of an AUROC when a coin decides, for each pair, which of its two texts is called the shifted one.

    The mean AUROC over all shuffles, between the quantiles of the shuffles that enclose 95 % of them, must be one half;
    and the 95 % interval by pair must miss one half in no more than 5 % of the shuffles (Wilson's interval of that share).
    Errors: `TooFewSamples` for fewer than 8 pairs, `UsageError` for sides of unequal length or no shuffle.
    """
    if clean.shape != shifted.shape or shuffles < 1:
        raise UsageError(
            f"{clean.numel()} clean and {shifted.numel()} shifted scores, {shuffles} shuffles; wanted pairs and at least "
            "one shuffle"
        )
    if clean.numel() < LEAST:
        raise TooFewSamples(f"{clean.numel()} pairs give no interval; wanted at least {LEAST}; give more pairs")
    sides = torch.stack([clean, shifted]).double()
    areas: list[float] = []
    missed = 0
    for _ in range(shuffles):
        coin = torch.rand(clean.numel(), generator=draw) < 0.5
        box = auroc_interval(torch.where(coin, *sides), torch.where(coin, *sides.flip(0)), pairs=True)
        areas.append(box.estimate)
        missed += not box.low <= 0.5 <= box.high
    drawn = torch.tensor(areas, dtype=torch.float64)
    mean = percentile_interval(float(drawn.mean()), drawn, clean.numel(), f"{shuffles} shuffles")
    about = {"dose": dose, "seed": seed, "against": "labels by a coin"}
    return [
        control_row("shuffled_labels", name, "mean_auroc", mean, expected=HALF, **about),
        control_row("shuffled_labels", name, "missed_share", wilson(missed, shuffles), expected=RARE, **about),
    ]


def held_out_p_values(
    name: str,
    p: Float[Tensor, " prompt"],
    groups: Sequence[str],
    n_calibration: Sequence[int],
    *,
    control: str = "p_values",
    seed: int = 0,
    significance: float = SIGNIFICANCE,
) -> list[ControlRow]:
    """Whether the p-values of clean prompts are uniform in each group, as far as their calibration set lets them be.

    `p_uniformity` says how; all groups together are held to `significance`. Errors: as there.
    """
    tests = p_uniformity(p, groups, n_calibration, significance)
    return [
        ks_row(
            control,
            name,
            KolmogorovSmirnov(test.statistic, test.p_value),
            n=test.n_test,
            against_n=test.n_calibration,
            significance=significance / len(tests),
            against=test.group,
            seed=seed,
        )
        for test in tests
    ]


def simulated_p_values(
    n: int, *, calibration: int, groups: int, draw: torch.Generator, seed: int = 0
) -> list[ControlRow]:
    """P-values of `n` simulated exchangeable scores, which must be uniform.

    Once each against a calibration set of its own of 99 scores: there p is uniform on its hundredths, and spread evenly
    within them it is uniform altogether. And once through a `Calibration` of so many prompts with length groups, whose
    scores grow with the length, as a meter does it: in each group. Errors: `UsageError` for fewer than 100 scores.
    """
    if n < 100:
        raise UsageError(f"{n} simulated scores test nothing; wanted at least 100")
    own = 99
    spread = torch.rand(n, generator=draw, dtype=torch.float64) / (own + 1)
    p = torch.cat([_fresh(size, own, draw) for size in _sizes(n)]) - spread
    test = ks_uniform(p)
    alone = ks_row(
        "simulated_p_values",
        "simulated",
        test,
        n=n,
        against_n=None,
        significance=SIGNIFICANCE,
        against="sets of their own",
    )
    lengths = _lengths(calibration, draw)
    table = Calibration.fit({"simulated": _score(lengths, draw)}, lengths, groups=groups, minimum=1)
    tested = _lengths(n, draw)
    found = table.p_values("simulated", _score(tested, draw), tested)
    grouped = held_out_p_values(
        "simulated", found.p, found.group, found.n.tolist(), control="simulated_p_values", seed=seed
    )
    return [alone._replace(seed=seed), *grouped]


def _sizes(n: int, chunk: int = 4096) -> list[int]:
    return [min(chunk, n - start) for start in range(0, n, chunk)]


def _fresh(n: int, own: int, draw: torch.Generator) -> Float[Tensor, " n"]:
    """P-values of n scores, each against a calibration set of its own."""
    clean = torch.randn(n, own, generator=draw).sort(1).values
    scores = torch.randn(n, 1, generator=draw)
    return torch.cat([conformal_p(row, score) for row, score in zip(clean, scores, strict=True)])


def _lengths(n: int, draw: torch.Generator) -> Float[Tensor, " n"]:
    """Uniform in their logarithm, as those of calibration passages."""
    low, high = math.log(SHORTEST), math.log(LONGEST)
    return (low + (high - low) * torch.rand(n, generator=draw)).exp().round()


def _score(lengths: Float[Tensor, " n"], draw: torch.Generator) -> Float[Tensor, " n"]:
    """A score that a longer text makes higher and steadier, so that only groups of like length are exchangeable."""
    return 0.01 * lengths + torch.randn(lengths.numel(), generator=draw) * (30 / lengths).sqrt()
