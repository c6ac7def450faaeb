"""The content of the `results.json` of a study, checked before a line of HTML is written."""

from typing import Any, Literal

from pydantic import Field

from perimetry.config import Config
from perimetry.report.schema import MadeResults, ResultRow, SeedRow, checked

__all__ = [
    "STUDY",
    "Confirmed",
    "ConfirmedSeeds",
    "StudiedRow",
    "StudiedSAE",
    "StudiedScore",
    "StudyResults",
    "parse_study",
]

STUDY = "study"
"""What the key `kind` of such a file says."""


class StudiedRow(ResultRow):
    """One measurement of a study."""

    split: Literal["validation", "test"]
    """Whether it served the choice or confirmed it."""
    layer: int
    """Block whose output is read."""
    architecture: str
    """Of the SAE; empty where none is read."""
    width: int
    """Latents of the SAE; 0 where none is read."""
    fvu: float | None = None
    """Fraction of variance that the SAE leaves unexplained."""
    l0: float | None = None
    """Mean active count of the SAE."""


class StudiedScore(Config):
    """One score of a layer and an SAE on the validation suites."""

    layer: int
    """As in `StudiedRow`."""
    architecture: str
    """As in `StudiedRow`."""
    width: int
    """As in `StudiedRow`."""
    detector: str
    """Detector with its pooling."""
    kind: Literal["concept", "baseline"]
    """Whether it reads concepts."""
    mean: float
    """AUROC by the rule of the study, over the seeds."""
    least: float
    """That of the worst seed."""
    greatest: float
    """That of the best seed."""
    seeds: int
    """Number of seeds."""


class StudiedSAE(Config):
    """One SAE."""

    layer: int
    """As in `StudiedRow`."""
    architecture: str
    """As in `StudiedRow`."""
    width: int
    """As in `StudiedRow`."""
    seed: int
    """Of its weights."""
    fvu: float
    """Fraction of variance unexplained on tokens of after the training; lower is better."""
    l0: float
    """Mean active count there."""
    dead: float
    """Share of latents that never fired there."""
    digest: str
    """Identity of the artifact."""


class ConfirmedSeeds(SeedRow):
    """A measurement on the test suites over all seeds."""

    low: float
    """Lower end of the interval of the mean, by pair."""
    high: float
    """Upper end."""
    n_pairs: int
    """Pairs."""
    method: str
    """How the interval was made."""


class Confirmed(Config):
    """The look at the test suites."""

    looks: int
    """How often they were looked at in this folder; more than 1 where it was forced."""
    date: str
    """When, as ISO 8601."""
    version: str
    """By which version."""
    over_seeds: tuple[ConfirmedSeeds, ...]
    """The chosen score, and its difference to the chosen baseline."""


class StudyResults(MadeResults):
    """The content of the file."""

    main: str
    """The score of the second heat map."""
    rule: str
    """How the choice was made, in a sentence."""
    rows: tuple[StudiedRow, ...]
    """Measurements, flat."""
    cells: tuple[StudiedScore, ...] = Field(min_length=1)
    """Means of every score of every SAE on the validation suites."""
    saes: tuple[StudiedSAE, ...]
    """The SAEs."""
    chosen: StudiedScore
    """The concept score that was chosen."""
    chosen_baseline: StudiedScore
    """The baseline that was chosen."""
    compared: dict[str, int]
    """Kind -> how many scores it was chosen from."""
    confirmed: Confirmed
    """What the test suites said."""


def parse_study(results: dict[str, Any]) -> StudyResults:
    """The results, checked. Errors: `ConfigError` that names the first entries that are wrong."""
    return checked(StudyResults, results, "these results of a study")
