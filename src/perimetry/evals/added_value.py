"""What a score adds to baselines that are known already: two logistic fits, one nested in the other.

Both are fitted with a ridge penalty of 1 on scores in standard deviations, on four fifths of the pairs, and judged on the
last fifth, in turn. A score that only repeats the baselines gains nothing there, however well it does alone.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from perimetry.errors import UsageError
from perimetry.evals.arms import Arm, arm_row
from perimetry.evals.resampling import METRICS
from perimetry.evals.rows import Row
from perimetry.evals.selection import pair_folds

__all__ = ["added_value_rows", "fit_logistic", "out_of_fold_logits"]

PENALTY = 1.0
STEPS = 100
TOLERANCE = 1e-8

Features = Float[Tensor, "case feature"]
Labels = Bool[Tensor, " case"]


def fit_logistic(x: Features, y: Labels, penalty: float = PENALTY) -> Float[Tensor, " coefficient"]:
    """Intercept, then one weight a feature: the minimum of the summed log-loss plus `penalty` / 2 times the squared weights.

    The intercept carries no penalty. Errors: `UsageError` when one class is missing.
    """
    if not bool(y.any()) or bool(y.all()):
        raise UsageError("a logistic fit was given cases of one class only; give clean and shifted ones")
    found = LogisticRegression(C=1 / penalty, solver="newton-cholesky", tol=TOLERANCE, max_iter=STEPS)
    found.fit(x.double().numpy(), y.numpy())
    return torch.from_numpy(np.concatenate([found.intercept_, found.coef_[0]]))


def out_of_fold_logits(x: Features, y: Labels, folds: Int[Tensor, " case"]) -> Float[Tensor, " case"]:
    """The log-odds of each case under a fit on the other folds, features scaled by their means and spreads there.

    Errors: `UsageError` when the complement of a fold lacks a class.
    """
    found = torch.zeros(x.shape[0], dtype=torch.float64)
    for fold in folds.unique().tolist():
        here = folds == fold
        known = x[~here].double()
        mean, spread = known.mean(0), known.std(0)
        spread = torch.where(spread > 0, spread, 1.0)
        w = fit_logistic((known - mean) / spread, y[~here])
        found[here] = w[0] + ((x[here].double() - mean) / spread) @ w[1:]
    return found


def added_value_rows(arm: Arm, name: str, baselines: Sequence[str]) -> list[Row]:
    """What score `name` adds to `baselines` on a contrast: `added_log_loss` and `added_auroc`, above 0 = it adds.

    The first is the mean log-loss of the baselines alone minus that with the score, in nats a case. Intervals resample
    pairs, the fits stay. Nothing where no baseline was scored, or fewer than four pairs are there.
    """
    known = [b for b in baselines if b in arm.table.scores and b != name]
    if not known or arm.weights.pairs < 4:
        return []
    cases = [*arm.contrast.clean, *arm.contrast.shifted]
    n_clean = len(arm.contrast.clean)
    y = torch.arange(len(cases)) >= n_clean
    columns = torch.stack([arm.table.scores[b][cases] for b in [*known, name]], 1)
    folds = pair_folds([arm.pairs[i] for i in cases])
    logits = {n: out_of_fold_logits(columns[:, :n], y, folds) for n in (len(known), len(known) + 1)}
    losses = {
        n: torch.nn.functional.binary_cross_entropy_with_logits(v, y.double(), reduction="none")
        for n, v in logits.items()
    }
    gain = losses[len(known)] - losses[len(known) + 1]
    weights = torch.cat([arm.weights.clean, arm.weights.shifted], 1).double()
    loss_draws = (weights @ gain) / weights.sum(1)
    how = METRICS["auroc"]
    sides = {n: (v[:n_clean], v[n_clean:]) for n, v in logits.items()}
    few, all_of = sides[len(known)], sides[len(known) + 1]
    area = how.value(*all_of) - how.value(*few)
    draws = how.draws(*all_of, arm.weights) - how.draws(*few, arm.weights)
    told = {"against": "+".join(known), "selection": "main", "remark": "five-fold logistic fits"}
    return [
        arm_row(arm, name, "concept", "added_log_loss", float(gain.mean()), loss_draws, **told),
        arm_row(arm, name, "concept", "added_auroc", area, draws, **told),
    ]
