"""The content of the `results.json` of a lab, checked before a line of HTML is written."""

from typing import Any, Literal

from perimetry.config import Config
from perimetry.report.schema import MadeResults, checked

__all__ = [
    "LAB",
    "LabAsked",
    "LabClaim",
    "LabLine",
    "LabPanel",
    "LabResultRow",
    "LabResults",
    "LabScore",
    "LabSource",
    "parse_lab",
]

LAB = "lab"
"""What the key `kind` of such a file says."""


class LabResultRow(Config):
    """One number of an arm, of one seed or of all."""

    arm: str
    """Arm."""
    seed: int | None
    """Seed; None is the mean over all of them."""
    metric: str
    """Number."""
    case: str
    """Of what, where an arm measures it of several things."""
    estimate: float
    """The number."""
    low: float
    """Lower end of its interval."""
    high: float
    """Upper end."""
    n: int
    """Seeds, or units within the one seed."""
    method: str
    """How the interval was made."""


class LabClaim(Config):
    """What was to come out, and what came out."""

    arm: str
    """Arm."""
    metric: str
    """Number."""
    case: str
    """Of what."""
    said: str
    """The expectation."""
    least: float | None
    """Smallest value that satisfies it."""
    most: float | None
    """Largest."""
    needed: float
    """Share of the seeds in which it must."""
    control: bool
    """Whether it is a negative control: the effect must be absent."""
    estimate: float | None
    """Mean over seeds; None where no seed gave the number."""
    low: float | None
    """Lower end of its interval."""
    high: float | None
    """Upper end."""
    n: int
    """Seeds."""
    so: int
    """In how many of them it is satisfied."""
    share_low: float
    """Lower end of the interval of that share."""
    share_high: float
    """Upper end."""
    verdict: Literal["holds", "fails"]
    """Whether these are as many as it needs."""
    decides: bool
    """Whether the verdict counts for the lab as a whole."""


class LabScore(Config):
    """One score in the table of a question."""

    score: str
    """Its name."""
    concepts: bool
    """Whether it reads a dictionary."""
    cells: list[tuple[float, float, float, int] | None]
    """Mean over seeds, its interval and the number of seeds, a column each; None where it was not measured."""


class LabAsked(Config):
    """A question put to the shift meter."""

    question: str
    """In a sentence."""
    unit: str
    """What a cell is."""
    columns: list[str]
    """Headings."""
    scores: list[LabScore]
    """Rows: what reads concepts first."""


class LabLine(Config):
    """One line of a figure."""

    name: str
    """Stands at its end."""
    xs: list[float]
    """Positions."""
    ys: list[float]
    """Values."""
    lows: tuple[float, ...] = ()
    """Lower ends of the intervals, or nothing."""
    highs: tuple[float, ...] = ()
    """Upper ends, or nothing."""


class LabPanel(Config):
    """One figure."""

    name: str
    """Of its files."""
    title: str
    """What is seen."""
    x: str
    """Horizontal axis."""
    y: str
    """Vertical axis."""
    lines: list[LabLine]
    """What is drawn."""
    log_x: bool = False
    """Whether the horizontal axis is logarithmic."""
    log_y: bool = False
    """Whether the vertical one is."""
    level: float | None = None
    """A reference line across."""
    caption: str = ""
    """What to see in it."""


class LabSource(Config):
    """The study that was rebuilt."""

    title: str
    """Its title."""
    authors: str
    """Who wrote it."""
    where: str
    """Where it was published."""


class LabResults(MadeResults):
    """A lab."""

    kind: Literal["lab"]
    """Tells such a file from the others."""
    lab: str
    """Name of the lab."""
    source: LabSource
    """What was rebuilt."""
    rows: list[LabResultRow]
    """Every number."""
    claims: list[LabClaim]
    """What was to come out."""
    asked: list[LabAsked]
    """What the shift meter was asked, and what each score says."""
    panels: list[LabPanel]
    """The figures; the first stands for the lab."""


def parse_lab(results: dict[str, Any]) -> LabResults:
    """Check the content of a file. Errors: `ConfigError` that names what is wrong."""
    return checked(LabResults, results, "these results of a lab")
