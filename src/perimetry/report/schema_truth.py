"""The content of the `results.json` of a study of known features, checked before a line of HTML is written."""

from typing import Any, Literal

from perimetry.config import Config
from perimetry.report.schema import MadeResults, Meaning, checked

__all__ = ["TRUTH", "JudgedClaim", "TruthResultRow", "TruthResults", "parse_truth"]

TRUTH = "truth"
"""What the key `kind` of such a file says."""


class TruthResultRow(Config):
    """One number of an arm, or how far one arm is above another."""

    part: str
    """`order` or `causal`."""
    preset: str
    """World and length of training."""
    arm: str
    """An architecture, `probe`, or an arm of the causal test."""
    against: str
    """Arm that is subtracted; empty where none is."""
    seed: int | None
    """Seed of weights and tokens; None is all of them."""
    metric: str
    """Name of the number."""
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


class JudgedClaim(Config):
    """A claim and what the interval says of it."""

    part: str
    """Which part it belongs to."""
    arm: str
    """What is compared."""
    against: str
    """With what."""
    metric: str
    """In which number."""
    sign: int
    """+1 where the claim is that the arm is above, -1 where it is below."""
    said: str
    """Who says so, or why it is asked."""
    estimate: float
    """The difference over all seeds."""
    low: float
    """Lower end of its interval."""
    high: float
    """Upper end."""
    n: int
    """Units."""
    seeds: int
    """How many seeds there are."""
    seeds_so: int
    """In how many of them the difference has the claim's sign."""
    verdict: Literal["holds", "fails", "open"]
    """What the interval allows to say."""


class TruthResults(MadeResults):
    """The content of the file."""

    rows: tuple[TruthResultRow, ...]
    """Measurements, flat."""
    claims: tuple[JudgedClaim, ...]
    """What was asked."""
    metrics: dict[str, Meaning]
    """What the numbers mean."""


def parse_truth(results: dict[str, Any]) -> TruthResults:
    """The results, checked. Errors: `ConfigError` that names the first entries that are wrong."""
    return checked(TruthResults, results, "these results of a study of known features")
