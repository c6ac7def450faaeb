"""Discs of two colours and two sizes on grey, and what describes them."""

from typing import Final, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["CLASSES", "COLOUR", "CONDITION", "PIXELS", "SIDE", "Discs", "World", "pushed", "rendered", "turned"]

SIDE: Final = 12
"""Pixels across."""
PIXELS: Final = 3 * SIDE * SIDE
"""Values of an image."""
CONDITION: Final = 7
"""Colour, size, x, y, grey."""
COLOUR: Final = slice(0, 3)
"""Where the colour stands in a condition."""
SIZE: Final = 3
EDGE: Final = 0.08
"""Width of the sigmoid at the edge."""
LEAST: Final = 0.1
"""Smallest radius."""
CLASSES: Final = {"00": (False, False), "01": (False, True), "10": (True, False), "11": (True, True)}
"""Name -> blue, small. The last is never trained on."""


class Discs(NamedTuple):
    """Images with their conditions."""

    images: Float[Tensor, "image pixel"]
    """Values from 0 to 1, channel by channel."""
    conditions: Float[Tensor, "image condition"]
    """Colour, size, x, y and grey, as they are drawn."""


class World(NamedTuple):
    """How far apart the values of each concept lie: its signal."""

    colour: float
    """Difference of the channels of red and blue."""
    size: float = 0.4
    """Difference of the radii."""

    def middle(self, *, blue: bool, small: bool) -> tuple[Float[Tensor, " 3"], float]:
        """Mean colour and radius of a class."""
        half = self.colour / 2
        sign = torch.tensor([-1.0, -1.0, 1.0]) if blue else torch.tensor([1.0, -1.0, -1.0])
        return 0.5 + half * sign, 0.45 + self.size / 2 * (-1 if small else 1)

    def conditions(self, name: str, count: int, draw: torch.Generator) -> Float[Tensor, "image condition"]:
        """Conditions of a class; colour and size scatter around its means."""
        blue, small = CLASSES[name]
        colour, radius = self.middle(blue=blue, small=small)
        drawn = 2 * torch.rand(count, 6, generator=draw) - 1
        out = torch.empty(count, CONDITION)
        out[:, COLOUR] = colour + self.colour / 8 * drawn[:, :3]
        out[:, SIZE] = (radius + 3 * self.size / 8 * drawn[:, 3]).clamp_min(LEAST)
        out[:, 4:6] = 0.5 * drawn[:, 4:6]
        out[:, 6] = 0.2 * torch.rand(count, generator=draw)
        return out

    def draw(self, name: str, count: int, draw: torch.Generator) -> Discs:
        """Images of a class."""
        conditions = self.conditions(name, count, draw)
        return Discs(rendered(conditions), conditions)


def rendered(conditions: Float[Tensor, "image condition"]) -> Float[Tensor, "image pixel"]:
    """What a condition describes, exactly."""
    axis = (torch.arange(SIDE) + 0.5) / SIDE * 2 - 1
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    away = ((x - conditions[:, 4, None, None]).square() + (y - conditions[:, 5, None, None]).square()).sqrt()
    inside = ((conditions[:, SIZE, None, None] - away) / EDGE).sigmoid()[:, None]
    disc, grey = conditions[:, COLOUR, None, None], conditions[:, 6, None, None, None]
    return (inside * disc + (1 - inside) * grey).flatten(1)


def pushed(conditions: Float[Tensor, "image condition"], strength: float) -> Float[Tensor, "image condition"]:
    """Colours taken away from grey by that factor: a prompt that says more than what is wanted."""
    out = conditions.clone()
    out[:, COLOUR] = 0.5 + strength * (conditions[:, COLOUR] - 0.5)
    return out


def turned(
    conditions: Float[Tensor, "image condition"], strength: float, draw: torch.Generator
) -> Float[Tensor, "image condition"]:
    """Colours moved as far as `pushed` moves them, in one drawn direction each."""
    out = conditions.clone()
    far = (strength - 1) * (conditions[:, COLOUR] - 0.5).norm(dim=1, keepdim=True)
    direction = torch.randn(len(conditions), 3, generator=draw)
    out[:, COLOUR] = conditions[:, COLOUR] + far * direction / direction.norm(dim=1, keepdim=True)
    return out
