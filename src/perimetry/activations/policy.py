"""Which positions of a prompt count: declared once, stored in every artifact, enforced at inference."""

from typing import Literal

from perimetry.config import Config
from perimetry.errors import PolicyMismatch

__all__ = ["TokenPolicy"]


class TokenPolicy(Config):
    """The positions that count. Padding never does."""

    prepend_bos: bool = True
    """Put the model's beginning-of-sequence token first where it has one. It takes the attention sink upon itself."""
    exclude_special: bool = True
    """Special tokens (BOS included) do not count."""
    template: Literal["none", "chat"] = "none"
    """`chat` wraps the text as the user's turn of the model's chat template; the template's own tokens do not count."""
    sink_ratio: float = 10.0
    """A position is an attention sink when its residual norm exceeds this many times the clean median norm."""
    max_norm: float | None = None
    """The norm above which a position does not count: `sink_ratio` times the median, fitted once; None before that."""

    def fitted(self, median_norm: float) -> "TokenPolicy":
        """The policy with `max_norm` set from the median residual norm of clean text (`sink_ratio` times it)."""
        return self.model_copy(update={"max_norm": self.sink_ratio * median_norm})

    def require_same(self, other: "TokenPolicy", what: str) -> None:
        """Raise `PolicyMismatch` naming every field in which `other`, the policy of `what`, differs from this one."""
        mine, theirs = self.model_dump(), other.model_dump()
        different = [f"{k} is {theirs[k]!r}, wanted {mine[k]!r}" for k in mine if mine[k] != theirs[k]]
        if different:
            raise PolicyMismatch(
                f"the token policy of {what} is another one: {'; '.join(different)}; use the policy that the artifact "
                "was made with"
            )
