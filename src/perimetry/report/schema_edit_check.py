"""The content of the `results.json` of a check of edits, checked before a line of HTML is written."""

from typing import Any, Literal

from perimetry.config import Config
from perimetry.report.schema import MadeResults, Meaning, checked

__all__ = ["EDIT_CHECK", "CheckedEdit", "CheckedRing", "EditCheckResults", "EditRow", "RingFlag", "parse_edit_check"]

EDIT_CHECK = "edit-check"
"""What the key `kind` of such a file says."""


class EditRow(Config):
    """One number."""

    edit: str
    """What was edited; `all` for the mean over the edits of a family."""
    family: str
    """Kind of fact."""
    arm: Literal["edit", "drawn"]
    """The edit, or updates of random direction with the same norm."""
    metric: str
    """Name of the number."""
    probe: str
    """Ring, facts or text that was looked at."""
    before: float
    """Of the model as given."""
    after: float
    """Of the edited one."""
    estimate: float
    """What changed."""
    low: float
    """Lower end of its interval."""
    high: float
    """Upper end."""
    n: int
    """Texts, facts, draws or edits that it is a mean of."""
    seed: int
    """Of what was drawn."""
    method: str
    """How the interval was made."""


class RingFlag(Config):
    """What a ring shows of an edit."""

    ring: str
    """Its name."""
    own: bool
    """Whether the edited fact is of that ring."""
    flag: Literal["none", "norm blow-up", "loss of structure", "both"]
    """In a word."""
    times_drawn: float | None
    """R over that of drawn updates; None where these moved nothing."""
    by_size: float
    """Share of R squared that a mere change of size makes."""


class CheckedEdit(Config):
    """One edit."""

    edit: str
    """In words."""
    family: str
    """Kind of fact."""
    size: float
    """Norm of the update over that of the weights."""
    p_target: float
    """Probability of the new answer afterwards."""
    rings: tuple[RingFlag, ...]
    """What each ring shows."""


class CheckedRing(Config):
    """A ring as a probe of this model."""

    ring: str
    """Its name."""
    words: int
    """How many it has."""
    layers: tuple[int, ...]
    """Where its words stand in order."""
    orders: tuple[float, ...]
    """Rank correlation with cyclic order at every layer that was asked about."""
    refusal: str
    """Why it is not read; empty where it is."""


class EditCheckResults(MadeResults):
    """A check of edits."""

    kind: Literal["edit-check"]
    """Tells such a file from the others."""
    rows: tuple[EditRow, ...]
    """Measurements, flat."""
    edits: tuple[CheckedEdit, ...]
    """Each edit in a word."""
    rings: tuple[CheckedRing, ...]
    """Each ring."""
    metrics: dict[str, Meaning]
    """What the numbers mean."""


def parse_edit_check(results: dict[str, Any]) -> EditCheckResults:
    """The results, checked. Errors: `ConfigError` that names the first entries that are wrong."""
    return checked(EditCheckResults, results, "these results of a check of edits")
