"""Pages hold what was asked for, in order, whole, and say how to go on."""

import pytest
from tests.monitor.store.makers import NOON, an_event, fill

from perimetry.errors import UsageError
from perimetry.monitor.store.database import Database
from perimetry.monitor.store.inserting import add_to_counters, put_meta
from perimetry.monitor.store.reading import Filter, Reader


@pytest.fixture
def reader(database: Database) -> Reader:
    """Fifty events, one a second; every fifth flagged, every second in the group `long`."""
    fill(
        database,
        [
            an_event(i, ts_us=NOON + i * 1_000_000, flagged=i % 5 == 0, group_id="long" if i % 2 else "short")
            for i in range(50)
        ],
    )
    return Reader(database)


def test_pages_follow_each_other(reader: Reader) -> None:
    found, since, pages = [], 0, 0
    while True:
        page = reader.page(since, limit=20)
        found += page.events
        pages += 1
        if page.next is None:
            break
        since = page.next
    assert pages == 3
    assert [one.id for one in found] == list(range(1, 51))
    assert [one.event.request_id for one in found] == [f"r{i}" for i in range(50)]
    assert reader.page(0, limit=50).next is None
    assert reader.page(50).events == []


@pytest.mark.parametrize(
    ("wanted", "numbers"),
    [
        (Filter(begin_us=NOON + 47_000_000), [47, 48, 49]),
        (Filter(end_us=NOON + 2_000_000), [0, 1]),
        (Filter(begin_us=NOON + 1, end_us=NOON + 6_000_000, flagged=True), [5]),
        (Filter(flagged=False, end_us=NOON + 7_000_000), [1, 2, 3, 4, 6]),
        (Filter(group="long", end_us=NOON + 6_000_000), [1, 3, 5]),
        (Filter(group="other"), []),
    ],
)
def test_filters(reader: Reader, wanted: Filter, numbers: list[int]) -> None:
    assert [one.event.request_id for one in reader.page(wanted=wanted).events] == [f"r{i}" for i in numbers]


def test_events_come_back_whole(database: Database) -> None:
    events = [
        an_event(1, text="words", redacted=True, expires_us=5, summary=b"\0\1", flagged=True),
        an_event(2, score=None, p_value=None, outcome="deadline", concepts=(), metadata={}),
        an_event(3, metadata={"k": "\0\ud800é"}),
    ]
    fill(database, events)
    assert [one.event for one in Reader(database).page().events] == events


def test_text_that_no_database_takes_is_made_fit(database: Database) -> None:
    fill(database, [an_event(1, text="a\0b\ud800c", expires_us=5)])
    assert Reader(database).page().events[0].event.text == "a\ufffdb?c"


@pytest.mark.parametrize("limit", [0, 1_001, -5])
def test_a_page_has_a_size(reader: Reader, limit: int) -> None:
    with pytest.raises(UsageError, match="wanted 1 to 1000"):
        reader.page(limit=limit)
    with pytest.raises(UsageError, match="wanted 1 or more"):
        reader.rollups(0, 1, minutes=0)


def test_drops_and_what_is_remembered(reader: Reader, database: Database) -> None:
    assert reader.drops() == {}
    for _ in range(2):
        with database.writer.begin() as connection:
            add_to_counters(connection, {"queue-full": 3, "disk-full": 1, "closed": 0})
            put_meta(connection, "cusum", {"s": 1.5})
    assert reader.drops() == {"queue-full": 6, "disk-full": 2}
    assert reader.page(limit=1).dropped_total == 8
    assert reader.recall("cusum") == {"s": 1.5}
    assert reader.recall("other") is None
    assert reader.count() == 50
    assert reader.count(since=48) == 2
    assert reader.nth_from_end(10) == 40
    assert reader.nth_from_end(50) == 0
