"""Nested reconstructions, each of which is held to the target: what reaches the latents of a level.

The gradient towards a level's part of the reconstruction is the sum over the levels that hold it. Going down from the last
level, that sum and the residual of the level are brought up to date in place, so that two matrices do for any number of
levels.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from torch import Tensor

from perimetry.axes import Acts, Decoder
from perimetry.sae.steps.active import Active
from perimetry.sae.steps.products import decode, square_sum

__all__ = ["Group", "Level", "Stairs", "climb"]


PART = 512
"""Tokens whose reconstruction is made at once."""


class Level(NamedTuple):
    """One nested dictionary."""

    start: int
    """First latent that it adds to the level before."""
    end: int
    """Its width: it holds the latents below."""
    weight: float
    """Weight of its squared error."""


class Group(NamedTuple):
    """The entries that a level adds."""

    level: Level
    """The level."""
    active: Active
    """They, as a matrix over its own latents."""
    mask: Tensor
    """Where they stand among all entries."""


class Stairs(NamedTuple):
    """The levels of a batch."""

    groups: tuple[Group, ...]
    """By level."""
    residual: Acts
    """Target less the reconstruction of the last level."""
    loss: float
    """Sum over levels of weight times squared error; mean over tokens."""

    def down(self, decoder: Decoder, upstream: Acts) -> Iterator[Group]:
        """From the last level to the first, with the gradient towards the level's reconstruction in `upstream`.

        The decoder rows of the level may be changed between two levels. At the end `upstream` is the gradient of `b_dec` by
        token.
        """
        left, tokens = self.residual.clone(), self.residual.shape[0]
        upstream.zero_()
        for group in reversed(self.groups):
            level = group.level
            upstream.add_(left, alpha=-2 * level.weight / tokens)
            if level.start:
                _add(left, group.active, decoder[level.start : level.end], 1)
            yield group


def _add(rows: Acts, active: Active, decoder: Decoder, sign: int) -> None:
    for start in range(0, active.tokens, PART):
        stop = min(start + PART, active.tokens)
        rows[start:stop].add_(decode(active.chunk(start, stop), decoder), alpha=sign)


def climb(active: Active, levels: Sequence[Level], decoder: Decoder, offset: Acts) -> Stairs:
    """The levels of a batch; `offset` is the target less `b_dec`, which becomes the residual, in place."""
    groups, loss = [], 0.0
    for level in levels:
        mask = (active.columns >= level.start) & (active.columns < level.end)
        kept = active.keep(mask)
        kept = kept._replace(columns=kept.columns - level.start, width=level.end - level.start)
        _add(offset, kept, decoder[level.start : level.end], -1)
        loss += level.weight * square_sum(offset) / offset.shape[0]
        groups.append(Group(level, kept, mask))
    return Stairs(tuple(groups), offset, loss)
