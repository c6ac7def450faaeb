"""Logistic probes, many at once: L1 or L2, each to convergence, with a strength that validation chooses.

The objective is that of scikit-learn's `LogisticRegression`: C times the sum of log losses, plus the sum of absolute weights (`l1`) or
half the sum of squared weights (`l2`); the intercept is not penalised and features are taken as they are. Where `saga` of
scikit-learn stops after the 1,000 steps that sae-probes gives it, converged or not, these go on until the subgradient says that they are done.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from perimetry.errors import Incompatible, NonFinite, TooFewSamples, UsageError
from perimetry.measures.newton import Batch, Penalty, solve
from perimetry.measures.ranking import auroc
from perimetry.runtime import generator

__all__ = ["STRENGTHS", "Labelled", "Penalty", "Probe", "fit", "validated", "validation_rows"]

STRENGTHS: Final = tuple(float(c) for c in np.logspace(5, -5, 10))
"""The strengths that are tried, weakest penalty first, as in sae-probes."""
TOLERANCE: Final = 1e-4
ONE_SPLIT: Final = 128
FOLDS: Final = 6
CHUNK: Final = 2**26

Ladder = Float[Tensor, "step problem"]


class Labelled(NamedTuple):
    """Rows with a label each."""

    rows: Float[Tensor, "row feature"]
    """What the probe reads."""
    labels: Bool[Tensor, " row"]
    """True for the class that should score high."""


class Probe(NamedTuple):
    """A fitted probe."""

    weights: Float[Tensor, " feature"]
    """Of the features, float64."""
    intercept: float
    """Log odds of a row of zeros."""
    strength: float
    """C: what a log loss costs against the penalty; higher = weaker penalty."""
    left: float
    """Largest entry of the smallest subgradient of the objective at the end; 0 = the exact optimum."""
    validation: float | None = None
    """Area under the ROC curve on the validation rows, where validation chose the strength; their mean over the folds."""

    def scores(self, rows: Float[Tensor, "row feature"]) -> Float[Tensor, " row"]:
        """Log odds of each row, float64; higher = more likely of the class that is True."""
        return rows.to(self.weights) @ self.weights + self.intercept


class _Choice(NamedTuple):
    """What validation found for one problem."""

    probe: Probe
    """Of the best strength, on the training part of the first split."""
    area: float


def _check(problem: Labelled, which: int) -> None:
    n, positives = problem.labels.numel(), int(problem.labels.sum())
    if problem.rows.shape[0] != n:
        raise Incompatible(
            f"problem {which} has {problem.rows.shape[0]} rows and {n} labels; wanted a label a row; give both"
        )
    if not n or not problem.rows.shape[1]:
        raise TooFewSamples(
            f"problem {which} has {n} rows of {problem.rows.shape[1]} features; a probe needs rows and features; give some"
        )
    if positives in (0, n):
        raise TooFewSamples(
            f"problem {which} has {positives} positives in {n} rows; a probe needs both classes; give both"
        )
    if not bool(problem.rows.isfinite().all()):
        raise NonFinite(f"problem {which} holds NaN or infinity; a probe reads finite numbers; leave those rows out")


def _rotated(problem: Labelled) -> tuple[Labelled, Tensor | None]:
    """An L2 problem with more features than rows in the coordinates of its rows' span, which hold its optimum; and the way back."""
    rows = problem.rows.double()
    if rows.shape[1] <= rows.shape[0]:
        return Labelled(rows, problem.labels), None
    basis, part = torch.linalg.qr(rows.T)
    return Labelled(part.T, problem.labels), basis


def _batch(problems: Sequence[Labelled]) -> Batch:
    """Problems of C = 1, padded with zeros to the longest and the widest."""
    n = max(p.rows.shape[0] for p in problems)
    k = max(p.rows.shape[1] for p in problems)
    design = torch.zeros(len(problems), n, k + 1, dtype=torch.float64, device=problems[0].rows.device)
    labels = design.new_zeros(len(problems), n)
    real = design.new_zeros(len(problems), n)
    for i, (rows, truth) in enumerate(problems):
        count = rows.shape[0]
        design[i, :count, : rows.shape[1]] = rows
        design[i, :count, -1] = 1
        labels[i, :count] = truth.to(design)
        real[i, :count] = 1
    return Batch(design, labels, real, design.new_ones(len(problems)))


