"""Projection onto the simplex of scores that only few latents survive, and what SpaDE and dot-product sparsemax share.

Sparsemax (Martins and Astudillo 2016) gives z = max(s - cut, 0) with the cut that makes z sum to 1. The cut of a token is
found by Michelot's rule: from below, cut <- (sum of the scores above it - 1) / their number, until that number stays.
"""

from abc import abstractmethod
from typing import Any, ClassVar, NamedTuple, TypeVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.autograd import Function
from typing_extensions import override

from perimetry.axes import Acts, Decoder, Encoder, Latents, PerToken
from perimetry.errors import ConfigError, WidthMismatch
from perimetry.sae.base import AutogradSAE, Codes, SAEState
from perimetry.sae.crowded import Crowd, crowded_losses, project
from perimetry.sae.entries import codes_of, combine, decode_codes, losses_of, nothing, place, products_at, tensors_of
from perimetry.sae.steps.active import Active, flat_nonzero, stack_rows
from perimetry.sae.steps.base import Losses, Objective
from perimetry.sae.steps.products import dense_above
from perimetry.sae.steps.select import PreActivations

__all__ = ["Prototypes", "SimplexSAE", "inverse_softplus", "simplex_cut", "simplex_support", "sparsemax"]

P = TypeVar("P", bound="SimplexSAE")
ROUNDING = 64
"""How many units of rounding two computations of one score may lie apart."""
THIN = 1 / 8
"""Share of a chunk below which its survivors are read one by one."""
FEW = 32
"""Survivors of a token that are not worth another round."""


def sparsemax(scores: Latents) -> Latents:
    """Dense and differentiable, by sorting: the reference.

    >>> sparsemax(torch.tensor([[1.0, 0.5, -3.0]]))
    tensor([[0.7500, 0.2500, 0.0000]])
    """
    ranked = scores.sort(dim=1, descending=True).values
    rank = torch.arange(1, scores.shape[1] + 1, dtype=scores.dtype, device=scores.device)
    sums = ranked.cumsum(1) - 1
    size = (rank * ranked > sums).sum(1, keepdim=True)
    return torch.relu(scores - sums.gather(1, size - 1) / size)


def simplex_cut(active: Active) -> Float[Tensor, " token"]:
    """The cut of each token whose scores are `active.values`, in float64; a token has an entry or more."""
    rows, scores = active.rows(), active.values.double()
    top = scores.new_full((active.tokens,), -torch.inf).scatter_reduce_(0, rows, scores, "amax")
    shifted = scores - top[rows]
    count = torch.bincount(rows, minlength=active.tokens)
    cut = ((torch.bincount(rows, shifted, active.tokens) - 1) / count).clamp(min=-1)
    while True:
        above = shifted > cut[rows]
        rows, shifted = rows[above], shifted[above]
        left = torch.bincount(rows, minlength=active.tokens)
        cut = (torch.bincount(rows, shifted, active.tokens) - 1) / left
        if torch.equal(left, count):
            return cut + top
        count = left


def _dense_cut(shifted: Latents) -> PerToken:
    """A bound from below on the cut of scores whose largest is 0; the cut itself where many scores survive."""
    cut = ((shifted.sum(1) - 1) / shifted.shape[1]).clamp(min=-1)
    before: Tensor | None = None
    while True:
        excess = (shifted - cut[:, None]).clamp_(min=0)
        count = (excess > 0).sum(1)
        # Rounding must not bring the cut down again: the counts then only fall, and the loop ends.
        cut = cut + ((excess.sum(1) - 1) / count).clamp(min=0)
        if float(count.sum()) < THIN * shifted.numel() or (before is not None and torch.equal(count, before)):
            return cut
        before = count


@torch.no_grad()
def simplex_support(scores: PreActivations) -> Active:
    """Every latent that the projection may leave above 0, with its score: none is missed, and not many are kept for nothing.

    Scores are made in chunks of rows. What lies below the cut by no more than rounding is kept, so that scores made anew at
    these entries decide.
    """
    width = scores.W_enc.shape[0]
    largest = float(scores.W_enc.norm(dim=1).max()), float(scores.b_enc.abs().max())
    slack = ROUNDING * torch.finfo(scores.acts.dtype).eps
    parts = [nothing(width, scores.b_enc)]
    for start, chunk in scores.chunks():
        top = chunk.amax(1)
        size = scores.acts[start : start + chunk.shape[0]].norm(dim=1) * largest[0] + largest[1]
        parts.append(_thin(chunk, top, _dense_cut(chunk - top[:, None]), slack * size))
    return stack_rows(parts)


