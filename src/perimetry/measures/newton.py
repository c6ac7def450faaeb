"""The solver below `perimetry.measures.logistic`: many penalised logistic regressions at once, each to convergence.

Each problem is min over u of C * (sum of log losses) + penalty of u, where u holds the weights and, last, the intercept, which is not
penalised. Every round takes the second-order model of the losses, minimises it with the penalty (in closed form for L2; for L1 by
coordinate descent that finds the support and Cholesky steps on it), and steps towards that point as far as the true objective
falls: a proximal Newton method (Lee, Sun, Saunders, "Proximal Newton-type methods", 2014; the L1 model as in Friedman, Hastie,
Tibshirani, 2010). Problems that have converged leave the batch, so that each ends as it would alone.
"""

from typing import Final, Literal, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import softplus

__all__ = ["Batch", "Penalty", "Solution", "solve"]

Penalty = Literal["l1", "l2"]
"""`l1`: the sum of absolute weights; `l2`: half the sum of squared weights."""

ROUNDS: Final = 500
HALVINGS: Final = 40
SUFFICIENT: Final = 1e-4
RIDGE: Final = 1e-12
INNER: Final = 60
SUPPORT_STEPS: Final = 10
NOISE: Final = 1e-13

Design = Float[Tensor, "problem row column"]
PerRow = Float[Tensor, "problem row"]
PerColumn = Float[Tensor, "problem column"]
PerProblem = Float[Tensor, " problem"]


class Batch(NamedTuple):
    """Problems padded to one shape, float64."""

    design: Design
    """Features and, last, a column of ones; padding holds zeros."""
    labels: PerRow
    """1 or 0."""
    real: PerRow
    """1 where a row is real, 0 where it is padding."""
    strength: PerProblem
    """C: what a log loss costs against the penalty."""

    def take(self, which: Tensor) -> "Batch":
        """Some of the problems; the same tensors where all are meant."""
        return self if which.numel() == self.strength.numel() else Batch(*(part[which] for part in self))


class Solution(NamedTuple):
    """Where the problems ended."""

    point: PerColumn
    """Weights and, last, the intercept."""
    left: PerProblem
    """Largest entry of the smallest subgradient of the objective there; 0 = exact."""


class _Model(NamedTuple):
    """Second order of the losses at a point."""

    slope: PerColumn
    curve: Float[Tensor, "problem column column"]


def _costs(batch: Batch, scores: PerRow) -> PerProblem:
    # log(1 + exp(z)) - y z, without cancellation for large z of either sign.
    signed = torch.where(batch.labels > 0, -scores, scores)
    return batch.strength * (softplus(signed) * batch.real).sum(1)


def _scores(batch: Batch, point: PerColumn) -> PerRow:
    return torch.bmm(batch.design, point[:, :, None])[:, :, 0]


def _prices(point: PerColumn, penalty: Penalty) -> PerProblem:
    weights = point[:, :-1]
    return weights.abs().sum(1) if penalty == "l1" else weights.square().sum(1) / 2


def _slope(batch: Batch, scores: PerRow) -> PerColumn:
    """Gradient of the losses. The residual is taken from the small side, where it keeps its digits."""
    positive = batch.labels > 0
    miss = torch.sigmoid(torch.where(positive, -scores, scores)) * batch.real
    return batch.strength[:, None] * torch.bmm(torch.where(positive, -miss, miss)[:, None], batch.design)[:, 0]


def _curve(batch: Batch, scores: PerRow) -> Float[Tensor, "problem column column"]:
    weight = torch.sigmoid(scores) * torch.sigmoid(-scores) * batch.real * batch.strength[:, None]
    root = weight.sqrt()[:, :, None] * batch.design
    return torch.bmm(root.transpose(1, 2), root)


def _violation(slope: PerColumn, point: PerColumn, penalty: Penalty) -> PerProblem:
    """Largest entry of the smallest subgradient."""
    if penalty == "l2":
        found = slope.clone()
        found[:, :-1] += point[:, :-1]
        return found.abs().amax(1)
    found = torch.where(point != 0, (slope + point.sign()).abs(), (slope.abs() - 1).clamp_min(0))
    found[:, -1] = slope[:, -1].abs()
    return found.amax(1)


def _cholesky_solve(curve: Tensor, right: PerColumn) -> PerColumn:
    """`curve` is positive semidefinite; a ridge far below its own scale makes it definite, and a larger one where rounding wants it."""
    diagonal = curve.diagonal(dim1=1, dim2=2)
    ridge = RIDGE * diagonal.amax(1, keepdim=True).clamp_min(1e-300)
    while True:
        factor, failed = torch.linalg.cholesky_ex(curve + torch.diag_embed(ridge.expand_as(diagonal)))
        if not bool(failed.any()):
            return torch.cholesky_solve(right[:, :, None], factor)[:, :, 0]
        ridge = torch.where(failed[:, None] > 0, ridge * 100, ridge)


def _target_l2(model: _Model, point: PerColumn) -> PerColumn:
    """Where the model with the L2 penalty is least."""
    full = model.curve.clone()
    full.diagonal(dim1=1, dim2=2)[:, :-1] += 1
    slope = model.slope.clone()
    slope[:, :-1] += point[:, :-1]
    return point - _cholesky_solve(full, slope)


def _sweep(model_slope: PerColumn, curve: Tensor, point: PerColumn) -> None:
    """One pass of coordinate descent over the L1 model; changes `point` and `model_slope`, the model's gradient there."""
    diagonal = curve.diagonal(dim1=1, dim2=2)
    last = point.shape[1] - 1
    for j in range(last + 1):
        scale = diagonal[:, j].clamp_min(1e-300)
        wanted = point[:, j] - model_slope[:, j] / scale
        if j < last:
            wanted = wanted.sign() * (wanted.abs() - 1 / scale).clamp_min(0)
        # A column without a row that bends the losses says nothing: its weight, if penalised, is 0.
        step = torch.where(diagonal[:, j] > 0, wanted - point[:, j], -point[:, j] if j < last else 0.0)
        point[:, j] += step
        model_slope.addcmul_(curve[:, j], step[:, None])


