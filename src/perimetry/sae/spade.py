"""SpaDE: the projection onto the simplex of negative distances to prototypes (arXiv 2503.01822).

Assumes that concepts are convex or clustered regions of the activations, which need not be half-spaces nor of equal
dimension. Codes are at least 0 and sum to 1, so that an amplitude cannot grow under shift; the active count is free, and
it falls where a token is far from every prototype: read it two-sided.
"""

from typing import ClassVar, Literal, final

import torch
from pydantic import Field
from typing_extensions import override

from perimetry.axes import Acts, Latents
from perimetry.runtime import generator
from perimetry.sae.base import CountMode, Defaults, Options, Start
from perimetry.sae.simplex import Prototypes, SimplexSAE

__all__ = ["PrototypeOptions", "SpaDESAE", "initial_prototypes", "tiny_prototypes"]


class PrototypeOptions(Options):
    """How a dictionary of prototypes starts. Both ways want activations with mean square norm d_model (`sqrt_d`)."""

    initialisation: Literal["language", "toy"] = "language"
    """`language`: prototypes on the unit sphere, each coordinate of the decoder a unit vector over latents, times
    sqrt(d_model) (48 at the published width); `toy`: standard normal prototypes, the decoder equal to them."""
    init_lambda: float | None = Field(default=None, gt=0)
    """First lambda, in units of 1 / squared scaled activation; None is 1 / (4 d_model), for `toy` 1 / (2 d_model)."""


def initial_prototypes(start: Start) -> Prototypes:
    """Seeded weights, by the options of `start`."""
    options, d_model = start.options, start.centre.shape[0]
    assert isinstance(options, PrototypeOptions), "the architecture's own options"
    source = generator(start.seed)
    rows = torch.randn(start.d_sae, d_model, generator=source)
    if options.initialisation == "toy":
        return Prototypes(rows.clone(), rows, options.init_lambda or 1 / (2 * d_model))
    unit = rows / rows.norm(dim=1, keepdim=True)
    decoder = unit / unit.norm(dim=0, keepdim=True) * d_model**0.5
    return Prototypes(unit, decoder, options.init_lambda or 1 / (4 * d_model))


def tiny_prototypes() -> Prototypes:
    """Seeded weights for `tiny()`: d_model 8, d_sae 32."""
    source = generator(0)
    rows = torch.randn(32, 8, generator=source)
    return Prototypes(rows, rows + 0.1 * torch.randn(32, 8, generator=source), 0.25)


@final
class SpaDESAE(SimplexSAE):
    """Codes are sparsemax(-lambda |x - a_i|^2); the sparsity term is code times squared distance to the prototype.

    No `b_dec`, and decoder rows are not of norm 1.
    """

    architecture: ClassVar[str] = "spade"
    count_mode: ClassVar[CountMode] = "free"
    of_products: ClassVar[float] = 2.0
    of_squares: ClassVar[float] = -1.0
    defaults: ClassVar[Defaults] = Defaults(sparsity=10.0, unit_decoder=False)
    options_type: ClassVar[type[Options]] = PrototypeOptions

    @override
    def dense_scores(self, acts: Acts) -> Latents:
        return -self.sharpness() * self.distances(acts)

    @classmethod
    @override
    def fresh(cls, start: Start) -> "SpaDESAE":
        return cls(initial_prototypes(start))

    @classmethod
    @override
    def tiny(cls) -> "SpaDESAE":
        return cls(tiny_prototypes())
