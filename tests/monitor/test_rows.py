"""Room is given back exactly once, whatever happens to a row and in whatever order."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.monitor.clock import ticket_of

from perimetry.monitor.encoding import Encoded
from perimetry.monitor.engine import Row
from perimetry.monitor.problems import Problem
from perimetry.monitor.rows import Room, Ticket

ENDS = st.sampled_from(["ok", "expired", "cancelled", "failed"])


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 50), st.lists(ENDS, min_size=1, max_size=4)), max_size=20))
def test_room_comes_back_once(rows: list[tuple[int, list[str]]]) -> None:
    room = Room(100, 10_000)
    tickets = [(ticket_of(tokens, 1.0, room), ends) for tokens, ends in rows]
    heard: list[Ticket] = []
    assert (room.rows, room.tokens) == (len(rows), sum(tokens for tokens, _ in rows))
    for ticket, ends in tickets:
        ticket.listeners.append(heard.append)
        assert [ticket.settle(end) for end in ends] == [True, *[False] * (len(ends) - 1)]  # pyright: ignore[reportArgumentType]
        assert ticket.outcome == ends[0]
    assert (room.rows, room.tokens) == (0, 0)
    assert heard == [ticket for ticket, _ in tickets]


def test_rows_are_let_in_all_or_none() -> None:
    room = Room(3, 100)
    room.enter(2)
    with pytest.raises(Problem, match="503 queue-full: 2 of 3 rows are taken and 2 more came"):
        room.enter(2)
    room.enter(1)
    assert room.rows == 3


def test_tokens_beyond_the_room_are_refused_and_not_counted() -> None:
    room = Room(3, 100)
    room.enter(1)
    room.fill(60)
    with pytest.raises(Problem, match="60 of 100 tokens"):
        room.fill(41)
    assert room.tokens == 60


def test_a_row_that_ends_before_it_is_tokenised_gives_back_its_place_only() -> None:
    room = Room(2, 10)
    room.enter(2)
    room.fill(7)
    first, second = (Ticket(Row((("", "x"),)), 1.0, room) for _ in range(2))
    first.tokenised(Encoded("x", [0] * 7, [True] * 7, [None] * 7, 1))
    second.settle("cancelled")
    assert (room.rows, room.tokens) == (1, 7)
    first.settle("failed", problem=Problem("internal"))
    assert (room.rows, room.tokens) == (0, 0)


def test_leaving_twice_is_a_bug_and_not_a_number() -> None:
    room = Room(2, 10)
    with pytest.raises(AssertionError):
        room.leave(0)
