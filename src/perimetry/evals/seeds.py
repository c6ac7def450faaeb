"""What several SAE seeds say together."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from perimetry.evals.rows import Row

__all__ = ["SeedRow", "over_seeds"]

BEST = "best baseline"


class SeedRow(NamedTuple):
    """One measurement over several SAE seeds."""

    suite: str
    """As in `Row`."""
    family: str
    """As in `Row`."""
    dose: float
    """As in `Row`."""
    negatives: str
    """As in `Row`."""
    detector: str
    """As in `Row`; empty for a `post_hoc` choice, which may differ from seed to seed."""
    metric: str
    """As in `Row`."""
    against: str
    """As in `Row`; `best baseline` where that was chosen for each seed anew."""
    selection: str
    """As in `Row`."""
    seeds: int
    """Number of SAE seeds."""
    mean: float
    """Mean estimate over the seeds."""
    least: float
    """Smallest estimate."""
    greatest: float
    """Largest estimate."""
    every_interval_above_zero: bool
    """Whether the interval of each seed lies above zero."""

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return self._asdict()


class _Place(NamedTuple):
    """What the seeds of one measurement share, in the order of the first fields of `SeedRow`."""

    suite: str
    family: str
    dose: float
    negatives: str
    detector: str
    metric: str
    against: str
    selection: str


def over_seeds(rows: Sequence[Row]) -> list[SeedRow]:
    """Rows that differ in nothing but the seed, put together; in the order of their first row."""
    groups: dict[_Place, dict[int, Row]] = {}
    for row in rows:
        detector = "" if row.selection == "post_hoc" else row.detector
        against = BEST if row.best_baseline else row.against
        place = _Place(row.suite, row.family, row.dose, row.negatives, detector, row.metric, against, row.selection)
        groups.setdefault(place, {})[row.seed] = row
    found: list[SeedRow] = []
    for place, by_seed in groups.items():
        values = [row.estimate for row in by_seed.values()]
        found.append(
            SeedRow(
                *place,
                seeds=len(values),
                mean=sum(values) / len(values),
                least=min(values),
                greatest=max(values),
                every_interval_above_zero=all(row.low > 0 for row in by_seed.values()),
            )
        )
    return found
