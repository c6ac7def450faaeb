"""Rows and answers arrive as they were sent, to the last bit; what contradicts itself is refused."""

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perimetry.monitor.engine import ConceptScored
from perimetry.monitor.frames import BadFrame, Decoder, Frame
from perimetry.monitor.wire import Answer, Asked, answers_of, asked_of, batch_frame, done_frame

IDS = st.lists(st.tuples(st.integers(0, 2**31 - 1), st.booleans()), max_size=12)
ASKED = st.builds(
    lambda pairs, words, tokens, concepts: Asked([i for i, _ in pairs], [c for _, c in pairs], words, tokens, concepts),
    IDS,
    st.integers(1, 99),
    st.booleans(),
    st.integers(0, 64),
)
CONCEPTS = st.builds(
    ConceptScored,
    st.integers(0, 10**6),
    st.none() | st.text(max_size=5),
    st.floats(allow_nan=False),
    st.integers(1, 99),
    st.integers(0, 99),
    st.lists(st.text(max_size=8), max_size=2).map(tuple),
)
ANSWERS = st.builds(
    Answer,
    problem=st.none() | st.just("non-finite"),
    score=st.floats(),
    p_value=st.floats(),
    group=st.text(max_size=8),
    fallback=st.booleans(),
    n=st.integers(0, 10**6),
    counted=st.lists(st.booleans(), max_size=9).map(tuple),
    token_scores=st.lists(st.floats(allow_nan=False), max_size=9).map(tuple),
    concepts=st.lists(CONCEPTS, max_size=3).map(tuple),
    summary=st.lists(st.floats(allow_nan=False), max_size=4).map(tuple),
)


def frame_of(data: bytes) -> Frame:
    (frame,) = Decoder().feed(data)
    return frame


def bits(answer: Answer) -> tuple[bytes, Answer]:
    """NaN equals itself by its bits only."""
    return struct.pack("dd", answer.score, answer.p_value), answer._replace(score=0.0, p_value=0.0)


@settings(deadline=None)
@given(st.lists(ASKED, max_size=5))
def test_rows_arrive(rows: list[Asked]) -> None:
    frame = frame_of(batch_frame(7, rows))
    assert (frame.kind, frame.header["batch"]) == ("batch", 7)
    assert asked_of(frame) == rows


@settings(deadline=None)
@given(st.lists(ANSWERS, max_size=5))
def test_answers_arrive(answers: list[Answer]) -> None:
    frame = frame_of(done_frame(7, answers, 0.25))
    assert (frame.kind, frame.header["batch"], list(frame.arrays["seconds"])) == ("done", 7, [0.25])
    assert [bits(a) for a in answers_of(frame)] == [bits(a) for a in answers]


def test_what_does_not_add_up_is_refused() -> None:
    batch = frame_of(batch_frame(1, [Asked([1, 2], [True, False], 1)]))
    done = frame_of(done_frame(1, [Answer(counted=(True,), token_scores=(1.0,), n=1)], 0.1))
    batch.header["rows"][0]["length"] = 3
    done.header["rows"][0]["scored"] = 0
    with pytest.raises(BadFrame, match="2 values came for 1 rows that say to have 3"):
        asked_of(batch)
    with pytest.raises(BadFrame):
        answers_of(done)
    for part in ("rows", "x"):
        with pytest.raises(BadFrame):
            asked_of(Frame({part: [{}]}, {}))
        with pytest.raises(BadFrame):
            answers_of(Frame({part: [{}]}, {}))