def _change(slope: PerColumn, curve: Tensor, point: PerColumn, other: PerColumn) -> tuple[PerProblem, PerColumn]:
    """How much the L1 model rises from `point` to `other`, and its gradient there; `slope` is the gradient at `point`."""
    step = other - point
    bend = torch.bmm(curve, step[:, :, None])[:, :, 0]
    return (step * (slope + bend / 2)).sum(1) + _prices(other, "l1") - _prices(point, "l1"), slope + bend


def _support_step(slope: PerColumn, curve: Tensor, point: PerColumn) -> bool:
    """Go towards the least point of the L1 model on the support of `point`; says whether a weight became 0 on the way.

    Either as far as the first weight that becomes 0, or all the way with those that would change their sign put to 0, whichever
    is lower. Changes `point` and `slope`, the model's gradient there.
    """
    sign = point.sign()
    sign[:, -1] = 0
    held = point != 0
    held[:, -1] = True
    inside = (held[:, :, None] & held[:, None, :]).to(curve.dtype)
    masked = curve * inside + torch.diag_embed((~held).to(curve.dtype))
    step = -_cholesky_solve(masked, (slope + sign) * held) * held
    ratio = torch.where(sign * step < 0, -point / step, torch.inf)
    share = ratio.amin(1, keepdim=True).clamp_max(1.0)
    near = (point + share * step).masked_fill(ratio <= share, 0.0)
    far = (point + step).masked_fill(ratio <= 1, 0.0)
    near_rise, near_slope = _change(slope, curve, point, near)
    far_rise, far_slope = _change(slope, curve, point, far)
    better = (far_rise < near_rise)[:, None]
    point.copy_(torch.where(better, far, near))
    slope.copy_(torch.where(better, far_slope, near_slope))
    return bool((ratio <= 1).any())


def _target_l1(model: _Model, point: PerColumn, tolerance: PerProblem) -> PerColumn:
    """Where the model with the L1 penalty is least, to a tenth of `tolerance` in its subgradient."""
    target, slope = point.clone(), model.slope.clone()
    open_ = torch.arange(point.shape[0], device=point.device)
    for _ in range(INNER):
        curve, part, part_slope = model.curve[open_], target[open_], slope[open_]
        _sweep(part_slope, curve, part)
        for _ in range(SUPPORT_STEPS):
            if not _support_step(part_slope, curve, part):
                break
        target[open_], slope[open_] = part, part_slope
        open_ = open_[_violation(part_slope, part, "l1") > tolerance[open_]]
        if not open_.numel():
            break
    return target


def _move(
    batch: Batch, scores: PerRow, point: PerColumn, target: PerColumn, slope: PerColumn, penalty: Penalty
) -> tuple[PerColumn, PerRow, Bool[Tensor, " problem"]]:
    """The point, its scores, and whether it moved: halfway back towards `point` until the objective falls enough."""
    step = target - point
    step_scores = _scores(batch, step)
    before = _costs(batch, scores) + _prices(point, penalty)
    expected = (slope * step).sum(1) + _prices(target, penalty) - _prices(point, penalty)
    share = torch.ones_like(before)
    good = torch.zeros_like(before, dtype=torch.bool)
    # Below this, a fall of the objective cannot be told from rounding, and the step is taken as it is.
    slack = 1e-14 * before.abs()
    for _ in range(HALVINGS):
        tried = point + share[:, None] * step
        after = _costs(batch, scores + share[:, None] * step_scores) + _prices(tried, penalty)
        good = after <= before + SUFFICIENT * share * expected.clamp_max(0) + slack
        if bool(good.all()):
            break
        share = torch.where(good, share, share / 2)
    moved = good & (step.abs().amax(1) > 0)
    share = torch.where(moved, share, 0.0)[:, None]
    whole = share == 1
    return torch.where(whole, target, point + share * step), scores + share * step_scores, moved


def solve(batch: Batch, penalty: Penalty, tolerance: float, start: PerColumn) -> Solution:
    """Solve every problem of the batch from `start`, until no entry of its smallest subgradient exceeds `tolerance`.

    The gradient of a weight is compared with the slope of its own penalty, which is 1 for L1. A problem of huge C and features
    stops where float64 can tell no better. `left` says what remained.
    """
    point = start.clone()
    left = torch.zeros_like(batch.strength)
    open_ = torch.arange(point.shape[0], device=point.device)
    reach = batch.design.abs().sum(1).amax(1) * batch.strength
    limits = tolerance + NOISE * reach
    scores = _scores(batch, point)
    for _ in range(ROUNDS):
        part, here, z = batch.take(open_), point[open_], scores[open_]
        slope = _slope(part, z)
        violation = _violation(slope, here, penalty)
        left[open_] = violation
        unfinished = violation > limits[open_]
        open_ = open_[unfinished]
        if not open_.numel():
            break
        part, here, z, slope = part.take(unfinished.nonzero()[:, 0]), here[unfinished], z[unfinished], slope[unfinished]
        model = _Model(slope, _curve(part, z))
        target = (
            _target_l2(model, here)
            if penalty == "l2"
            else _target_l1(model, here, (limits[open_] / 10).maximum(0.003 * violation[unfinished]))
        )
        point[open_], scores[open_], moved = _move(part, z, here, target, slope, penalty)
        open_ = open_[moved]
        if not open_.numel():
            break
    return Solution(point, left)
