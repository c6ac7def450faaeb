"""Results of evaluations, flat: one number a row, with its interval, its unit and what it is compared with."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from perimetry.errors import TooFewSamples
from perimetry.evals.sae.base import AbstractEvaluation, Subject
from perimetry.evals.sae.units import Units, difference, interval

__all__ = ["EvalRow", "paired_rows", "rows_of"]


class EvalRow(NamedTuple):
    """One measurement of one dictionary, or of how much it is above another."""

    sae: str
    """Name of the dictionary."""
    seed: int
    """Of its training."""
    control: str
    """Empty; or which control it is: `untrained_dictionary`, `untrained_model`, `frozen_decoder` ..."""
    evaluation: str
    """Name in `SAE_EVALS`."""
    definition: str
    """Version of the definition."""
    reliable: bool
    """False where the field has found that the evaluation should not be relied on."""
    metric: str
    """Name in the evaluation's `metrics`."""
    unit: str
    """Of the estimate."""
    higher: bool | None
    """Whether higher is better; None where neither is."""
    case: str
    """Data set, letter or shift; empty for all of them together."""
    k: int
    """Latents that a probe may use; 0 where nothing is probed."""
    arm: str
    """`sae`, or what the evaluation measured beside it, such as `raw`."""
    against: str
    """For differences, the dictionary, or the arm, whose number is taken off; else empty."""
    estimate: float
    """The number."""
    low: float
    """Lower end of its interval."""
    high: float
    """Upper end."""
    p_value: float | None
    """Of a difference, two-sided, for none; None for plain numbers."""
    n: int
    """Independent units."""
    method: str
    """How the interval was made."""

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return self._asdict()


def _about(evaluation: AbstractEvaluation, subject: Subject, units: Units, control: str) -> dict[str, Any]:
    metric = evaluation.metrics[units.cell.metric]
    return {
        "sae": subject.name,
        "seed": subject.seed,
        "control": control,
        "evaluation": evaluation.name,
        "definition": evaluation.definition,
        "reliable": evaluation.reliable,
        "unit": metric.unit,
        "higher": metric.higher,
        **units.cell._asdict(),
    }


def rows_of(
    evaluation: AbstractEvaluation, subject: Subject, found: Iterable[Units], control: str = ""
) -> list[EvalRow]:
    """The numbers of one dictionary, each with its interval."""
    rows: list[EvalRow] = []
    for units in found:
        box = interval(units)
        rows.append(EvalRow(**_about(evaluation, subject, units, control), against="", p_value=None, **box._asdict()))
    return rows


def paired_rows(
    evaluation: AbstractEvaluation,
    subject: Subject,
    ours: Sequence[Units],
    against: str,
    theirs: Sequence[Units],
    control: str = "",
) -> list[EvalRow]:
    """How much each number of one dictionary is above the same number of `against`, on the units that both have.

    Numbers that only one of them has, or that share fewer than two units, give no row.
    """
    other = {units.cell: units for units in theirs}
    rows: list[EvalRow] = []
    for units in ours:
        if units.cell not in other:
            continue
        try:
            gap = difference(units, other[units.cell])
        except TooFewSamples:
            continue
        rows.append(EvalRow(**_about(evaluation, subject, units, control), against=against, **gap._asdict()))
    return rows