def _chunks(problems: Sequence[Labelled]) -> list[list[int]]:
    """Index lists of problems of like width whose padded designs fit `CHUNK` bytes together."""
    order = sorted(range(len(problems)), key=lambda i: (problems[i].rows.shape[1], problems[i].rows.shape[0], i))
    out: list[list[int]] = []
    for i in order:
        size = 8 * (problems[i].rows.shape[1] + 1) * max(p.rows.shape[0] for p in problems)
        if not out or (len(out[-1]) + 1) * size > CHUNK:
            out.append([])
        out[-1].append(i)
    return out


def _run(
    problems: Sequence[Labelled], ladder: Ladder, penalty: Penalty, starts: Sequence[Probe] | None
) -> list[list[Probe]]:
    """For each problem a probe of each of its strengths, in the order of `ladder`; each optimum starts the next."""
    turned = [_rotated(p) if penalty == "l2" else (Labelled(p.rows.double(), p.labels), None) for p in problems]
    batch = _batch([part for part, _ in turned])
    point = batch.design.new_zeros(len(problems), batch.design.shape[2])
    for i, probe in enumerate(starts or ()):
        basis = turned[i][1]
        weights = probe.weights if basis is None else basis.T @ probe.weights
        point[i, : weights.numel()], point[i, -1] = weights, probe.intercept
    out: list[list[Probe]] = [[] for _ in problems]
    for strengths in ladder:
        point, left = solve(batch._replace(strength=strengths.to(point)), penalty, TOLERANCE, point)
        for i, (part, basis) in enumerate(turned):
            weights = point[i, : part.rows.shape[1]].clone()
            weights = weights if basis is None else basis @ weights
            out[i].append(Probe(weights, float(point[i, -1]), float(strengths[i]), float(left[i])))
    return out


def _run_all(
    problems: Sequence[Labelled], ladder: Ladder, penalty: Penalty, starts: Sequence[Probe] | None = None
) -> list[list[Probe]]:
    """`_run` in chunks that fit into memory."""
    out: dict[int, list[Probe]] = {}
    for chunk in _chunks(problems):
        part = [problems[i] for i in chunk]
        from_ = None if starts is None else [starts[i] for i in chunk]
        out |= dict(zip(chunk, _run(part, ladder[:, chunk], penalty, from_), strict=True))
    return [out[i] for i in range(len(problems))]


def fit(problems: Sequence[Labelled], strengths: Sequence[float], penalty: Penalty) -> list[list[Probe]]:
    """For each problem a probe of each strength; problems may differ in rows and features and are solved together.

    Each ends where no entry of its smallest subgradient exceeds 1e-4, against the 1 that is the slope of an L1 penalty (at strengths and
    features so large that float64 cannot tell that, where it can tell no better; `Probe.left` says it). Errors: `TooFewSamples` (no
    rows, one class), `NonFinite`, `Incompatible`, `UsageError` for a strength that is not positive.

    >>> x = torch.tensor([[0.0], [1.0], [2.0], [3.0]])
    >>> [[probe]] = fit([Labelled(x, torch.tensor([False, True, False, True]))], [1.0], "l2")
    >>> round(float(probe.weights[0]), 3), round(probe.intercept, 3)
    (0.453, -0.679)
    """
    if not strengths or any(not 0 < c < float("inf") for c in strengths):
        raise UsageError(f"strengths = {list(strengths)}: wanted one or more positive numbers; give some")
    for i, problem in enumerate(problems):
        _check(problem, i)
    ascending = sorted(set(strengths))
    # From the strongest penalty on: an optimum is near the one before, and the same whatever strengths are asked for besides.
    ladder = torch.tensor(ascending, dtype=torch.float64)[:, None].expand(-1, len(problems))
    found = [dict(zip(ascending, probes, strict=True)) for probes in _run_all(problems, ladder, penalty)]
    return [[by_strength[float(c)] for c in strengths] for by_strength in found]


