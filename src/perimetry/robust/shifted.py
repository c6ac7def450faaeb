"""How far activations at the tap lie from clean text, with a gradient: what the shift term of the loss pulls on.

All are divided by what clean text gives before tuning, so that 1 means "as clean text" and one weight means the same for every
dictionary. The dictionary is frozen; which concepts fire is found without a gradient, how strongly they fire has one.
"""

from typing import NamedTuple, Protocol, final, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from perimetry.axes import Acts, ModelBias
from perimetry.errors import Incompatible, TooFewSamples
from perimetry.robust.recipe import Pull
from perimetry.sae.affine import AffineSAE
from perimetry.sae.base import AbstractSAE, Codes
from perimetry.sae.entries import combine, place, products_at
from perimetry.sae.steps.active import Active

__all__ = [
    "ActiveCodes",
    "ConceptCentre",
    "Energy",
    "Residual",
    "ShiftLoss",
    "codes_with_gradient",
    "fit_shift",
    "pooled",
]

LEAST = 32
PRIOR = 0.5
"""Added to firings and silences of a latent, as the meter's profile does: no rate is 0 or 1."""


@runtime_checkable
class ShiftLoss(Protocol):
    """Mean shift of some activations; 1 = clean text before tuning, higher = further."""

    def __call__(self, acts: Acts, prompt: Int[Tensor, " token"]) -> Float[Tensor, ""]:
        """With a gradient to `acts`; `prompt` is the text that each token belongs to, non-decreasing from 0."""
        ...


class ActiveCodes(NamedTuple):
    """Active entries of some tokens, their values with a gradient."""

    active: Active
    """The entries; values detached."""
    values: Float[Tensor, " entry"]
    """Values with a gradient to the activations."""


def _active(codes: Codes) -> Active:
    fires = codes.values != 0
    offsets = torch.nn.functional.pad(fires.sum(1).cumsum(0), (1, 0))
    return Active(offsets, codes.indices[fires], codes.values[fires].float(), codes.width)


def codes_with_gradient(sae: AffineSAE, acts: Acts) -> ActiveCodes:
    """What fires in `acts`, by the inference rule, with values that pass gradients on to `acts`.

    Errors: `Incompatible` where the values are not the pre-activations, so that their gradient is not known here.
    """
    with torch.no_grad():
        active = _active(sae.encode(acts.detach()))
    given = acts - sae.b_dec if sae.subtract_b_dec else acts
    values = products_at(place(active), given, sae.W_enc) + sae.b_enc[active.columns]
    gap = float((values.detach() - active.values).abs().max()) if active.entries else 0.0
    if gap > 1e-3 * max(1.0, float(active.values.abs().max()) if active.entries else 1.0):
        raise Incompatible(
            f"the values of a {sae.architecture!r} SAE are not its pre-activations (they differ by {gap:.3g}), so their gradient "
            "is not known; use a dictionary such as batchtopk or jumprelu, or pull = 'residual'"
        )
    return ActiveCodes(active, values)


def _affine(sae: AbstractSAE) -> AffineSAE:
    if not isinstance(sae, AffineSAE):
        raise Incompatible(
            f"the shift term wants a dictionary with an encoder matrix, and {sae.architecture!r} has none; use one such as "
            "batchtopk, or pull = 'residual'"
        )
    return sae


@final
class Energy:
    """|x - x_hat|^2 / s + sum of z_f log((1 - p_f) / p_f), as the meter's `energy`, over its clean mean."""

    def __init__(self, sae: AffineSAE, weights: Float[Tensor, " d_sae"], scale: float, normal: float) -> None:
        self.sae, self.weights, self.scale, self.normal = sae, weights, scale, normal

    def per_token(self, acts: Acts) -> Float[Tensor, " token"]:
        """The energy itself."""
        active, values = codes_with_gradient(self.sae, acts)
        error = (acts - combine(place(active), values, self.sae.W_dec) - self.sae.b_dec).square().sum(1)
        rare = torch.zeros_like(error).index_add(0, active.rows(), values * self.weights[active.columns])
        return error / self.scale + rare

    def __call__(self, acts: Acts, prompt: Int[Tensor, " token"]) -> Float[Tensor, ""]:
        """Mean over the tokens of a text, then over texts."""
        return pooled(self.per_token(acts)[:, None], prompt).mean() / self.normal


