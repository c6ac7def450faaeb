"""What a report is made of: the content of `results.json`, checked before a line of HTML is written."""

from typing import Any, Literal, TypeVar

from pydantic import ConfigDict, Field, ValidationError

from perimetry.config import Config
from perimetry.errors import ConfigError
from perimetry.report.schema_controls import ControlRow
from perimetry.report.schema_readings import ConceptEntry, Example, ReadingEntry, TokenEntry

__all__ = [
    "ConceptEntry",
    "ControlRow",
    "DamageEntry",
    "DamagePoints",
    "Example",
    "FalseAlarmRow",
    "Histogram",
    "LayerRow",
    "MadeResults",
    "Meaning",
    "ReadingEntry",
    "ResultRow",
    "Results",
    "RocCurve",
    "SeedRow",
    "TokenEntry",
    "TrainingCurve",
    "checked",
    "parse_results",
]

M = TypeVar("M", bound="MadeResults")


class ResultRow(Config):
    """One measurement."""

    suite: str
    """Name of the suite."""
    family: str
    """Kind of shift; `all` for all kinds together."""
    dose: float
    """Strength of the shift; 1 where the suite has no dial; 0 for measurements over all doses."""
    negatives: str
    """Kind of clean text compared against; `all` for all kinds together."""
    detector: str
    """Detector with its pooling."""
    kind: Literal["concept", "baseline"]
    """Whether it reads concepts, or is what a sceptic would try first."""
    metric: str
    """What was measured, such as `auroc`; docs/report.md lists them all."""
    against: str = ""
    """For differences, the detector whose value is subtracted; for added value, the baselines that are known already."""
    best_baseline: bool = False
    """Whether `against` is the baseline with the highest AUROC of all on these very cases."""
    selection: str = ""
    """How `detector` was chosen: `main` (on a validation suite), `post_hoc` (on this very suite), `out_of_fold` (on other
    pairs), `left_out` (on other families); empty where nothing was chosen."""
    estimate: float
    """The measured number."""
    low: float
    """Lower end of its interval."""
    high: float
    """Upper end of its interval."""
    n_shifted: int
    """Shifted cases."""
    n_clean: int
    """Clean cases."""
    n_pairs: int
    """Pairs, the units of the bootstrap."""
    seed: int
    """Seed of the SAE."""
    method: str
    """How the interval was made, with its confidence."""


class LayerRow(ResultRow):
    """One measurement of a meter of one of several layers."""

    layer: int
    """Block whose output the meter reads."""


class SeedRow(Config):
    """One measurement over several SAE seeds."""

    suite: str
    """As in `ResultRow`."""
    family: str
    """As in `ResultRow`."""
    dose: float
    """As in `ResultRow`."""
    negatives: str
    """As in `ResultRow`."""
    detector: str
    """As in `ResultRow`."""
    metric: str
    """As in `ResultRow`."""
    against: str = ""
    """As in `ResultRow`."""
    selection: str = ""
    """As in `ResultRow`."""
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


class FalseAlarmRow(Config):
    """How often clean test prompts of a group raised an alarm."""

    group: str
    """Calibration group."""
    alpha: float
    """The false-alarm rate asked for."""
    realised: float
    """The share of clean test prompts with a p-value of at most `alpha`."""
    low: float
    """Lower end of the interval in which it should lie."""
    high: float
    """Upper end."""
    n_test: int
    """Clean test prompts."""
    n_calibration: int
    """Calibration prompts."""
    inside: bool
    """Whether the realised rate lies in the interval."""


class Histogram(Config):
    """P-values of clean test prompts of a group, in bins of equal width from 0 to 1."""

    group: str
    """Calibration group."""
    counts: tuple[int, ...] = Field(min_length=1)
    """Prompts in each bin."""


class RocCurve(Config):
    """A receiver operating characteristic at low false-alarm rates."""

    suite: str
    """Name of the suite."""
    family: str
    """Kind of shift."""
    dose: float
    """Strength of the shift."""
    detector: str
    """Detector with its pooling."""
    kind: Literal["concept", "baseline"]
    """As in `ResultRow`."""
    fpr: tuple[float, ...]
    """False-positive rates, rising."""
    tpr: tuple[float, ...]
    """True-positive rates there."""


