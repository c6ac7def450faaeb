"""Listeners get events in order, learn what they have missed, and hold nobody up."""

import asyncio

from tests.monitor.store.makers import an_event

from perimetry.monitor.store.events import Stored
from perimetry.monitor.store.tail import BUFFER, Gap, Tail


def _stored(begin: int, end: int) -> list[Stored]:
    return [Stored(i, an_event(i)) for i in range(begin, end)]


async def _some(subscription, number: int) -> list[int | Gap]:
    found = [await asyncio.wait_for(subscription.get(), 30) for _ in range(number)]
    return [one.id if isinstance(one, Stored) else one for one in found]


def test_events_come_in_order_to_everyone() -> None:
    async def scene() -> None:
        tail = Tail()
        with tail.subscribe() as one, tail.subscribe() as other:
            assert len(tail) == 2
            waiting = asyncio.create_task(_some(one, 5))
            await asyncio.sleep(0)
            await asyncio.to_thread(tail.publish, _stored(1, 4))
            await asyncio.to_thread(tail.publish, _stored(4, 6))
            assert await waiting == [1, 2, 3, 4, 5] == await _some(other, 5)
            assert one.take() is None
        assert len(tail) == 0
        tail.publish(_stored(6, 7))
        assert one.take() is None

    asyncio.run(scene())


def test_a_slow_listener_finds_a_gap_where_events_are_missing() -> None:
    async def scene() -> None:
        tail = Tail()
        with tail.subscribe() as slow:
            tail.publish(_stored(0, BUFFER + 10))
            tail.publish(_stored(BUFFER + 10, BUFFER + 15))
            assert await _some(slow, 2) == [0, 1]
            tail.publish(_stored(BUFFER + 15, BUFFER + 20))
            assert await _some(slow, BUFFER - 2) == list(range(2, BUFFER))
            assert await _some(slow, 4) == [Gap(15), BUFFER + 15, BUFFER + 16, Gap(3)]
            assert slow.take() is None

    asyncio.run(scene())


def test_a_loop_that_has_ended_does_not_trouble_the_writer() -> None:
    tail = Tail()

    async def begin() -> None:
        held.append(tail.subscribe())
        held[0].__enter__()

    held: list = []
    asyncio.run(begin())
    tail.publish(_stored(1, 3))
    held[0].__exit__(None, None, None)
    assert len(tail) == 0
