"""A flat row: one measurement with its interval, counts, seed and arm."""

from typing import Any, Literal, NamedTuple

from perimetry.measures.ranking import Difference
from perimetry.measures.stats import Interval

__all__ = ["Kind", "Place", "Row", "row_at"]

Kind = Literal["concept", "baseline"]
"""Whether a detector reads concepts of the SAE, or is what a sceptic would try first."""


class Row(NamedTuple):
    """One measurement of the shift benchmark."""

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
    kind: Kind
    """Of the detector."""
    metric: str
    """`auroc`, `fpr_at_95_tpr`, `tpr_at_1_fpr`, `auroc_difference`, `spearman_dose`, `rising_steps` and what the other files of
    this room measure; docs/report.md lists them all."""
    against: str
    """For differences, the detector whose value is subtracted; for added value, the baselines known already; else empty."""
    best_baseline: bool
    """For differences, whether `against` is the baseline with the highest AUROC of all on these very cases."""
    selection: str
    """How `detector` was chosen: `main` (on a validation suite), `post_hoc` (on these very cases), `out_of_fold` (on other
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

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return self._asdict()


class Place(NamedTuple):
    """What all measurements on the same cases share; each as in `Row`."""

    suite: str
    """Name of the suite."""
    family: str
    """Kind of shift."""
    dose: float
    """Strength of the shift."""
    negatives: str
    """Kind of clean text."""
    n_shifted: int
    """Shifted cases."""
    n_clean: int
    """Clean cases."""
    seed: int
    """Of the SAE."""


def row_at(
    place: Place,
    detector: str,
    kind: Kind,
    metric: str,
    box: Interval | Difference,
    *,
    against: str = "",
    best_baseline: bool = False,
    selection: str = "",
    remark: str = "",
) -> Row:
    """The row of a measurement with its interval; `remark` joins the method."""
    return Row(
        suite=place.suite,
        family=place.family,
        dose=place.dose,
        negatives=place.negatives,
        detector=detector,
        kind=kind,
        metric=metric,
        against=against,
        best_baseline=best_baseline,
        selection=selection,
        estimate=box.estimate,
        low=box.low,
        high=box.high,
        n_shifted=place.n_shifted,
        n_clean=place.n_clean,
        n_pairs=box.n,
        seed=place.seed,
        method=f"{box.method}; {remark}" if remark else box.method,
    )