def _thin(chunk: Latents, top: PerToken, bound: PerToken, slack: PerToken) -> Active:
    tokens, width = chunk.shape
    flat = flat_nonzero(chunk > (top + bound - slack)[:, None])
    rows = torch.div(flat, width, rounding_mode="floor")
    offsets = nn.functional.pad(torch.bincount(rows, minlength=tokens).cumsum(0), (1, 0))
    active = Active(offsets, flat - rows * width, chunk.reshape(-1)[flat], width)
    if active.entries <= FEW * tokens:
        return active
    return active.keep(active.values > (simplex_cut(active).to(slack.dtype) - slack)[rows])


class _Sparsemax(Function):
    @staticmethod
    def forward(ctx: Any, scores: Tensor, active: Active) -> Tensor:
        rows = active.rows()
        cut = simplex_cut(active.replace(scores))
        values = (scores.double() - cut[rows]).clamp_(min=0).to(scores.dtype)
        ctx.rows, ctx.tokens = rows, active.tokens
        ctx.save_for_backward(values > 0)
        return values

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None]:
        (above,) = ctx.saved_tensors
        slope = (upstream[0] * above).double()
        size = torch.bincount(ctx.rows[above], minlength=ctx.tokens).clamp_(min=1)
        mean = torch.bincount(ctx.rows, slope, ctx.tokens) / size
        return ((slope - mean[ctx.rows]) * above).to(upstream[0].dtype), None


def inverse_softplus(value: float) -> Float[Tensor, ""]:
    """The number whose softplus is `value`, which is above 0.

    >>> round(float(nn.functional.softplus(inverse_softplus(0.25))), 6)
    0.25
    """
    wide = torch.tensor(value, dtype=torch.float64)
    return (wide + torch.log(-torch.expm1(-wide))).float()


class Prototypes(NamedTuple):
    """The weights of a dictionary of prototypes."""

    W_enc: Encoder
    """Row i is prototype i, a place in the space of the activations."""
    W_dec: Decoder
    """Row i is what latent i writes."""
    sharpness: float
    """Lambda, above 0: what distances or products are multiplied with."""


