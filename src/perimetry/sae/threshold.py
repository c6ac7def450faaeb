"""The common cut of the architectures that keep a budget of values in training and everything above a cut at inference."""

import math
from typing import Any

import torch

from perimetry.axes import Acts
from perimetry.errors import NonFinite
from perimetry.sae.affine import AffineSAE
from perimetry.sae.steps.select import BatchTopK, collect

__all__ = ["fit_threshold", "settle_threshold"]


def fit_threshold(sae: AffineSAE, acts: Acts, k: int) -> float:
    """The common cut above which `acts` have `k` active latents a token on average (strictly above; ties count in).

    It is found exactly: the cut lies just under the smallest of the `k * tokens` largest pre-activations. Where fewer
    are positive, it is 0.
    """
    pre = sae.pre_activations(acts)
    active = collect(pre, [BatchTopK(k, acts.shape[0], pre.sample())])[0]
    if active.entries < k * acts.shape[0]:
        return 0.0
    smallest = active.values.float().min()
    return float(torch.nextafter(smallest, torch.zeros_like(smallest)))


def settle_threshold(threshold: float) -> dict[str, Any]:
    """What to write down of a fitted threshold. Errors: `NonFinite`."""
    if not math.isfinite(threshold):
        raise NonFinite(f"the fitted threshold is {threshold}; a finite one is wanted; lower lr and train again")
    return {"threshold_rule": "mean L0 = k on held-out tokens"}
