"""The common cut of the architectures that keep a budget of values in training and everything above a cut at inference."""

import math
from typing import Any

import torch

from perimetry.axes import Acts, Latents
from perimetry.errors import NonFinite
from perimetry.sae.affine import AffineSAE
from perimetry.sae.steps.select import BatchTopK, collect

__all__ = ["budget_mask", "fit_threshold", "settle_threshold"]


def budget_mask(ranked: Latents, k: int) -> Latents:
    """1 at the `k * tokens` largest entries of a batch, 0 elsewhere; ties go to the first token, lowest latent.

    >>> budget_mask(torch.tensor([[1.0, 3.0], [2.0, 3.0]]), 1)
    tensor([[0., 1.],
            [0., 1.]])
    """
    order = ranked.reshape(-1).argsort(descending=True, stable=True)[: k * ranked.shape[0]]
    mask = torch.zeros(ranked.numel(), dtype=ranked.dtype, device=ranked.device)
    mask[order] = 1.0
    return mask.reshape(ranked.shape)


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
