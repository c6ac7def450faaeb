"""Dot-product sparsemax: SpaDE with products in the place of distances (arXiv 2604.14925).

Assumes that concepts are retrieved as attention retrieves keys: the latents whose rows agree best with the token share its
weight. Against SpaDE it shows what the distance contributes. Codes are at least 0 and sum to 1; the active count is free.
"""

from typing import ClassVar, final

from typing_extensions import override

from perimetry.axes import Acts, Latents
from perimetry.sae.base import CountMode, Defaults, Options, Start
from perimetry.sae.simplex import SimplexSAE
from perimetry.sae.spade import PrototypeOptions, initial_prototypes, tiny_prototypes

__all__ = ["SparsemaxSAE"]


@final
class SparsemaxSAE(SimplexSAE):
    """Codes are sparsemax(lambda x . a_i); the sparsity term, off by default, is that of SpaDE. No bias."""

    architecture: ClassVar[str] = "sparsemax"
    count_mode: ClassVar[CountMode] = "free"
    of_products: ClassVar[float] = 1.0
    of_squares: ClassVar[float] = 0.0
    defaults: ClassVar[Defaults] = Defaults(unit_decoder=False)
    options_type: ClassVar[type[Options]] = PrototypeOptions

    @override
    def dense_scores(self, acts: Acts) -> Latents:
        return self.sharpness() * (acts @ self.W_enc.T)

    @classmethod
    @override
    def fresh(cls, start: Start) -> "SparsemaxSAE":
        return cls(initial_prototypes(start))

    @classmethod
    @override
    def tiny(cls) -> "SparsemaxSAE":
        return cls(tiny_prototypes())
