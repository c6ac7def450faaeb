"""What an evaluation measured, unit by unit: from these come estimates, intervals and paired differences alike.

Every metric is a ratio of two sums over independent units (documents, data sets, letters, features), or one minus it: a mean
is the ratio with ones below. So intervals are bootstraps of the units, and two dictionaries that were measured on the same
units are compared by resampling those units for both at once.
"""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from perimetry.errors import Incompatible, NonFinite, TooFewSamples
from perimetry.measures.ranking import Difference
from perimetry.measures.stats import Interval, percentile_interval, resample_counts
from perimetry.runtime import generator

__all__ = ["CONFIDENCE", "Cell", "Paired", "Units", "difference", "interval", "means", "paired", "ratios", "resampled"]

RESAMPLES: Final = 2000
CONFIDENCE: Final = 0.95

PerUnit = Float[Tensor, " unit"]


class Cell(NamedTuple):
    """Which number of an evaluation this is; the same in every dictionary that it is measured on."""

    metric: str
    """Name in the evaluation's `metrics`."""
    case: str = ""
    """Data set, letter or shift; empty for all of them together."""
    k: int = 0
    """Latents that a probe may use; 0 where nothing is probed."""
    arm: str = "sae"
    """What was measured: `sae`, or a control or comparison that belongs to the evaluation, such as `raw` activations."""


class Units(NamedTuple):
    """One metric, unit by unit."""

    cell: Cell
    """Which number this is."""
    names: tuple[str, ...]
    """Name of each unit, distinct; units of the same name are paired between dictionaries."""
    over: PerUnit
    """What is summed above, float64."""
    under: PerUnit
    """What is summed below, float64."""
    complement: bool = False
    """Whether the number is one minus the ratio."""

    def of(self, weights: Float[Tensor, "resample unit"]) -> Float[Tensor, " resample"]:
        """The number where units count as often as `weights` says; NaN where nothing is left below."""
        below = weights @ self.under
        found = torch.where(below == 0, torch.nan, (weights @ self.over) / below)
        return 1 - found if self.complement else found

    def estimate(self) -> float:
        """The number itself."""
        return float(self.of(torch.ones(1, len(self.names), dtype=torch.float64))[0])

    def to_json(self) -> dict[str, Any]:
        """Plain values, from which `of_json` makes the same again."""
        plain = {"cell": self.cell._asdict(), "names": list(self.names), "complement": self.complement}
        return plain | {"over": self.over.tolist(), "under": self.under.tolist()}

    @classmethod
    def of_json(cls, plain: dict[str, Any]) -> "Units":
        """The units that `to_json` was taken from."""
        over, under = (torch.tensor(plain[name], dtype=torch.float64) for name in ("over", "under"))
        return cls(Cell(**plain["cell"]), tuple(plain["names"]), over, under, plain["complement"])


def ratios(cell: Cell, names: Sequence[str], over: Tensor, under: Tensor, *, complement: bool = False) -> Units:
    """Units of a ratio of sums. Errors: `TooFewSamples` without units or with nothing below, `NonFinite`, `Incompatible`."""
    if not len(names) == over.numel() == under.numel() or len(set(names)) != len(names):
        raise Incompatible(
            f"{cell.metric}: {len(names)} names ({len(set(names))} distinct) for {over.numel()} and {under.numel()} numbers; "
            "wanted one distinct name a unit"
        )
    over, under = over.detach().cpu().double().flatten(), under.detach().cpu().double().flatten()
    if not len(names) or float(under.sum()) == 0:
        raise TooFewSamples(f"{cell.metric} has nothing to be measured on; give more data")
    if not bool(over.isfinite().all() and under.isfinite().all()):
        raise NonFinite(
            f"{cell.metric} is NaN or infinite in unit {names[_first_bad(over, under)]!r}; finite numbers are wanted"
        )
    return Units(cell, tuple(names), over, under, complement)


def _first_bad(over: PerUnit, under: PerUnit) -> int:
    return int((~(over.isfinite() & under.isfinite())).nonzero()[0])


def means(cell: Cell, names: Sequence[str], values: Tensor) -> Units:
    """Units of a mean. Errors: as `ratios`.

    >>> means(Cell("auroc"), ["a", "b"], torch.tensor([0.5, 1.0])).estimate()
    0.75
    """
    return ratios(cell, names, values, torch.ones(values.numel()))


def _weights(n: int, seed: int) -> Float[Tensor, "resample unit"]:
    return resample_counts(n, RESAMPLES, generator(seed)).double()


def resampled(units: Units, seed: int = 0) -> Float[Tensor, " resample"]:
    """The number in each resample of its units."""
    return units.of(_weights(len(units.names), seed))


class Paired(NamedTuple):
    """Two numbers on the units that both have."""

    first: Units
    """One of them."""
    second: Units
    """The other, on the same units in the same order."""

    @property
    def gap(self) -> float:
        """How much the first number is above the second."""
        return self.first.estimate() - self.second.estimate()

    def draws(self, seed: int = 0) -> Float[Tensor, " resample"]:
        """The gap in each resample of the units, the same for both."""
        weights = _weights(len(self.first.names), seed)
        return self.first.of(weights) - self.second.of(weights)


def paired(first: Units, second: Units) -> Paired:
    """The units that both have. Errors: as `difference`."""
    if first.cell.metric != second.cell.metric:
        raise Incompatible(
            f"{first.cell.metric!r} and {second.cell.metric!r} are two metrics; compare the same one of two dictionaries"
        )
    theirs = set(second.names)
    common = [name for name in first.names if name in theirs]
    if len(common) < 2:
        raise TooFewSamples(
            f"{first.cell.metric}: {len(common)} units were measured for both; a paired difference needs two; measure both on "
            "the same data"
        )
    return Paired(_part(first, common), _part(second, common))


def interval(units: Units, seed: int = 0) -> Interval:
    """The number with its bootstrap interval over units; one unit alone has an interval without ends (NaN is not used:
    the ends are those of the number itself, and the method says so)."""
    n = len(units.names)
    if n < 2:
        value = units.estimate()
        return Interval(value, value, value, n, "one unit: no interval")
    return percentile_interval(units.estimate(), resampled(units, seed), n, "bootstrap over units", CONFIDENCE)


def difference(first: Units, second: Units, seed: int = 0) -> Difference:
    """How much the first number is above the second, on the units that both have, resampled together.

    Errors: `Incompatible` for two metrics, `TooFewSamples` with fewer than two units in common.
    """
    both = paired(first, second)
    n, draws, gap = len(both.first.names), both.draws(seed), both.gap
    box = percentile_interval(gap, draws, n, "paired bootstrap over units", CONFIDENCE)
    known = draws[draws.isfinite()]
    # Draws on the other side of 0, both tails.
    beyond = min(int((known <= 0).sum()), int((known >= 0).sum()))
    p_value = min(1.0, 2 * (beyond + 1) / (known.numel() + 1))
    return Difference(gap, box.low, box.high, p_value, n, box.method)


def _part(units: Units, names: Sequence[str]) -> Units:
    place = {name: i for i, name in enumerate(units.names)}
    rows = torch.tensor([place[name] for name in names])
    return units._replace(names=tuple(names), over=units.over[rows], under=units.under[rows])