def validation_rows(n: int) -> int:
    """How many of the last of `n` training rows validate, where `n` is 128 or more.

    >>> validation_rows(200), validation_rows(1024)
    (40, 100)
    """
    return min(n // 5, 100)


def _folds(labels: Bool[Tensor, " row"], seed: int) -> list[Int[Tensor, " _"]]:
    """Validation rows of each split: the last rows of a problem of 128 rows or more, else six stratified folds."""
    n = labels.numel()
    if n >= ONE_SPLIT:
        return [torch.arange(n - validation_rows(n), n)]
    draw, fold = generator(seed), torch.empty(n, dtype=torch.long)
    for truth in (True, False):
        side = (labels.cpu() == truth).nonzero()[:, 0]
        if side.numel() < FOLDS:
            raise TooFewSamples(
                f"a class has {side.numel()} of {n} rows; {FOLDS} validation folds need {FOLDS} of each; give more rows"
            )
        fold[side[torch.randperm(side.numel(), generator=draw)]] = torch.arange(side.numel()) % FOLDS
    return [(fold == i).nonzero()[:, 0] for i in range(FOLDS)]


def _area(probe: Probe, problem: Labelled, rows: Int[Tensor, " row"]) -> float:
    rows = rows.to(problem.labels.device)
    scores, labels = probe.scores(problem.rows[rows]), problem.labels[rows]
    return auroc(scores[~labels], scores[labels])


def _choose(problems: Sequence[Labelled], penalty: Penalty, seed: int) -> list[_Choice]:
    parts: list[Labelled] = []
    held: list[tuple[int, Int[Tensor, " row"]]] = []
    for i, problem in enumerate(problems):
        for rows in _folds(problem.labels, seed):
            rest = torch.ones_like(problem.labels)
            rest[rows] = False
            truth = problem.labels[rows.to(rest.device)]
            if not bool(truth.any()) or bool(truth.all()):
                raise TooFewSamples(
                    f"the last {rows.numel()} rows of problem {i} hold one class and cannot validate; shuffle the rows, or give more"
                )
            parts.append(Labelled(problem.rows[rest], problem.labels[rest]))
            held.append((i, rows))
    fitted = fit(parts, STRENGTHS, penalty)
    areas = torch.zeros(len(problems), len(STRENGTHS), dtype=torch.float64)
    for (i, rows), probes in zip(held, fitted, strict=True):
        areas[i] += torch.tensor([_area(probe, problems[i], rows) for probe in probes], dtype=torch.float64)
    counts = torch.bincount(torch.tensor([i for i, _ in held]), minlength=len(problems))
    # argmax gives the first of equals only by accident: a stable sort promises it.
    best = (areas / counts[:, None]).sort(dim=1, descending=True, stable=True)
    first = (counts.cumsum(0) - counts).tolist()
    return [_Choice(fitted[first[i]][int(best.indices[i, 0])], float(best.values[i, 0])) for i in range(len(problems))]


def validated(problems: Sequence[Labelled], penalty: Penalty, seed: int = 0) -> list[Probe]:
    """A probe for each problem, on all its rows, of the strength in `STRENGTHS` that scored best on rows that did not train.

    From 128 rows on, the last min(20 %, 100) rows validate, so rows should come in random order; below, six stratified folds drawn
    by `seed` do, and their mean area under the ROC curve counts. Of equal areas the weakest penalty wins. As in sae-probes, save
    that areas are of log odds, not of probabilities that are rounded to 1, and that fewer than six rows of a class are refused.
    Errors: those of `fit`, `TooFewSamples` where a validation split lacks a class.
    """
    for i, problem in enumerate(problems):
        _check(problem, i)
    choices = _choose(problems, penalty, seed)
    ladder = torch.tensor([[choice.probe.strength for choice in choices]], dtype=torch.float64)
    refits = _run_all(problems, ladder, penalty, [choice.probe for choice in choices])
    return [probe._replace(validation=choice.area) for (probe,), choice in zip(refits, choices, strict=True)]
