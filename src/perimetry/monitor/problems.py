"""What the service answers when it cannot answer: one table of problems (RFC 9457).

A detail never repeats what came in: it may be a prompt.
"""

from collections.abc import Mapping
from typing import Any, Final

__all__ = ["PROBLEMS", "Problem"]

PROBLEMS: Final[Mapping[str, tuple[int, str]]] = {
    "malformed": (400, "The body is not JSON."),
    "unauthorized": (401, "A token is wanted."),
    "forbidden": (403, "This token, or this origin, may not do that."),
    "not-found": (404, "There is nothing at this address."),
    "unknown-model": (404, "Another model than the one that is watched."),
    "unknown-detector": (404, "Another detector than the one that is configured."),
    "method": (405, "This address takes another method."),
    "slow-body": (408, "The body did not come in time."),
    "too-large": (413, "The body is larger than the limit."),
    "media-type": (415, "Plain JSON is wanted."),
    "misdirected": (421, "This host name is not served."),
    "invalid": (422, "The body does not have the form that is wanted."),
    "too-many-tokens": (422, "More tokens than the limit."),
    "nothing-to-score": (422, "No token of the text can be scored."),
    "alpha-unreachable": (422, "The calibration is too small for this false-alarm rate."),
    "rate-limited": (429, "More requests than the limit of this key."),
    "headers": (431, "More or longer headers than the limit."),
    "internal": (500, "A fault of the service."),
    "non-finite": (500, "The model gave no finite numbers; there is no reading."),
    "upstream": (502, "The model behind the proxy did not answer."),
    "queue-full": (503, "The queue is full."),
    "loading": (503, "The model is being loaded."),
    "restarting": (503, "The model is being started again."),
    "out-of-memory": (503, "The memory did not suffice."),
    "draining": (503, "The service is stopping."),
    "deadline-unreachable": (503, "The deadline cannot be met."),
    "subscribers": (503, "No more listeners are taken."),
    "deadline": (504, "The deadline has passed."),
}
"""Status and title by the suffix of the type."""


class Problem(Exception):
    """An answer that is a refusal. Raised anywhere in the service, turned into `application/problem+json` at its edge."""

    def __init__(
        self,
        kind: str,
        detail: str = "",
        *,
        retry_after_s: int | None = None,
        errors: list[dict[str, Any]] | None = None,
        checks: Mapping[str, str] | None = None,
    ) -> None:
        """`kind`: of `PROBLEMS`. A status of 429 or 503 always says when to try again: after a second if nothing is given."""
        self.status, self.title = PROBLEMS[kind]
        if retry_after_s is None and self.status in (429, 503):
            retry_after_s = 1
        self.kind, self.detail, self.retry_after_s = kind, detail, retry_after_s
        self.errors, self.checks = errors, checks
        super().__init__(f"{self.status} {kind}: {detail or self.title}")

    def document(self, instance: str) -> dict[str, Any]:
        """The body. `instance`: what the request is known by."""
        found: dict[str, Any] = {
            "type": f"urn:perimetry:problem:{self.kind}",
            "title": self.title,
            "status": self.status,
            "instance": instance,
        }
        more = {
            "detail": self.detail or None,
            "errors": self.errors,
            "retry_after_s": self.retry_after_s,
            "checks": None if self.checks is None else dict(self.checks),
        }
        return found | {name: value for name, value in more.items() if value is not None}
