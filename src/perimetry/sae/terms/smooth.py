"""The contrastive term of temporal SAEs (T-SAE, arXiv 2511.05541): the first latents shall agree on adjacent tokens.

Assumes that what a text is about changes slowly, so that two adjacent tokens share their high concepts. Rows 2i and 2i + 1
of a batch are such a pair. With h the codes of the high latents and S the cosines of all first with all second tokens, the
term is the mean of two cross-entropies, of each row and of each column of S / temperature, whose right answer is the
diagonal. A token without a high concept has cosine 0 with all others and gets no gradient.

The temperature and the weight of the paper could not be confirmed; both are settings. The term may smooth real shifts away:
read counts on the other latents. It costs two products of the codes with a (pair, pair) matrix, far less than the encoder.
"""

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from perimetry.axes import Latents
from perimetry.errors import ConfigError
from perimetry.sae.steps.active import Active
from perimetry.sae.steps.base import Smooth
from perimetry.sae.steps.products import decode, row_chunks, transposed

__all__ = ["Contrast", "dense_smooth", "high_latents", "smooth_term"]


def high_latents(width: int, share: float) -> int:
    """Number of latents that shall be smooth, at least one.

    >>> high_latents(16384, 0.2)
    3277
    """
    return min(width, max(1, round(share * width)))


def _require_pairs(tokens: int) -> None:
    if tokens % 2:
        raise ConfigError(f"a batch of {tokens} tokens cannot be pairs of adjacent ones; give an even batch")


def dense_smooth(codes: Latents, smooth: Smooth | None) -> Float[Tensor, ""]:
    """The term by autograd: the reference for `smooth_term`. Errors: `ConfigError` for an odd batch."""
    if smooth is None:
        return codes.new_zeros(())
    _require_pairs(codes.shape[0])
    high = codes[:, : high_latents(codes.shape[1], smooth.share)]
    norms = high.square().sum(1, keepdim=True)
    empty = norms == 0
    unit = torch.where(empty, 0.0, high / torch.where(empty, 1.0, norms).sqrt())
    logits = unit[0::2] @ unit[1::2].T / smooth.temperature
    answer = torch.arange(logits.shape[0], device=logits.device)
    entropy = torch.nn.functional.cross_entropy
    return smooth.weight * (entropy(logits, answer) + entropy(logits.T, answer)) / 2


def smooth_term(active: Active, smooth: Smooth | None) -> "Contrast | None":
    """The term of the codes of a batch; None where there is none. Errors: `ConfigError` for an odd batch."""
    return None if smooth is None else Contrast(active, smooth)


@final
class Contrast:
    """The term of one batch, from its active entries."""

    def __init__(self, active: Active, smooth: Smooth) -> None:
        """Compute the term and its gradient towards the cosines. Errors: `ConfigError` for an odd batch."""
        _require_pairs(active.tokens)
        self.high = high_latents(active.width, smooth.share)
        """Latents that it reads, from the first on."""
        codes = active.keep(active.columns < self.high)._replace(width=self.high)
        rows = codes.rows()
        squares = torch.bincount(rows, codes.values.double().square(), active.tokens).to(codes.values.dtype)
        self._inverse = torch.where(squares > 0, squares.clamp(min=torch.finfo(squares.dtype).tiny).rsqrt(), 0.0)
        self._unit = codes.replace(codes.values * self._inverse[rows])
        first, second = (self._side(rows % 2 == side) for side in (0, 1))
        cosines = _cosines(first, second)
        pairs = cosines.shape[0]
        logits = cosines / smooth.temperature
        by_row, by_column = logits.log_softmax(1), logits.log_softmax(0)
        entropies = by_row.diagonal().double().sum() + by_column.diagonal().double().sum()
        self.loss = float(-smooth.weight * entropies / (2 * pairs))
        """The weighted term."""
        slope = by_row.exp_().add_(by_column.exp_())
        slope.diagonal().sub_(2.0)
        slope.mul_(smooth.weight / (2 * pairs * smooth.temperature))
        along = slope * cosines
        self._along = torch.stack([along.sum(1), along.sum(0)], 1).reshape(-1)
        self._slope = slope
        self._first, self._second = (first, first.by_column()), (second, second.by_column())

    def _side(self, mask: Tensor) -> Active:
        kept = self._unit.keep(mask)
        # The tokens of the other side are empty, so that every second offset is enough.
        return kept._replace(offsets=kept.offsets[0::2].contiguous())

    def block(self, start: int, stop: int) -> Latents:
        """Gradient with respect to the codes of the high latents, for tokens `start` to `stop`, dense."""
        low, top = start // 2, -(-stop // 2)
        towards_first = transposed(*self._second, self._slope[low:top].T.contiguous()).T
        towards_second = transposed(*self._first, self._slope[:, low:top].contiguous()).T
        both = torch.stack([towards_first, towards_second], 1).reshape(2 * (top - low), self.high)
        both = both[start - 2 * low : stop - 2 * low]
        unit = self._unit.chunk(start, stop).dense()
        return (both - self._along[start:stop, None] * unit) * self._inverse[start:stop, None]

    def towards(self, at: Active) -> Float[Tensor, " entry"]:
        """Gradient with respect to the codes at the places of some entries, firing or not."""
        out = at.values.new_zeros(at.entries)
        for start, stop in row_chunks(at.tokens, self.high):
            part, low = at.chunk(start, stop), int(at.offsets[start])
            inside = part.columns < self.high
            flat = (part.rows() * self.high + part.columns)[inside]
            out[low : low + part.entries][inside] = self.block(start, stop).reshape(-1)[flat]
        return out


def _cosines(first: Active, second: Active) -> Float[Tensor, "pair pair"]:
    parts = [
        decode(first, second.chunk(start, stop).dense().T.contiguous())
        for start, stop in row_chunks(second.tokens, second.width)
    ]
    return torch.cat(parts, 1)
