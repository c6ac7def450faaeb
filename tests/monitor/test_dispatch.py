"""When batches go, what happens to rows whose deadline passes, and what a stuck worker costs; all on a clock turned by hand."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.monitor.clock import FakeTimers, FakeWire, ticket_of

from perimetry.config import over
from perimetry.monitor.config import MonitorConfig
from perimetry.monitor.dispatch import BatchDone, Dispatcher
from perimetry.monitor.rows import Room, Ticket


class Scene:
    def __init__(self, **settings: Any) -> None:
        plain = {"batch": {"rows": 4}, "time": {"batch_hard_ms": 2000}}
        self.timers, self.wire, self.room = FakeTimers(), FakeWire(), Room(1000, 10**6)
        self.seen: list[BatchDone] = []
        config = MonitorConfig.model_validate(over(plain, settings))
        self.dispatcher = Dispatcher(config, self.timers, self.seen.append)
        self.dispatcher.up(self.wire)

    def add(self, tokens: int = 10, deadline: float = 100.0) -> Ticket:
        ticket = ticket_of(tokens, deadline, self.room)
        self.dispatcher.add(ticket)
        self.dispatcher.pump()
        return ticket

    def finish(self, number: int, seconds: float) -> None:
        for ticket in self.dispatcher.done(number, seconds):
            ticket.settle("ok")
        self.dispatcher.pump()


def test_a_lone_row_waits_three_milliseconds() -> None:
    scene = Scene()
    ticket = scene.add()
    scene.timers.turn(0.0029)
    assert scene.wire.sent == []
    scene.timers.turn(0.003)
    assert scene.wire.sent == [(1, [ticket])]


def test_a_row_to_which_nobody_can_come_does_not_wait() -> None:
    scene = Scene()
    coming = [True]
    scene.dispatcher = Dispatcher(MonitorConfig(), scene.timers, company=lambda: coming[0])
    scene.dispatcher.up(scene.wire)
    first = scene.add()
    assert scene.wire.sent == []
    coming[0] = False
    second = scene.add()
    assert scene.wire.sent == [(1, [first, second])]
    scene.add()
    assert len(scene.wire.sent) == 1, "behind a batch that runs the next one still waits for company"


def test_a_full_batch_does_not_wait() -> None:
    scene = Scene()
    tickets = [scene.add() for _ in range(4)]
    assert [(n, set(rows)) for n, rows in scene.wire.sent] == [(1, set(tickets))]


def test_one_runs_and_one_is_staged_and_no_more() -> None:
    scene = Scene()
    for _ in range(12):
        scene.add()
    assert [n for n, _ in scene.wire.sent] == [1, 2]
    scene.finish(1, 0.1)
    assert [n for n, _ in scene.wire.sent] == [1, 2, 3]
    assert len(scene.seen) == 1
    assert scene.seen[0].rows == 4


def test_a_batch_that_is_not_full_is_staged_when_the_one_before_nears_its_end() -> None:
    scene = Scene()
    scene.add()
    scene.timers.turn(0.003)
    scene.timers.turn(0.103)
    scene.finish(1, 0.1)
    scene.add()
    scene.timers.turn(0.106)
    assert len(scene.wire.sent) == 2
    scene.add()
    scene.timers.turn(0.2029)
    assert len(scene.wire.sent) == 2
    scene.timers.turn(0.2031)
    assert len(scene.wire.sent) == 3


def test_a_row_that_dies_in_the_queue_is_never_sent() -> None:
    scene = Scene()
    ticket = scene.add()
    ticket.settle("expired")
    scene.timers.turn(1.0)
    assert scene.wire.sent == []
    assert scene.room.rows == 0


def test_a_shared_batch_goes_on_without_the_dead_and_stops_without_the_living() -> None:
    scene = Scene()
    tickets = [scene.add() for _ in range(4)]
    for ticket in tickets[:3]:
        assert ticket.settle("expired")
    assert scene.room.rows == 1
    assert scene.wire.aborted == []
    tickets[3].settle("cancelled")
    assert scene.wire.aborted == [1]
    assert scene.dispatcher.done(1, 0.5) == scene.wire.sent[0][1]
    assert scene.dispatcher.pace.batch(1) is None


def test_what_comes_back_late_or_twice_belongs_to_nobody() -> None:
    scene = Scene()
    [scene.add() for _ in range(4)]
    assert scene.dispatcher.done(7, 0.1) == []
    assert len(scene.dispatcher.done(1, 0.1)) == 4
    assert scene.dispatcher.done(1, 0.1) == []
    scene.dispatcher.down("restarting", "", 1)
    scene.dispatcher.up(scene.wire)
    [scene.add() for _ in range(4)]
    assert [n for n, _ in scene.wire.sent] == [1, 2]


def test_a_batch_that_runs_too_long_costs_the_worker_its_life() -> None:
    scene = Scene()
    running = [scene.add() for _ in range(4)]
    staged = [scene.add() for _ in range(4)]
    waiting = scene.add()
    scene.timers.turn(1.9)
    assert scene.wire.killed == []
    scene.timers.turn(2.0)
    assert scene.wire.killed == ["hung"]
    assert {t.problem.kind for t in running if t.problem} == {"deadline"}
    scene.dispatcher.down("restarting", "", 3)
    for ticket in [*staged, waiting]:
        assert ticket.problem is not None
        assert (ticket.problem.kind, ticket.problem.retry_after_s) == ("restarting", 3)
    assert scene.room.rows == 0


def test_the_watchdog_counts_from_when_a_batch_begins() -> None:
    scene = Scene()
    [scene.add() for _ in range(8)]
    scene.timers.turn(1.9)
    scene.finish(1, 1.9)
    scene.timers.turn(3.8)
    assert scene.wire.killed == []
    scene.timers.turn(3.9)
    assert scene.wire.killed == ["hung"]


def test_the_time_ahead_counts_what_runs_and_what_waits() -> None:
    scene = Scene()
    assert scene.dispatcher.seconds_ahead([10]) == 0
    [scene.add() for _ in range(4)]
    scene.timers.turn(1.0)
    scene.finish(1, 1.0)
    [scene.add() for _ in range(11)]
    scene.timers.turn(1.5)
    # Two batches fly, the first of them half done; three rows wait and one comes.
    assert scene.dispatcher.seconds_ahead([10]) == pytest.approx(0.5 + 1.0 + 1.0)
    assert scene.dispatcher.seconds_ahead([10, 10]) == pytest.approx(0.5 + 1.0 + 2.0)


STEPS = st.lists(st.tuples(st.sampled_from(["add", "end", "finish", "turn", "die"]), st.integers(0, 30)), max_size=80)


@settings(deadline=None)
@given(STEPS)
def test_room_is_never_lost(steps: list[tuple[str, int]]) -> None:
    scene, tickets = Scene(), []
    for what, number in steps:
        if what == "add":
            tickets.append(scene.add(1 + number))
        elif what == "end" and tickets:
            tickets[number % len(tickets)].settle(("expired", "cancelled", "failed")[number % 3])
            scene.dispatcher.pump()
        elif what == "finish" and scene.dispatcher.flying:
            scene.finish(scene.dispatcher.flying[0].number, 0.01)
        elif what == "turn":
            scene.timers.turn(scene.timers.now + number / 1000)
        elif what == "die":
            scene.dispatcher.down("restarting", "", 1)
            scene.dispatcher.up(scene.wire)
        alive = [t for t in tickets if not t.settled]
        assert (scene.room.rows, scene.room.tokens) == (len(alive), sum(t.tokens for t in alive))
        assert all((t in scene.dispatcher.batcher) == (t.stage == "queued") for t in tickets)
    sent = [t for _, rows in scene.wire.sent for t in rows]
    assert len(sent) == len(set(sent))
