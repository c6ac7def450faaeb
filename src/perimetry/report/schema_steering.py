"""The content of the `results.json` of an evaluation of steering, checked before a line of HTML is written."""

from typing import Any, Literal

from perimetry.config import Config
from perimetry.report.schema import MadeResults, Meaning, checked

__all__ = ["STEERING", "SteeringResults", "SteeringRow", "SteeringVerdict", "parse_steering"]

STEERING = "steering"
"""What the key `kind` of such a file says."""


class SteeringRow(Config):
    """One number of an intervention."""

    arm: str
    """`vector`, `zero`, or `random` with its number."""
    multiplier: float
    """How many times the vector was added."""
    seed: int
    """Of the random vectors and of the bootstrap."""
    metric: str
    """Name of the number."""
    share: float
    """Which part of the prompts, the weakest first."""
    estimate: float
    """The number."""
    low: float
    """Lower end of its interval."""
    high: float
    """Upper end."""
    n: int
    """Prompts."""
    method: str
    """How the interval was made."""


class SteeringVerdict(Config):
    """What the intervals say of an intervention."""

    arm: str
    """As in the rows."""
    multiplier: float
    """As in the rows."""
    verdict: Literal["steers", "suppresses only", "damages", "null"]
    """In a word or two."""


class SteeringResults(MadeResults):
    """An evaluation of steering."""

    kind: Literal["steering"]
    """Tells such a file from the others."""
    rows: tuple[SteeringRow, ...]
    """Measurements, flat."""
    verdicts: tuple[SteeringVerdict, ...]
    """A verdict an intervention."""
    metrics: dict[str, Meaning]
    """What the numbers mean."""


def parse_steering(results: dict[str, Any]) -> SteeringResults:
    """The results, checked. Errors: `ConfigError` that names the first entries that are wrong."""
    return checked(SteeringResults, results, "these results of an evaluation of steering")
