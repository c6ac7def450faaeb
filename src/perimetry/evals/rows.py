"""A flat row: one measurement with its interval, counts, seed and arm."""

from typing import Any, Literal, NamedTuple

__all__ = ["Kind", "Row"]

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
