"""What a lab is: a synthetic world in which the truth is known, what is measured there, and what must come out.

A lab is run arm by arm and seed by seed. What must come out was said before, as bounds on single numbers; a control is a bound that
shows the effect to be absent where it must be.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, TypeVar

from pydantic import Field

from perimetry.config import Config
from perimetry.errors import UnknownName, UsageError
from perimetry.measures.stats import Interval

__all__ = [
    "AbstractLab",
    "Asked",
    "Column",
    "Curve",
    "Expectation",
    "Job",
    "LabConfig",
    "Line",
    "Measured",
    "Outcome",
    "Panel",
    "Source",
    "jobs_of",
    "own_config",
    "with_seeds",
]

Gate = Literal["all", "controls"]
C = TypeVar("C", bound="LabConfig")


class LabConfig(Config):
    """What every lab can be told: its own configuration derives from this."""

    seeds: dict[str, int] = Field(min_length=1)
    """Kind of arm -> how many seeds it is run with, from 0 on."""
    judged: Gate = "all"
    """`all`: everything that must come out decides whether the lab holds; `controls`: only that the controls behave, for worlds
    too small to show more."""


def with_seeds(config: LabConfig, seeds: int | None) -> LabConfig:
    """The configuration with as many seeds for every kind of arm; None leaves it. Errors: `UsageError` below 1."""
    if seeds is None:
        return config
    if seeds < 1:
        raise UsageError(f"seeds = {seeds}; give 1 or more, and 3 or more for an interval that means something")
    return config.model_copy(update={"seeds": dict.fromkeys(config.seeds, seeds)})


def own_config(config: LabConfig, wanted: type[C], lab: str) -> C:
    """The configuration as that of a lab. Errors: `UsageError` for that of another."""
    if not isinstance(config, wanted):
        raise UsageError(
            f"the lab {lab} wants a {wanted.__name__}, got {type(config).__name__}; take one of its presets"
        )
    return config


class Source(NamedTuple):
    """The study that a lab rebuilds."""

    title: str
    """Its title."""
    authors: str
    """Who wrote it."""
    where: str
    """Such as `arXiv 2410.08309, ICLR 2025`."""


class Job(NamedTuple):
    """One arm under one seed: what is run, kept and resumed as a whole."""

    arm: str
    """Which setting of the world and the model."""
    seed: int
    """Seed of everything drawn in it."""


def jobs_of(arms: Sequence[str], seeds: Mapping[str, int]) -> list[Job]:
    """Every arm under the seeds of its kind, which is its name as far as the first `_`."""
    return [Job(arm, seed) for arm in arms for seed in range(seeds[arm.partition("_")[0]])]


class Measured(NamedTuple):
    """One number of one job."""

    metric: str
    """Its name."""
    value: float
    """The number."""
    case: str = ""
    """Of what, where a job measures it of several things."""
    low: float | None = None
    """Lower end of an interval over the units of this job; None where the number is exact for this world and seed."""
    high: float | None = None
    """Upper end."""
    n: int = 1
    """Independent units within the job."""

    @classmethod
    def within(cls, metric: str, found: Interval, case: str = "") -> "Measured":
        """A number with its interval over the units of the job."""
        return cls(metric, found.estimate, case, found.low, found.high, found.n)


class Curve(NamedTuple):
    """One line of one job, for figures."""

    xs: list[float]
    """Positions."""
    ys: list[float]
    """Values."""


class Outcome(NamedTuple):
    """What a job gave."""

    measured: list[Measured]
    """Its numbers."""
    curves: dict[str, Curve]
    """Its lines, by name."""

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        curves = {name: [curve.xs, curve.ys] for name, curve in self.curves.items()}
        return {"measured": [list(one) for one in self.measured], "curves": curves}

    @classmethod
    def of_json(cls, plain: Mapping[str, Any]) -> "Outcome":
        """The outcome that `to_json` was made of."""
        curves = {name: Curve(*both) for name, both in plain["curves"].items()}
        return cls([Measured(*one) for one in plain["measured"]], curves)

    def value(self, metric: str, case: str = "") -> float:
        """A number by its name. Errors: `UnknownName`."""
        for one in self.measured:
            if (one.metric, one.case) == (metric, case):
                return one.value
        raise UnknownName("measured number", f"{metric}, {case}", [f"{m.metric}, {m.case}" for m in self.measured])


class Expectation(NamedTuple):
    """A bound on one number of one arm, said before it was measured."""

    arm: str
    """Arm."""
    metric: str
    """Number."""
    said: str
    """The expectation, as a sentence."""
    least: float | None = None
    """Smallest value that satisfies it; None = no lower bound."""
    most: float | None = None
    """Largest value that satisfies it."""
    case: str = ""
    """Of what."""
    needed: float = 1.0
    """Share of the seeds in which the number must satisfy it."""
    control: bool = False
    """True for a negative control: the bound says that the effect is absent."""

    def satisfied(self, value: float) -> bool:
        """Whether a value lies within the bounds.

        >>> Expectation("a", "rebound", "it rises", least=1.02).satisfied(1.3)
        True
        """
        return (self.least is None or value >= self.least) and (self.most is None or value <= self.most)

    def bound(self) -> str:
        """The bounds in words.

        >>> Expectation("a", "rebound", "it rises", least=1.02).bound()
        'at least 1.02'
        """
        if self.least is not None and self.most is not None:
            return f"from {self.least:g} to {self.most:g}"
        return f"at least {self.least:g}" if self.least is not None else f"at most {self.most:g}"


class Column(NamedTuple):
    """One column of a table of scores: a number that every score has."""

    name: str
    """Heading."""
    arm: str
    """Arm."""
    metric: str
    """Number."""
    case: str = "{score}"
    """Of what; `{score}` stands for the name of the score."""


class Asked(NamedTuple):
    """A question put to the shift meter where the truth is known: a table of scores, those that read concepts and those that do not."""

    question: str
    """In a sentence."""
    unit: str
    """What a cell is, and what its best and its useless value are."""
    columns: tuple[Column, ...]
    """What each score is asked."""
    scores: tuple[str, ...]
    """Rows, in order: what reads concepts first. `x or y` is a combination, and reads concepts if one of them does; `mean x` as `x`."""
    reading: tuple[str, ...] = ()
    """Those that read concepts and are not in `DETECTORS`."""


class Line(NamedTuple):
    """One line of a figure."""

    name: str
    """Stands at its end."""
    xs: Sequence[float]
    """Positions, rising."""
    ys: Sequence[float]
    """Values."""
    lows: Sequence[float] = ()
    """Lower ends of the intervals, or nothing."""
    highs: Sequence[float] = ()
    """Upper ends, or nothing."""


class Panel(NamedTuple):
    """One figure, as data."""

    name: str
    """Of its files."""
    title: str
    """What is seen."""
    x: str
    """Horizontal axis, with its unit."""
    y: str
    """Vertical axis, with its unit."""
    lines: Sequence[Line]
    """What is drawn."""
    log_x: bool = False
    """Whether the horizontal axis is logarithmic."""
    log_y: bool = False
    """Whether the vertical one is."""
    level: float | None = None
    """A reference line across."""
    caption: str = ""
    """What to see in it, in a sentence or two."""


class AbstractLab(ABC):
    """A world, what is run in it, and what must come out."""

    name: ClassVar[str]
    """Name in `LABS`, on the command line and of its result file."""
    title: ClassVar[str]
    """What it is about, in a line."""
    question: ClassVar[str]
    """What it asks, in a sentence or two."""
    source: ClassVar[Source]
    """The study that it rebuilds."""
    presets: ClassVar[Mapping[str, LabConfig]]
    """`tiny` (for tests: under a minute, controls only), `quick` (minutes on two cores) and `paper` (the published scale)."""
    expected: ClassVar[tuple[Expectation, ...]]
    """What must come out. Those of arms that a configuration leaves out are left out with them."""
    asked: ClassVar[tuple[Asked, ...]]
    """What the shift meter is asked in this world."""

    @abstractmethod
    def jobs(self, config: LabConfig) -> list[Job]:
        """What is run, in order."""

    @abstractmethod
    def run(self, config: LabConfig, job: Job, folder: Path, *, progress: bool = False) -> Outcome:
        """Run one job; what takes long keeps checkpoints in `folder`. The same job gives the same numbers."""

    @abstractmethod
    def panels(self, config: LabConfig, found: Mapping[Job, Outcome]) -> list[Panel]:
        """The figures; the first one stands for the lab in the gallery. One without a line is left out by what runs the lab."""
