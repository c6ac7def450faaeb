"""The content of the `results.json` of evaluations of dictionaries, checked before a line of HTML is written."""

from typing import Any

from pydantic import Field

from perimetry.config import Config
from perimetry.report.schema import MadeResults, checked

__all__ = [
    "EVALUATION",
    "Evaluated",
    "EvaluationAbout",
    "EvaluationResults",
    "EvaluationRow",
    "FeatureDiffEntry",
    "Refusal",
    "parse_evaluation",
]

EVALUATION = "evaluation"
"""What the key `kind` of such a file says."""


class EvaluationRow(Config):
    """One number of one dictionary or control, or how much it is above another."""

    sae: str
    """Name of the dictionary."""
    seed: int
    """Of its training."""
    control: str
    """Empty, or which control of it."""
    evaluation: str
    """Name of the evaluation."""
    definition: str
    """Version of its definition."""
    reliable: bool
    """False where the field found that it should not be relied on."""
    metric: str
    """Name of the number."""
    unit: str
    """Its unit."""
    higher: bool | None
    """Whether higher is better; None where neither is."""
    case: str
    """Data set, letter, shift or other dictionary; empty for all together."""
    k: int
    """Latents that a probe may use, or that are taken out; 0 where that does not apply."""
    arm: str
    """`sae`, or what was measured beside it, such as `raw`."""
    against: str
    """For differences, the dictionary or control whose number is taken off."""
    estimate: float
    """The number."""
    low: float
    """Lower end of its interval."""
    high: float
    """Upper end."""
    p_value: float | None
    """Of a difference."""
    n: int
    """Independent units."""
    method: str
    """How the interval was made."""


class Evaluated(Config):
    """One dictionary."""

    name: str
    """In the rows."""
    path: str
    """From where it was read."""
    digest: str
    """Its identity."""
    architecture: str
    """Name of the architecture."""
    width: int
    """Latents."""
    model: str
    """Language model."""
    layer: int
    """Block whose output it reads."""
    seed: int
    """Of its training."""
    tokens: int | None
    """Training tokens, where they are known."""
    masking: dict[str, Any] = Field(default_factory=dict)
    """How its text was masked; empty for plain text."""


class EvaluationAbout(Config):
    """What an evaluation says of itself."""

    name: str
    """Its name."""
    definition: str
    """Version."""
    source: str
    """Where the definition comes from."""
    caveat: str
    """What must stand beside its numbers."""
    reliable: bool
    """As in `EvaluationRow`."""
    metrics: dict[str, str]
    """Metric -> its definition in a sentence."""


class Refusal(Config):
    """What could not be judged."""

    sae: str
    """Name of the dictionary."""
    control: str
    """Which control, or empty."""
    evaluation: str
    """Which evaluation; empty where the control itself could not be made."""
    why: str
    """The reason."""


class FeatureDiffEntry(Config):
    """How many latents two dictionaries share."""

    first: str
    """One dictionary."""
    second: str
    """The other."""
    file: str
    """All of them, in the folder of the results."""
    counts: dict[str, int]
    """Kind -> number."""


class EvaluationResults(MadeResults):
    """The content of the file."""

    saes: tuple[Evaluated, ...] = Field(min_length=1)
    """The dictionaries; the others are compared with the first."""
    evaluations: tuple[EvaluationAbout, ...]
    """What was asked."""
    rows: tuple[EvaluationRow, ...]
    """Measurements, flat."""
    refused: tuple[Refusal, ...] = ()
    """What could not be judged."""
    feature_diffs: tuple[FeatureDiffEntry, ...] = ()
    """Pairs of dictionaries."""


def parse_evaluation(results: dict[str, Any]) -> EvaluationResults:
    """The results, checked. Errors: `ConfigError` that names the first entries that are wrong."""
    return checked(EvaluationResults, results, "these results of evaluations")
