"""Latents taken out of activations, and what a linear probe on the activations loses by it: what TPP and SCR share.

An activation without some latents is itself less what these latents add to its reconstruction: what the dictionary does not
explain stays.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from perimetry.axes import Acts
from perimetry.errors import ConfigError, TooFewSamples
from perimetry.sae.base import AbstractSAE, Codes

__all__ = [
    "LinearProbe",
    "Rows",
    "attribution",
    "balanced_accuracy",
    "fit_probe",
    "require_counts",
    "strongest",
    "without",
]

STEPS = 2000
Labels = Bool[Tensor, " token"]
Effects = Float[Tensor, " d_sae"]


class Rows(NamedTuple):
    """Labelled activations."""

    acts: Acts
    """Raw, float32."""
    labels: Labels
    """The class of each."""


class LinearProbe(NamedTuple):
    """A logistic probe on raw activations."""

    weight: Float[Tensor, " d_model"]
    """Direction of the class that is true."""
    bias: float
    """Added to the product."""

    def __call__(self, acts: Acts) -> Labels:
        """The class that it gives each activation."""
        return acts.double() @ self.weight + self.bias > 0


def fit_probe(rows: Rows, c: float) -> LinearProbe:
    """A probe with an L2 penalty of 1 / c on standardised activations, in raw units. Errors: `TooFewSamples` for one class."""
    if not 0 < int(rows.labels.sum()) < len(rows.labels):
        raise TooFewSamples(f"all {len(rows.labels)} rows are of one class; a probe needs both; give rows of both")
    x = rows.acts.double()
    mean, scale = x.mean(0), x.std(0, correction=0)
    # A coordinate that never changes says nothing, and must not be divided by.
    scale = torch.where(scale > 0, scale, torch.inf)
    model = LogisticRegression(C=c, max_iter=STEPS).fit(((x - mean) / scale).numpy(), rows.labels.numpy())
    weight = torch.from_numpy(model.coef_[0]) / scale
    return LinearProbe(weight, float(model.intercept_[0]) - float(weight @ mean))


def balanced_accuracy(probe: LinearProbe, acts: Acts, labels: Labels) -> float:
    """Mean over the two classes of the share that the probe calls by its class; .5 is chance."""
    right = probe(acts) == labels
    return float(right[labels].double().mean() + right[~labels].double().mean()) / 2


@torch.no_grad()
def attribution(sae: AbstractSAE, rows: Rows, probe: LinearProbe, side: Literal["positive", "both"]) -> Effects:
    """Of each latent, the difference of its mean activation between the classes times the probe's weight on its direction.

    `positive`: of latents that fire more for the true class; `both`: the absolute value, whichever class it stands for.
    """
    codes = sae.encode(rows.acts.to(sae.W_dec.device))
    sign = torch.where(rows.labels, 1 / int(rows.labels.sum()), -1 / int((~rows.labels).sum())).double()
    weighted = codes.values.cpu().double() * sign[:, None]
    change = torch.zeros(codes.width, dtype=torch.float64)
    change.index_add_(0, codes.indices.cpu().flatten(), weighted.flatten())
    on_probe = sae.W_dec.detach().cpu().double() @ probe.weight
    return change.clamp(min=0) * on_probe if side == "positive" else (change * on_probe).abs()


def strongest(effects: Effects, count: int) -> Int[Tensor, " latent"]:
    """The `count` latents of the largest effects, fewer where fewer have one above 0; ties go to neither of them by chance."""
    order = torch.sort(effects, descending=True, stable=True).indices[:count]
    return order[effects[order] > 0]


@torch.no_grad()
def without(sae: AbstractSAE, acts: Acts, latents: Int[Tensor, " latent"]) -> Acts:
    """The activations without what the latents add to the reconstruction."""
    codes = sae.encode(acts.to(sae.W_dec.device))
    gone = torch.isin(codes.indices, latents.to(codes.indices.device))
    left = Codes(codes.indices, codes.values.masked_fill(gone, 0), codes.width)
    return acts + (sae.decode(left) - sae.decode(codes)).to(acts)


def require_counts(counts: Sequence[int], sae: AbstractSAE) -> None:
    """Refuse to take out more latents than there are. Errors: `ConfigError`."""
    if not counts or min(counts) < 1 or max(counts) > sae.d_sae or len(set(counts)) != len(counts):
        raise ConfigError(
            f"ablate = {list(counts)} for a dictionary of {sae.d_sae} latents; wanted distinct numbers from 1 to its width; change "
            "the setting"
        )
