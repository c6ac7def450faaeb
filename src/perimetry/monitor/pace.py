"""How fast the worker is, and hence whether a deadline can be met."""

from typing import Final, final

__all__ = ["Pace"]

_KEPT: Final = 0.9
"""Weight of an earlier batch, for each batch that came after it."""
_SPREAD: Final = 1e-3
"""Least relative variance of the batch sizes from which a cost per token is taken."""


@final
class Pace:
    """Seconds of a batch as a fixed part and a part for each padded token, by exponentially weighted least squares.

    A plain mean of tokens per second would call a worker slow that was only asked for small batches, and refuse the first rush.

    >>> pace = Pace()
    >>> pace.batch(100), pace.tokens_per_second
    (None, None)
    >>> pace.observe(100, 0.2)
    >>> pace.observe(300, 0.4)
    >>> round(pace.batch(200), 6)
    0.3
    """

    def __init__(self) -> None:
        self._n = self._x = self._y = self._xx = self._xy = 0.0

    def observe(self, tokens: int, seconds: float) -> None:
        """A batch of so many padded tokens took so long in the worker."""
        new = (1.0, float(tokens), seconds, float(tokens) ** 2, tokens * seconds)
        old = (self._n, self._x, self._y, self._xx, self._xy)
        self._n, self._x, self._y, self._xx, self._xy = (_KEPT * a + b for a, b in zip(old, new, strict=True))

    @property
    def tokens_per_second(self) -> float | None:
        """Padded tokens a second of late; None before the first batch."""
        return self._x / self._y if self._y > 0 else None

    def _costs(self) -> tuple[float, float] | None:
        """Seconds of a batch, and of each token; None before the first batch."""
        if self._n == 0:
            return None
        spread = self._n * self._xx - self._x**2
        # Batches of one size cannot tell the two apart: all of it counts as fixed, since a refusal wants certainty.
        each = (self._n * self._xy - self._x * self._y) / spread if spread > _SPREAD * self._n * self._xx else 0.0
        fixed = (self._y - max(each, 0.0) * self._x) / self._n
        return (0.0, self._y / self._x) if fixed < 0 else (fixed, max(each, 0.0))

    def batch(self, tokens: int) -> float | None:
        """Expected seconds of one batch of so many padded tokens; None before the first batch."""
        costs = self._costs()
        return None if costs is None else costs[0] + costs[1] * tokens

    def work(self, batches: int, tokens: int) -> float:
        """Expected seconds of several batches of so many padded tokens in all; 0 before the first batch."""
        costs = self._costs()
        return 0.0 if costs is None else batches * costs[0] + tokens * costs[1]
