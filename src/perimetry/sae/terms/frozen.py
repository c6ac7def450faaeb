"""Controls in which a part of the dictionary is never trained (Korznikov et al., arXiv 2602.14111).

Assumes nothing of concepts: a frozen decoder is random directions. What a measure says of such a dictionary is what it says
of no learned dictionary at all; a claim about trained ones must exceed it.
"""

from typing import Literal

import torch
from torch import Tensor

from perimetry.axes import Decoder

__all__ = ["Frozen", "freeze", "hold_near"]

Frozen = Literal["none", "decoder", "soft_decoder", "encoder"]
"""What keeps its first value: nothing; the decoder rows; those, but free within a cone; `W_enc` and `b_enc`."""
PARTS: dict[Frozen, tuple[str, ...]] = {
    "none": (),
    "decoder": ("W_dec",),
    "soft_decoder": (),
    "encoder": ("W_enc", "b_enc"),
}


def freeze(gradients: dict[str, Tensor], frozen: Frozen) -> None:
    """Set the gradients of the frozen parts to zero, in place, so that clipping and Adam know nothing of them."""
    for name in PARTS[frozen]:
        gradients[name] = torch.zeros_like(gradients[name])


@torch.no_grad()
def hold_near(decoder: Decoder, initial: Decoder, cosine: float) -> None:
    """Turn unit rows that left the cone of `cosine` around their first value back to its rim, in place."""
    along = (decoder * initial).sum(1, keepdim=True)
    across = decoder - along * initial
    size = across.norm(dim=1, keepdim=True).clamp(min=torch.finfo(decoder.dtype).tiny)
    rim = cosine * initial + (1 - cosine**2) ** 0.5 * across / size
    # The opposite direction has no nearest point on the rim.
    rim = rim / rim.norm(dim=1, keepdim=True)
    decoder.copy_(torch.where(along < cosine, rim, decoder))
