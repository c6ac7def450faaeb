"""What a watched generation says of each row of its batch."""

import math
from typing import Final, NamedTuple

from jaxtyping import Float
from torch import Tensor

from perimetry.shift.reading import Reading

__all__ = ["WINDOW", "ResponseReading", "WatchedRow", "peak_of", "running_means"]

WINDOW: Final = 8
"""Tokens of a running score, as many as the pooling `max` takes."""


class ResponseReading(NamedTuple):
    """How far a response lies outside the clean responses of a response calibration."""

    peak: float | None
    """Largest running score within the horizon; None where the response ended before a token counted."""
    p_value: float
    """In [1 / (n + 1), 1]; it falls while the response grows, and the flag holds at the chosen rate whenever it is read."""
    flagged: bool
    """Whether `p_value` is at most the `alpha` of the prompt's reading."""
    horizon: int
    """Response tokens that are judged; later ones are scored and change no p-value."""


class WatchedRow(NamedTuple):
    """One row of a generation, as far as it has been scored."""

    prompt: Reading
    """The reading of the prompt, as `Meter.score` gives it; its p-value is of the prompt alone."""
    scores: tuple[float | None, ...]
    """Score of each token of prompt and response, higher = further; None where it does not count. The last sampled token never
    passed the model and has none: there are `prompt_tokens` + `generated` - 1."""
    prompt_tokens: int
    """Tokens of the prompt, BOS and template included, padding not."""
    generated: int
    """Tokens of the response, an end of text included, padding after it not."""
    running_score: float
    """Main score of prompt and response so far, pooled as the meter does; not calibrated."""
    running: tuple[float, ...]
    """Mean score of each eight response tokens in a row that count, in order; not calibrated. Of a response that ended with
    fewer: the mean of those."""
    response: ResponseReading | None
    """Against clean responses; None without a response calibration, and before eight tokens are scored."""
    flagged: bool
    """Whether the prompt or the response is flagged."""
    stopped: bool
    """Whether the watch stopped the row."""
    ended: bool
    """Whether the model ended the response itself."""
    sampling: str
    """How tokens were chosen, as JSON."""

    def of_response(self) -> tuple[float | None, ...]:
        """The scores of the response's tokens."""
        return self.scores[self.prompt_tokens :]


def running_means(scores: Float[Tensor, " token"], *, closed: bool) -> Float[Tensor, " mean"]:
    """Mean of each eight tokens in a row; of all where there are fewer and no more will come (`closed`), else nothing.

    The largest of them is the pooling `max`.

    >>> import torch
    >>> running_means(torch.arange(9.0), closed=False), running_means(torch.tensor([1.0, 2.0]), closed=True)
    (tensor([3.5000, 4.5000]), tensor([1.5000]))
    """
    if scores.numel() >= WINDOW:
        return scores.unfold(0, WINDOW, 1).mean(1)
    return scores.mean()[None] if closed and scores.numel() else scores[:0]


def peak_of(running: tuple[float, ...]) -> float:
    """The largest running score; minus infinity where there is none.

    >>> peak_of((1.0, 3.0, 2.0)), peak_of(())
    (3.0, -inf)
    """
    return max(running, default=-math.inf)
