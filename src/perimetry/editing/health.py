"""Readings of an edit without a benchmark, each beside those of drawn updates of the same norm; there is no single verdict.

No probe suffices alone: an edit may leave rings as they were and take facts beside it along, or the other way round.
"""

import math
from collections.abc import Sequence
from typing import Final, Literal, NamedTuple, get_args

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from perimetry.config import Config
from perimetry.editing.rings import Shattering, cyclic_distances, index_beside, ring_order, shattering
from perimetry.errors import TooFewSamples
from perimetry.measures.stats import Interval

__all__ = [
    "FLAGS",
    "METRICS",
    "Finding",
    "Flag",
    "HealthLimits",
    "Measure",
    "change",
    "flag_of",
    "mean_shattering",
    "ring_findings",
]

Layers = Float[Tensor, "layer word word"]
Flag = Literal["none", "norm blow-up", "loss of structure", "both"]
"""What a ring shows: nothing of note, distances of another size, distances of another shape, or both."""
FLAGS: Final[tuple[Flag, ...]] = get_args(Flag)
"""All of them."""


class Measure(NamedTuple):
    """What a reading means."""

    unit: str
    """`ratio`, `nats`, `share` ..."""
    higher: bool | None
    """Whether higher is better; None where neither is."""
    text: str
    """Its definition in a sentence."""


METRICS: Final = {
    "ring_r": Measure(
        unit="ratio", higher=None, text="How far distances on the ring moved, ||D* - D|| / ||D||; 0 = not at all"
    ),
    "ring_r_scaled": Measure(
        unit="ratio",
        higher=False,
        text="The same with each matrix divided by its norm: loss of structure, whatever the size; at most 1.41",
    ),
    "ring_scale": Measure(
        unit="ratio", higher=None, text="Size of distances after over before; far above 1 = a norm blow-up"
    ),
    "ring_order": Measure(
        unit="rank correlation", higher=True, text="Of distances with cyclic order; 1 = a perfect ring"
    ),
    "nll": Measure(unit="nats", higher=False, text="Mean negative log-likelihood of ordinary tokens"),
    "siblings": Measure(unit="probability", higher=True, text="Of the right answer to facts beside the edited one"),
    "concepts": Measure(
        unit="score", higher=False, text="Mean shift score of ordinary text by the meter of the model before the edit"
    ),
    "active": Measure(
        unit="share",
        higher=None,
        text="Of a token's active concepts, those that fire in one model only; 0 = the same ones",
    ),
    "p_target": Measure(unit="probability", higher=None, text="Of the new answer at the edited prompt"),
    "size": Measure(
        unit="ratio", higher=None, text="Frobenius norm of the update over that of the weights it is added to"
    ),
}
"""Name of a reading -> what it says."""


class HealthLimits(Config):
    """From where a ring is flagged; ours, and no more than a reminder to look."""

    size: float = Field(default=0.25, gt=0)
    """Change of the size of distances, as a share."""
    structure: float = Field(default=0.25, gt=0)
    """Scale-free R."""


class Finding(NamedTuple):
    """One reading of an edit, beside the same reading of drawn updates."""

    metric: str
    """Key in `METRICS`."""
    probe: str
    """What was looked at: the name of a ring, of a group of facts, `ordinary text`."""
    before: float
    """Of the model as given."""
    after: float
    """Of the edited one."""
    change: float
    """What the edit did: after minus before, or, of measures that compare the two already, after."""
    drawn: tuple[float, ...]
    """The same change under each drawn update of the same norm."""
    interval: Interval | None = None
    """Of the change, where it is a mean over texts or facts; None where it is one number."""

    @property
    def times(self) -> float:
        """How many times the change is that of drawn updates, sizes alone; NaN where there is none to compare with."""
        return index_beside(abs(self.change), torch.tensor([abs(d) for d in self.drawn]))


def flag_of(found: Shattering, limits: HealthLimits | None = None) -> Flag:
    """A norm blow-up and a loss of structure, told apart.

    >>> flag_of(Shattering(r=28.0, r_scaled=0.1, scale=29.0)), flag_of(Shattering(r=0.9, r_scaled=0.9, scale=1.0))
    ('norm blow-up', 'loss of structure')
    """
    limit = limits or HealthLimits()
    grown, lost = abs(found.scale - 1) > limit.size, found.r_scaled > limit.structure
    return "both" if grown and lost else "norm blow-up" if grown else "loss of structure" if lost else "none"


def change(metric: str, probe: str, before: float, after: float, drawn: Sequence[float] = ()) -> Finding:
    """A reading that is taken before and after; `drawn`: what it is after each drawn update.

    >>> change("nll", "ordinary text", 3.0, 3.5, [3.25]).times
    2.0
    """
    return Finding(metric, probe, before, after, after - before, tuple(d - before for d in drawn))


def mean_shattering(before: Layers, after: Layers) -> Shattering:
    """Shattering at each layer (or in each context), then the mean of each number. Errors: those of `shattering`, `TooFewSamples`."""
    if not len(before):
        raise TooFewSamples("no layer to measure the ring at; give one or more")
    found = [shattering(one, other) for one, other in zip(before, after, strict=True)]
    return Shattering(*(math.fsum(values) / len(found) for values in zip(*found, strict=True)))


def ring_findings(name: str, before: Layers, after: Layers, drawn: Sequence[Layers] = ()) -> list[Finding]:
    """How a ring, whose words stand in cyclic order, came through an edit: R, scale-free R, size and order.

    Errors: those of `mean_shattering` and `ring_order`.
    """
    moved, others = mean_shattering(before, after), [mean_shattering(before, d) for d in drawn]
    cyclic = cyclic_distances(torch.arange(before.shape[1]))

    def order(layers: Layers) -> float:
        return math.fsum(ring_order(d, cyclic) for d in layers) / len(layers)

    return [
        Finding("ring_r", name, 0.0, moved.r, moved.r, tuple(o.r for o in others)),
        Finding("ring_r_scaled", name, 0.0, moved.r_scaled, moved.r_scaled, tuple(o.r_scaled for o in others)),
        change("ring_scale", name, 1.0, moved.scale, [o.scale for o in others]),
        change("ring_order", name, order(before), order(after), [order(d) for d in drawn]),
    ]