class DamageEntry(Config):
    """What a corruption did to the model, whatever the scores say."""

    suite: str
    """Name of the suite, or `questions`."""
    family: str
    """Kind of shift, or set of questions."""
    dose: float
    """Its strength."""
    measure: str
    """`kl` or `nll_rise` in nats; `accuracy_clean`, `accuracy_corrupted` or `accuracy_loss`."""
    estimate: float
    """Mean over texts."""
    low: float
    """Lower end of its interval."""
    high: float
    """Upper end of its interval."""
    n_pairs: int
    """Passages or questions."""
    method: str
    """How the interval was made."""
    chance: float | None = None
    """Accuracy of a blind guess, for questions."""


class DamagePoints(Config):
    """Damage and score of single corrupted texts."""

    suite: str
    """Name of the suite."""
    detector: str
    """Detector with its pooling."""
    kind: Literal["concept", "baseline"]
    """As in `ResultRow`."""
    dose: tuple[float, ...]
    """Dose of each text."""
    score: tuple[float, ...]
    """Score of each."""
    kl: tuple[float, ...]
    """Damage of each, in nats."""


class TrainingCurve(Config):
    """The log of one SAE training."""

    label: str
    """Which SAE."""
    points: tuple[dict[str, Any], ...]
    """Objects of the training log: `step` or `tokens`, and numbers such as `fvu`, `l0`, `dead`."""


class Meaning(Config):
    """What a number means."""

    unit: str
    """Its unit."""
    higher: bool | None
    """Whether higher is better."""
    text: str
    """Its meaning."""


class MadeResults(Config):
    """What every results file says of itself; keys that the report does not show are let through."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    title: str
    """Headline."""
    subtitle: str = ""
    """Model, layer and SAE in one line."""
    command: str
    """The command that makes these results."""
    version: str
    """Version of perimetry."""
    hardware: dict[str, Any] | str
    """What they were computed on."""
    date: str
    """When, as ISO 8601."""
    matching: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Suite -> how its negatives were matched, measured."""
    configuration: dict[str, Any] = Field(default_factory=dict)
    """Every setting of the run."""


class Results(MadeResults):
    """The content of `results.json`."""

    title: str = "Shift report"
    """Headline."""
    rows: tuple[ResultRow, ...]
    """Measurements, flat."""
    seeds: tuple[SeedRow, ...] = ()
    """Measurements over several SAE seeds."""
    layers: tuple[LayerRow, ...] = ()
    """Measurements of meters of several layers, those of the first one included."""
    main: str = ""
    """The concept score chosen on the validation suite."""
    validation: str = ""
    """How and on what it was chosen, in a sentence."""
    benign: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Suite -> families of its shifted texts that are novel and harmless."""
    damage: tuple[DamageEntry, ...] = ()
    """What the corruptions did to the model."""
    damage_points: tuple[DamagePoints, ...] = ()
    """The same of single texts, beside scores."""
    false_alarms: tuple[FalseAlarmRow, ...] = ()
    """False alarms on clean test prompts."""
    p_values: tuple[Histogram, ...] = ()
    """Histograms of clean p-values."""
    controls: tuple[ControlRow, ...] = ()
    """What a sceptic would try, and whether it came out as expected."""
    roc: tuple[RocCurve, ...] = ()
    """ROC curves at low false-alarm rates."""
    examples: tuple[Example, ...] = ()
    """Prompts to show token by token."""
    training: tuple[TrainingCurve, ...] = ()
    """Training logs."""


def parse_results(results: dict[str, Any]) -> Results:
    """The results, checked. Errors: `ConfigError` that names the first entries that are wrong."""
    return checked(Results, results, "these results")


def checked(kind: type[M], results: dict[str, Any], what: str) -> M:
    """Results as their class. Errors: `ConfigError` that names the first entries of `what` that are wrong."""
    try:
        return kind.model_validate(results)
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:3]]
        raise ConfigError(
            f"{what} cannot be shown ({error.error_count()} problems): {'; '.join(problems)}; "
            "make results.json again with this version"
        ) from error