def pooled(rows: Float[Tensor, "token width"], prompt: Int[Tensor, " token"]) -> Float[Tensor, "prompt width"]:
    """Mean of each text."""
    n = int(prompt[-1]) + 1
    counts = torch.bincount(prompt, minlength=n).clamp(min=1).to(rows.dtype)
    return rows.new_zeros(n, rows.shape[1]).index_add(0, prompt, rows) / counts[:, None]


@final
class Residual:
    """Squared distance of a text's mean activation from the clean centre: the control without a dictionary."""

    def __init__(self, centre: ModelBias, normal: float) -> None:
        self.centre, self.normal = centre, normal

    def __call__(self, acts: Acts, prompt: Int[Tensor, " token"]) -> Float[Tensor, ""]:
        """Mean over texts."""
        return (pooled(acts, prompt) - self.centre).square().sum(1).mean() / self.normal


@final
class ConceptCentre:
    """Squared distance of a text's mean code from the clean centre."""

    def __init__(self, sae: AffineSAE, centre: Float[Tensor, " d_sae"], normal: float) -> None:
        self.sae, self.centre, self.normal = sae, centre, normal

    def pooled(self, acts: Acts, prompt: Int[Tensor, " token"]) -> Float[Tensor, "prompt d_sae"]:
        """The mean codes, dense: few texts at a time."""
        active, values = codes_with_gradient(self.sae, acts)
        n = int(prompt[-1]) + 1
        counts = torch.bincount(prompt, minlength=n).clamp(min=1).to(values.dtype)
        where = prompt[active.rows()] * active.width + active.columns
        return values.new_zeros(n * active.width).index_add(0, where, values).view(n, -1) / counts[:, None]

    def __call__(self, acts: Acts, prompt: Int[Tensor, " token"]) -> Float[Tensor, ""]:
        """Mean over texts."""
        return (self.pooled(acts, prompt) - self.centre).square().sum(1).mean() / self.normal


@torch.no_grad()
def fit_shift(
    pull: Pull, sae: AbstractSAE | None, acts: Acts, prompt: Int[Tensor, " token"]
) -> Energy | ConceptCentre | Residual:
    """Learn what is normal from clean activations of the untuned model; `sae` is not needed for `residual`.

    Errors: `TooFewSamples` below 32 tokens or two texts, `Incompatible`.
    """
    if acts.shape[0] < LEAST or int(prompt[-1]) < 1:
        raise TooFewSamples(
            f"{acts.shape[0]} clean tokens of {int(prompt[-1]) + 1} texts say too little of what is normal; give at least {LEAST} "
            "tokens of two texts"
        )
    acts = acts.float()
    if pull == "residual" or sae is None:
        made: Energy | ConceptCentre | Residual = Residual(pooled(acts, prompt).mean(0), 1.0)
    elif pull == "concepts":
        made = ConceptCentre(_affine(sae), acts.new_zeros(sae.d_sae), 1.0)
        made.centre = made.pooled(acts, prompt).mean(0)
    else:
        codes = _affine(sae).encode(acts)
        fired = torch.bincount(codes.indices[codes.values != 0], minlength=sae.d_sae).double()
        rates = (fired + PRIOR) / (acts.shape[0] + 2 * PRIOR)
        error = (acts - sae.decode(codes)).square().sum(1).median()
        made = Energy(_affine(sae), ((1 - rates) / rates).log().float(), max(float(error), 1e-12), 1.0)
    normal = float(made(acts, prompt))
    if normal <= 0:
        raise Incompatible(
            f"clean text has a mean shift of {normal:.3g} in this dictionary, so that nothing can be a multiple of it; its concepts fire "
            "on more than half of all tokens; give a sparser dictionary"
        )
    made.normal = normal
    return made
