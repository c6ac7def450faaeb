"""Only whole, finite answers become readings, and the tokens of a reading are its text."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perimetry.monitor.encoding import Encoded
from perimetry.monitor.engine import ConceptScored, Row
from perimetry.monitor.problems import Problem
from perimetry.monitor.readings import reading_of, tiles
from perimetry.monitor.wire import Answer

ROW = Row((("", "a b"),), "concepts")
ENCODED = Encoded("a b", [0, 1, 2], [False, True, True], [None, (0, 1), (1, 3)], 2)
CONCEPT = ConceptScored(4, None, 1.5, 1, 2, ("«b»",))
ANSWER = Answer(None, 0.5, 0.25, "pooled", False, 9, (False, True, True), (0.5, 0.75), (CONCEPT,))


def test_a_whole_answer_is_a_reading() -> None:
    found = reading_of(ROW, ENCODED, ANSWER, queue_ms=1.0, forward_ms=2.0)
    assert (found.score, found.p_value, found.n_calibration, found.n_tokens, found.scored_tokens) == (
        0.5,
        0.25,
        9,
        3,
        2,
    )
    assert [(t.start, t.end, t.text, t.special, t.score) for t in found.tokens] == [
        (0, 0, "", True, None),
        (0, 1, "a", False, 0.5),
        (1, 3, " b", False, 0.75),
    ]
    assert found.concepts == (CONCEPT,)
    assert (found.queue_ms, found.forward_ms) == (1.0, 2.0)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_not_finite_is_never_a_reading(number: float) -> None:
    for answer in (
        ANSWER._replace(score=number),
        ANSWER._replace(p_value=number),
        ANSWER._replace(token_scores=(0.5, number)),
        ANSWER._replace(concepts=(CONCEPT._replace(energy=number),)),
    ):
        with pytest.raises(Problem, match="500 non-finite"):
            reading_of(ROW, ENCODED, answer)


@pytest.mark.parametrize(
    "change",
    [
        {"p_value": 0.0},
        {"p_value": 1.5},
        {"p_value": -0.1},
        {"counted": (True, True)},
        {"counted": (False, False, False), "token_scores": ()},
        {"token_scores": (0.5,)},
        {"n": 0},
    ],
)
def test_an_answer_that_contradicts_itself_is_a_fault(change: dict[str, object]) -> None:
    with pytest.raises(Problem, match="500 internal"):
        reading_of(ROW, ENCODED, ANSWER._replace(**change))


def test_what_the_worker_refuses_is_refused() -> None:
    with pytest.raises(Problem, match="503 out-of-memory"):
        reading_of(ROW, ENCODED, Answer(problem="out-of-memory"))


SPANS = st.lists(st.none() | st.tuples(st.integers(0, 12), st.integers(0, 4)), max_size=12)


@settings(deadline=None)
@given(st.text(min_size=1, max_size=12), SPANS)
def test_tiles_are_the_text_whatever_the_spans(text: str, drawn: list[tuple[int, int] | None]) -> None:
    spans = [None if s is None else (min(s[0], len(text)), min(sum(s), len(text))) for s in drawn]
    found = tiles(Encoded(text, [0] * len(spans), [True] * len(spans), spans, 1))
    shown = "".join(text[a:b] for a, b in found)
    assert shown == (text if any(s is not None for s in spans) else "")
    assert all(a <= b for a, b in found)
    assert all(a == b for (a, b), span in zip(found, spans, strict=True) if span is None)
