"""What the service and its worker say to each other: rows one way, answers the other. No text of a prompt travels, only token ids."""

import array
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from perimetry.monitor.engine import ConceptScored
from perimetry.monitor.frames import BadFrame, Frame, encode

__all__ = ["Answer", "Asked", "answers_of", "asked_of", "batch_frame", "done_frame"]


class Asked(NamedTuple):
    """A row as the worker gets it."""

    ids: list[int]
    """Vocabulary ids, with what the token policy adds."""
    countable: list[bool]
    """True where a position counts by the policy."""
    words: int
    """White-space separated words of the text."""
    tokens: bool = False
    """Whether the score of each token is wanted."""
    concepts: int = 0
    """How many concepts are wanted."""


class Answer(NamedTuple):
    """What the worker found of a row."""

    problem: str | None = None
    """Kind of the `Problem` that there is instead of a reading, or None; then nothing else of this counts."""
    score: float = 0.0
    """As in `Scored`; not yet known to be finite."""
    p_value: float = 1.0
    """As in `Scored`."""
    group: str = ""
    """As in `Scored`."""
    fallback: bool = False
    """As in `Scored`."""
    n: int = 0
    """Calibration prompts that the p-value was taken against."""
    counted: tuple[bool, ...] = ()
    """For each token, whether it counted."""
    token_scores: tuple[float, ...] = ()
    """Score of each token that counted, where they were asked for."""
    concepts: tuple[ConceptScored, ...] = ()
    """Loudest first, where they were asked for."""
    summary: tuple[float, ...] = ()
    """What drift is judged by, as in `Baseline`."""


def batch_frame(number: int, rows: Sequence[Asked]) -> bytes:
    """A batch for the worker."""
    listed = [{"length": len(r.ids), "words": r.words, "tokens": r.tokens, "concepts": r.concepts} for r in rows]
    arrays = {
        "ids": array.array("i", [i for r in rows for i in r.ids]),
        "countable": array.array("B", [int(c) for r in rows for c in r.countable]),
    }
    return encode({"kind": "batch", "batch": number, "rows": listed}, arrays)


def _cut(values: Sequence[Any], lengths: Sequence[int]) -> list[Sequence[Any]]:
    """The parts of so many values each, in order. Errors: `BadFrame` where they are not all of them."""
    if sum(lengths) != len(values) or min(lengths, default=0) < 0:
        raise BadFrame(f"{len(values)} values came for {len(lengths)} rows that say to have {sum(lengths)}")
    found, start = [], 0
    for length in lengths:
        found.append(values[start : start + length])
        start += length
    return found


def asked_of(frame: Frame) -> list[Asked]:
    """The rows of a batch. Errors: `BadFrame`."""
    try:
        lengths = [int(row["length"]) for row in frame.header["rows"]]
        ids, countable = _cut(frame.arrays["ids"], lengths), _cut(frame.arrays["countable"], lengths)
        return [
            Asked(list(i), [bool(x) for x in c], int(row["words"]), bool(row["tokens"]), int(row["concepts"]))
            for row, i, c in zip(frame.header["rows"], ids, countable, strict=True)
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise BadFrame(f"a batch lacks what makes it one ({type(error).__name__})") from error


def done_frame(number: int, answers: Sequence[Answer], seconds: float) -> bytes:
    """Answers for the service. Scores travel in arrays, to the last bit, NaN included."""
    rows: list[Mapping[str, Any]] = [
        {
            "problem": a.problem,
            "group": a.group,
            "fallback": a.fallback,
            "n": a.n,
            "length": len(a.counted),
            "scored": len(a.token_scores),
            "concepts": [(c.latent, c.label, c.n_tokens, c.max_token, c.contexts) for c in a.concepts],
            "summary": len(a.summary),
        }
        for a in answers
    ]
    arrays = {
        "scores": array.array("d", [a.score for a in answers]),
        "p_values": array.array("d", [a.p_value for a in answers]),
        "counted": array.array("B", [int(c) for a in answers for c in a.counted]),
        "token_scores": array.array("d", [s for a in answers for s in a.token_scores]),
        "energies": array.array("d", [c.energy for a in answers for c in a.concepts]),
        "summaries": array.array("d", [s for a in answers for s in a.summary]),
        "seconds": array.array("d", [seconds]),
    }
    return encode({"kind": "done", "batch": number, "rows": rows}, arrays)


def answers_of(frame: Frame) -> list[Answer]:
    """The answers of a batch. Errors: `BadFrame`."""
    try:
        rows, arrays = frame.header["rows"], frame.arrays
        counted = _cut(arrays["counted"], [int(row["length"]) for row in rows])
        scores = _cut(arrays["token_scores"], [int(row["scored"]) for row in rows])
        energies = _cut(arrays["energies"], [len(row["concepts"]) for row in rows])
        summaries = _cut(arrays["summaries"], [int(row["summary"]) for row in rows])
        found: list[Answer] = []
        for row, score, p, mine, hot, loud, short in zip(
            rows, arrays["scores"], arrays["p_values"], counted, scores, energies, summaries, strict=True
        ):
            concepts = tuple(
                ConceptScored(int(index), label, float(energy), int(count), int(place), tuple(contexts))
                for (index, label, count, place, contexts), energy in zip(row["concepts"], loud, strict=True)
            )
            kept, problem = tuple(bool(x) for x in mine), row["problem"]
            plain = (str(row["group"]), bool(row["fallback"]), int(row["n"]))
            found.append(Answer(problem, float(score), float(p), *plain, kept, tuple(hot), concepts, tuple(short)))
        return found
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BadFrame(f"an answer lacks what makes it one ({type(error).__name__})") from error
