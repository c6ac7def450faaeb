"""The content of the `results.json` of a masking study, checked before a line of HTML is written."""

from typing import Any, Literal

from pydantic import Field

from perimetry.config import Config
from perimetry.report.schema import MadeResults, checked

__all__ = ["MASKING", "MaskedSAE", "MaskingResultRow", "MaskingResults", "Sign", "parse_masking"]

MASKING = "masking"
"""What the key `kind` of such a file says."""


class MaskingResultRow(Config):
    """One number of an arm, or how far one arm is above another."""

    arm: str
    """What was done."""
    against: str
    """Arm that is subtracted; empty where none is."""
    seed: int | None
    """Seed of the dictionaries; None is all of them."""
    l0_target: int
    """Count that training aimed at."""
    evaluation: str
    """Name of the evaluation."""
    metric: str
    """Name of the number."""
    unit: str
    """Its unit."""
    higher: bool | None
    """Whether higher is better."""
    case: str
    """Kind of shift; empty for all together."""
    k: int
    """Latents that a probe may use."""
    measured: str
    """`sae`, or what stands beside it."""
    value: float
    """The number, or the difference."""
    low: float
    """Lower end of its interval."""
    high: float
    """Upper end."""
    p_value: float | None
    """Of a difference."""
    n: int
    """Independent units."""
    seeds_above: int | None
    """Of a difference over all seeds: in how many of them it is above 0."""
    seeds: int
    """Seeds that it rests on."""
    method: str
    """How the interval was made."""


class Sign(Config):
    """Whether a published sign was seen."""

    evaluation: str
    """Name of the evaluation."""
    metric: str
    """Name of the number."""
    case: str = ""
    """Kind of shift that it is about; empty for all together."""
    sign: int
    """+1 where it rises with masking, as published, -1 where it falls."""
    said: str
    """What was published."""
    l0_target: int
    """Count that training aimed at."""
    k: int
    """Latents of the probe."""
    value: float
    """Masked minus plain, over all seeds."""
    low: float
    """Lower end of its interval."""
    high: float
    """Upper end."""
    n: int
    """Units."""
    seeds_above: int
    """In how many seeds the difference is above 0."""
    seeds: int
    """Of how many."""
    verdict: Literal["seen", "opposite", "open"]
    """What the interval allows to say."""


class MaskedSAE(Config):
    """One dictionary."""

    arm: str
    """What was done."""
    k: int
    """Count that training aimed at."""
    seed: int
    """Of its weights."""
    digest: str
    """Its identity."""
    fvu: float
    """Fraction of variance unexplained on its own kind of text, masked where that was masked."""
    l0: float
    """Mean active count there."""
    dead: float
    """Share of latents that never fired there."""


class MaskingResults(MadeResults):
    """The content of the file."""

    saes: tuple[MaskedSAE, ...] = Field(min_length=1)
    """The dictionaries."""
    evaluations: tuple[dict[str, Any], ...] = ()
    """What the evaluations say of themselves."""
    rows: tuple[MaskingResultRow, ...]
    """Measurements, flat."""
    signs: tuple[Sign, ...]
    """The published claims."""
    refused: tuple[dict[str, Any], ...] = ()
    """What could not be judged."""


def parse_masking(results: dict[str, Any]) -> MaskingResults:
    """The results, checked. Errors: `ConfigError` that names the first entries that are wrong."""
    return checked(MaskingResults, results, "these results of a masking study")
