"""The places of a model whose activations can be read: the output of a block, and what its MLP reads and writes."""

from dataclasses import dataclass
from typing import Literal, NamedTuple, final

from perimetry.activations.model import BLOCKS
from perimetry.errors import UnknownName

__all__ = ["HookName", "Place", "Site", "SiteLike", "as_site", "hook_name"]

Place = Literal["resid_post", "mlp_in", "mlp_out"]
"""`resid_post`: the residual stream after a block; `mlp_in` and `mlp_out`: what its MLP module reads (normalised) and gives."""
ORDER = {"mlp_in": 0, "mlp_out": 1, "resid_post": 2}
"""In which order a block reaches its places."""
LENS = {"mlp_in": "mlp.hook_in", "mlp_out": "mlp.hook_out", "resid_post": "hook_resid_post"}


class HookName(NamedTuple):
    """One place in a model under the names that others use."""

    transformer_lens: str
    """TransformerLens: `blocks.L.hook_resid_post`."""
    hugging_face: str
    """Module path in the transformers model; the output of that module is meant, for `mlp_in` its input."""


@final
@dataclass(frozen=True)
class Site:
    """One place of one block.

    >>> str(Site(3)), str(Site(3, "mlp_in"))
    ('layer-03', 'layer-03-mlp_in')
    """

    layer: int
    """Block, from 0."""
    place: Place = "resid_post"
    """Where in the block."""

    @property
    def depth(self) -> tuple[int, int]:
        """Sorts places in the order in which a forward pass reaches them."""
        return self.layer, ORDER[self.place]

    def __str__(self) -> str:
        return f"layer-{self.layer:02d}" + ("" if self.place == "resid_post" else f"-{self.place}")


SiteLike = int | Site
"""A site, or the number of a block, whose output is meant then."""


def as_site(site: SiteLike) -> Site:
    """The site that a number of a block stands for.

    >>> as_site(2) == as_site(Site(2))
    True
    """
    return Site(site) if isinstance(site, int) else site


def hook_name(site: SiteLike, family: str = "llama") -> HookName:
    """The names of a place. Errors: `UnknownName`.

    >>> hook_name(5, "gpt2")
    HookName(transformer_lens='blocks.5.hook_resid_post', hugging_face='transformer.h.5')
    >>> hook_name(Site(5, "mlp_out")).hugging_face
    'model.layers.5.mlp'
    """
    if family not in BLOCKS:
        raise UnknownName("model family", family, BLOCKS)
    site = as_site(site)
    module = f"{BLOCKS[family]}.{site.layer}" + ("" if site.place == "resid_post" else ".mlp")
    return HookName(f"blocks.{site.layer}.{LENS[site.place]}", module)
