"""The content of the `results.json` of a study of robustness, checked before a line of HTML is written."""

from typing import Any, Literal

from perimetry.config import Config
from perimetry.report.schema import MadeResults, Meaning, checked

__all__ = [
    "ROBUSTIFY",
    "ROBUSTNESS",
    "RobustnessResultRow",
    "RobustnessResults",
    "TunedResults",
    "TunedRow",
    "TuningClaim",
    "parse_robustness",
    "parse_tuned",
]

ROBUSTNESS = "robustness"
"""What the key `kind` of such a file says."""
ROBUSTIFY = "robustify"
"""What it says of one tuning."""


class RobustnessResultRow(Config):
    """One number of an arm, or how far one arm is above another."""

    arm: str
    """Name of the arm."""
    against: str
    """Arm that is subtracted; empty where none is."""
    seed: int | None
    """Seed; None is all of them."""
    metric: str
    """Name of the number."""
    case: str
    """Perturbation, judge and detector, or kind of question; empty where the number has none."""
    estimate: float
    """The number, or the difference."""
    low: float
    """Lower end of its interval."""
    high: float
    """Upper end."""
    n: int
    """Independent units."""
    p_value: float | None
    """Of a difference."""
    method: str
    """How the interval was made."""


class TuningClaim(Config):
    """A claim and what the interval says of it."""

    arm: str
    """What is judged."""
    against: str
    """What is subtracted; empty where the number itself is judged."""
    metric: str
    """In which number."""
    case: str
    """At which perturbation; empty where the number has none."""
    sign: int
    """+1 where the claim is that the number lies above the bound, -1 where below."""
    bound: float
    """The bound."""
    said: str
    """Who says so, or why it is asked."""
    estimate: float
    """The number, or the difference, over all seeds."""
    low: float
    """Lower end of its interval."""
    high: float
    """Upper end."""
    n: int
    """Units."""
    seeds: int
    """How many seeds there are."""
    seeds_so: int
    """In how many of them the number is on the claim's side."""
    verdict: Literal["holds", "fails", "open"]
    """What the interval allows to say."""


class RobustnessResults(MadeResults):
    """The content of the file."""

    rows: tuple[RobustnessResultRow, ...]
    """Measurements, flat."""
    claims: tuple[TuningClaim, ...]
    """What was asked."""
    metrics: dict[str, Meaning]
    """What the numbers mean."""
    arms: dict[str, str]
    """What each arm is."""
    judges: dict[str, str]
    """What each judging meter is."""
    refused: tuple[dict[str, Any], ...] = ()
    """Arms and seeds that diverged, with the reason."""


def parse_robustness(results: dict[str, Any]) -> RobustnessResults:
    """The results, checked. Errors: `ConfigError` that names the first entries that are wrong."""
    return checked(RobustnessResults, results, "these results of a study of robustness")


class TunedRow(Config):
    """One number before or after a tuning."""

    arm: Literal["base", "tuned"]
    """Before or after."""
    seed: int
    """Of the tuning."""
    metric: str
    """Name of the number."""
    case: str
    """Perturbation; empty for clean text."""
    seen: bool
    """Whether it was tuned on."""
    estimate: float
    """The number."""
    low: float
    """Lower end of its interval."""
    high: float
    """Upper end."""
    n: int
    """Texts."""
    method: str
    """How the interval was made."""


class TunedResults(MadeResults):
    """The content of the file of one tuning."""

    rows: tuple[TunedRow, ...]
    """Measurements, flat."""
    metrics: dict[str, Meaning]
    """What the numbers mean."""
    data: dict[str, Any]
    """What was tuned on."""


def parse_tuned(results: dict[str, Any]) -> TunedResults:
    """The results, checked. Errors: `ConfigError` that names the first entries that are wrong."""
    return checked(TunedResults, results, "these results of a tuning")
