"""From an answer of the worker to the reading that the service gives. What is not finite never becomes one."""

import math

from perimetry.monitor.baseline import FLOAT_MOST
from perimetry.monitor.encoding import Encoded
from perimetry.monitor.engine import Row, Scored, TokenScored
from perimetry.monitor.problems import Problem
from perimetry.monitor.wire import Answer

__all__ = ["reading_of", "tiles"]


def tiles(encoded: Encoded) -> list[tuple[int, int]]:
    """The characters that each token is shown with: side by side, so that all of them together are the text.

    A token that is not of the text gets none. What lies between two tokens goes to the later one, what follows the last to the last, and a character
    that several tokens share to the first of them.

    >>> tiles(Encoded("a bé", [0, 1, 2, 3, 4], [True] * 5, [None, (0, 1), (2, 3), (3, 4), (3, 4)], 2))
    [(0, 0), (0, 1), (1, 3), (3, 4), (4, 4)]
    """
    found: list[tuple[int, int]] = []
    cursor, last = 0, max((i for i, span in enumerate(encoded.spans) if span), default=-1)
    for at, span in enumerate(encoded.spans):
        end = cursor if span is None else len(encoded.text) if at == last else max(cursor, span[1])
        found.append((cursor, end))
        cursor = end
    return found


def reading_of(row: Row, encoded: Encoded, answer: Answer, *, queue_ms: float = 0.0, forward_ms: float = 0.0) -> Scored:
    """The reading of a row. Errors: `Problem` of `non-finite` or `internal`, and of whatever the worker says."""
    if answer.problem is not None:
        raise Problem(answer.problem)
    numbers = (answer.score, answer.p_value, *answer.token_scores, *(c.energy for c in answer.concepts))
    if not all(math.isfinite(number) for number in numbers):
        raise Problem("non-finite")
    counted, wanted = sum(answer.counted), row.detail != "none"
    whole = len(answer.counted) == len(encoded.ids) and counted > 0 and answer.n > 0
    if not whole or not 0 < answer.p_value <= 1 or len(answer.token_scores) != (counted if wanted else 0):
        raise Problem("internal", "The worker gave an answer that contradicts itself.")
    return Scored(
        score=answer.score,
        p_value=answer.p_value,
        group=answer.group,
        fallback=answer.fallback,
        n_calibration=answer.n,
        n_tokens=len(encoded.ids),
        scored_tokens=counted,
        tokens=_tokens(encoded, answer) if wanted else (),
        concepts=answer.concepts,
        queue_ms=queue_ms,
        forward_ms=forward_ms,
        # Drift can do without it, so that a summary beyond 32 bits costs the row nothing.
        summary=answer.summary if answer.summary and all(abs(x) < FLOAT_MOST for x in answer.summary) else None,
    )


def _tokens(encoded: Encoded, answer: Answer) -> tuple[TokenScored, ...]:
    scores = iter(answer.token_scores)
    return tuple(
        TokenScored(begin, end, encoded.text[begin:end], not counts, next(scores) if counts else None)
        for (begin, end), counts in zip(tiles(encoded), answer.counted, strict=True)
    )