class SimplexSAE(AutogradSAE):
    """Codes are the projection of scores onto the simplex: at least 0, with a sum of 1 for every token. No bias."""

    W_enc: nn.Parameter
    rho: nn.Parameter
    """Lambda is softplus of it."""
    of_products: ClassVar[float]
    """A score is lambda times: this times x . a, and"""
    of_squares: ClassVar[float]
    """this times |a|^2."""

    def __init__(self, weights: Prototypes) -> None:
        super().__init__()
        if weights.W_enc.shape != weights.W_dec.shape:
            raise WidthMismatch(
                f"W_enc has shape {tuple(weights.W_enc.shape)}, W_dec {tuple(weights.W_dec.shape)} wants the same; give "
                "tensors of one dictionary"
            )
        if not weights.sharpness > 0:
            raise ConfigError(f"a sharpness (lambda) of {weights.sharpness}; give a number above 0")
        self.W_enc, self.W_dec = nn.Parameter(weights.W_enc), nn.Parameter(weights.W_dec)
        self.rho = nn.Parameter(inverse_softplus(weights.sharpness))

    def sharpness(self) -> Float[Tensor, ""]:
        """Lambda."""
        return nn.functional.softplus(self.rho)

    @abstractmethod
    def dense_scores(self, acts: Acts) -> Latents:
        """The scores as the formula has them."""

    def _support(self, acts: Acts) -> Active:
        acts = acts.detach().to(self.W_enc.dtype)
        with torch.no_grad():
            rows, bias = self.affine(self.sharpness())
        return simplex_support(PreActivations(acts, rows, bias))

    @torch.no_grad()
    @override
    def encode(self, acts: Acts) -> Codes:
        self.check_width(acts)
        active = self._support(acts)
        if not active.tokens:
            return codes_of(active)
        values = _Sparsemax.apply(active.values, active)
        assert isinstance(values, Tensor)
        return codes_of(active.replace(values).keep(values > 0))

    @override
    def decode(self, codes: Codes) -> Acts:
        return decode_codes(codes, self.W_dec)

    @override
    def losses(self, rows: Acts, objective: Objective, dead: Bool[Tensor, " d_sae"]) -> Losses:
        acts, target = self.inputs(rows), self.targets(rows)
        if self.crowded(acts):
            shape = (self.of_products, self.of_squares, objective.sparsity)
            return crowded_losses(Crowd(self.W_enc, self.W_dec, self.rho, *shape), acts, target)
        active = self._support(acts)
        places = place(active)
        products = products_at(places, acts, self.W_enc)
        squares = self.W_enc.square().sum(1)[active.columns]
        values = _Sparsemax.apply(self.scores_at(products, squares), active)
        assert isinstance(values, Tensor)
        residual = target - combine(places, values, self.W_dec)
        penalty = values.new_zeros(())
        if objective.sparsity > 0:
            distances = acts.square().sum(1)[active.rows()] - 2 * products + squares
            penalty = objective.sparsity * (values * distances).sum() / rows.shape[0]
        return losses_of(residual, active.columns[values.detach() > 0], self.d_sae, penalty)

    @torch.no_grad()
    def crowded(self, acts: Acts) -> bool:
        """Whether a few tokens, spread over the batch, have so many active latents that dense products are faster."""
        rows, bias = self.affine(self.sharpness())
        scores = PreActivations(acts, rows, bias).sample()
        return float(project(scores, torch.empty_like(scores), torch.empty_like(scores)).sum()) > (
            dense_above() * scores.numel()
        )

    def affine(self, sharpness: Tensor) -> tuple[Encoder, Float[Tensor, " d_sae"]]:
        """Rows and bias whose affine map of a token gives its scores, up to a number for the whole token."""
        squares = self.W_enc.square().sum(1)
        return self.of_products * sharpness * self.W_enc, self.of_squares * sharpness * squares

    def scores_at(self, products: Float[Tensor, " entry"], squares: Float[Tensor, " entry"]) -> Float[Tensor, " entry"]:
        """Scores at entries, up to a number for the whole token, from x . a and |a|^2."""
        return self.sharpness() * (self.of_products * products + self.of_squares * squares)

    @override
    def dense_losses(self, rows: Acts, objective: Objective, dead: Bool[Tensor, " d_sae"]) -> Losses:
        acts, target = self.inputs(rows), self.targets(rows)
        codes = sparsemax(self.dense_scores(acts))
        penalty = objective.sparsity * (codes * self.distances(acts)).sum(1).mean()
        return losses_of(target - codes @ self.W_dec, codes.detach().nonzero()[:, 1], self.d_sae, penalty)

    def distances(self, acts: Acts) -> Latents:
        """Squared distance of each token to each prototype, dense."""
        return acts.square().sum(1)[:, None] + self.W_enc.square().sum(1) - 2 * acts @ self.W_enc.T

    @torch.no_grad()
    @override
    def fold_scale(self, scale: float) -> None:
        # Distances and products of places shrink by scale^2 when the places shrink by scale; lambda makes up for it.
        sharpness = float(nn.functional.softplus(self.rho.double())) * scale**2
        self.W_enc.div_(scale)
        self.W_dec.div_(scale)
        self.rho.copy_(inverse_softplus(sharpness))

    @override
    def state(self) -> SAEState:
        return SAEState({name: tensor.detach() for name, tensor in self.state_dict().items()}, {})

    @classmethod
    @override
    def restore(cls: type[P], state: SAEState) -> P:
        shape = state.tensors["W_dec"].shape if "W_dec" in state.tensors else (1, 1)
        sae = cls(Prototypes(torch.zeros(shape), torch.zeros(shape), 1.0))
        sae.load_state_dict(tensors_of(sae, state))
        return sae
