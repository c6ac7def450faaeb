"""Which rows go together: the most urgent first, like lengths, little padding, bounded size."""

import math

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.monitor.clock import ticket_of

from perimetry.monitor.batcher import Batcher
from perimetry.monitor.config import BatchConfig
from perimetry.monitor.rows import Room, Ticket

ROOM = (10**6, 10**9)


def filled(given_rows: list[tuple[int, float]], /, **settings: object) -> tuple[Batcher, list[Ticket]]:
    room, batcher = Room(*ROOM), Batcher(BatchConfig.model_validate(settings))
    tickets = [ticket_of(tokens, deadline, room) for tokens, deadline in given_rows]
    for at, ticket in enumerate(tickets):
        batcher.add(ticket, at / 1000)
    return batcher, tickets


def test_the_earliest_deadline_leads_and_like_lengths_follow() -> None:
    batcher, tickets = filled([(100, 9.0), (10, 1.0), (98, 5.0), (11, 8.0), (12, 3.0)])
    assert set(batcher.take()) == {tickets[1], tickets[3], tickets[4]}
    assert set(batcher.take()) == {tickets[0], tickets[2]}
    assert batcher.take() == []
    assert (len(batcher), batcher.tokens, batcher.oldest) == (0, 0, math.inf)


def test_the_urgent_row_goes_first_however_lonely() -> None:
    batcher, tickets = filled([(10, 5.0)] * 8 + [(4000, 1.0)])
    assert batcher.take() == [tickets[-1]]


ROWS = st.lists(st.tuples(st.integers(1, 300), st.floats(0, 100)), min_size=1, max_size=60)


@settings(deadline=None)
@given(ROWS, st.integers(1, 8), st.integers(300, 2000), st.sampled_from([0.0, 0.1, 0.25, 0.5]))
def test_every_batch_keeps_the_rules_and_every_row_goes_once(
    rows: list[tuple[int, float]], most: int, budget: int, padding: float
) -> None:
    batcher, tickets = filled(rows, rows=most, tokens=budget, padding=padding)
    gone: list[Ticket] = []
    while batcher:
        least = min(t.deadline for t in batcher.tickets)
        batch = batcher.take()
        lengths = [t.tokens for t in batch]
        cost = len(batch) * max(lengths)
        assert batch[0].deadline == least
        assert len(batch) <= most
        assert cost <= budget
        assert cost - sum(lengths) <= padding * cost
        gone += batch
    assert sorted(map(id, gone)) == sorted(map(id, tickets))
    assert batcher.tokens == 0


@settings(deadline=None)
@given(ROWS, st.data())
def test_rows_taken_out_never_come_and_the_others_all_do(rows: list[tuple[int, float]], data: st.DataObject) -> None:
    batcher, tickets = filled(rows)
    out = set(data.draw(st.lists(st.sampled_from(tickets), unique=True)))
    for ticket in out:
        batcher.remove(ticket)
        batcher.remove(ticket)
        assert ticket not in batcher
    assert batcher.tokens == sum(t.tokens for t in tickets if t not in out)
    gone: set[Ticket] = set()
    while batcher:
        gone |= set(batcher.take())
    assert gone == set(tickets) - out


def test_the_dead_do_not_pile_up() -> None:
    batcher, _ = filled([])
    room = Room(*ROOM)
    for i in range(10_000):
        ticket = ticket_of(5, float(i), room)
        batcher.add(ticket, 0.0)
        batcher.remove(ticket)
    assert len(batcher._by_deadline) <= 16


def test_rows_that_run_alone_are_not_counted_as_padded() -> None:
    batcher, tickets = filled([(10, 1.0), (200, 2.0), (300, 3.0)], mode="exact", tokens=510)
    assert batcher.cost([10, 200, 300]) == 510
    assert set(batcher.take()) == set(tickets)


def test_full_by_rows_or_by_tokens() -> None:
    assert filled([(5, 1.0)] * 4, rows=4)[0].full
    assert not filled([(5, 1.0)] * 3, rows=4)[0].full
    assert filled([(300, 1.0)] * 2, tokens=600)[0].full
    assert filled([(5, 1.0)] * 9, rows=4)[0].batches == 3
    assert filled([(100, 1.0)] * 9, tokens=300)[0].batches == 3
