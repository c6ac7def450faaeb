"""Sums by minute: what counts, that they merge, and that a duplicate does not count twice."""

import random

import pytest
from sqlalchemy import select, update
from tests.monitor.store.makers import NOON, an_event, fill

from perimetry.errors import CorruptArtifact
from perimetry.monitor.store.database import Database
from perimetry.monitor.store.reading import Reader
from perimetry.monitor.store.rollups import BINS, MINUTE_US, Rollup, rollups_of
from perimetry.monitor.store.sketch import Sketch
from perimetry.monitor.store.tables import rollup


def _draws(n: int, seed: int) -> list:
    draw = random.Random(seed)
    return [
        an_event(
            i,
            ts_us=NOON + draw.randrange(5 * MINUTE_US),
            group_id=draw.choice(["short", "long"]),
            score=draw.gauss(5, 2),
            p_value=draw.randint(1, 200) / 200,
            flagged=draw.random() < 0.1,
        )
        for i in range(n)
    ]


def test_only_scored_events_that_are_not_synthetic_count() -> None:
    events = [
        an_event(1, p_value=0.01, flagged=True),
        an_event(2, outcome="deadline", score=None, p_value=None),
        an_event(3, metadata={"synthetic": "1"}),
        an_event(4, p_value=1.0),
    ]
    (found,) = rollups_of(events)
    assert (found.minute, found.group, found.n, found.flagged) == (NOON // MINUTE_US, "short", 2, 1)
    assert found.histogram == (1, *[0] * (BINS - 2), 1)
    assert found.sketch == Sketch.of([1.0, 4.0])


def test_they_add_up_however_events_come(database: Database) -> None:
    events = _draws(400, 1)
    random.Random(2).shuffle(events)
    for start in range(0, 400, 37):
        fill(database, events[start : start + 37] + events[:5])
    found = Reader(database).rollups(0, 2**40)
    assert _exact(found, events) == sorted(rollups_of(events), key=lambda one: one[:2])


def _exact(found: list[Rollup], events: list) -> list[Rollup]:
    """The same with the moments of one pass, after a look that those differ by rounding alone."""
    once = {(one.minute, one.group): one for one in rollups_of(events)}
    for one in found:
        wanted = once[one.minute, one.group].sketch
        assert one.sketch.mean == pytest.approx(wanted.mean, rel=1e-12)
        assert one.sketch.squares == pytest.approx(wanted.squares, rel=1e-9)
    exact = [one._replace(sketch=once[one.minute, one.group].sketch) for one in found]
    return sorted(exact, key=lambda one: one[:2])


def test_minutes_are_put_together(database: Database) -> None:
    events = _draws(300, 3)
    fill(database, events)
    reader, first = Reader(database), NOON // MINUTE_US
    whole = reader.rollups(first, first + 10, minutes=10)
    assert [(one.minute, one.group) for one in whole] == [(first, "long"), (first, "short")]
    assert sum(one.n for one in whole) == 300
    assert sum(one.flagged for one in whole) == sum(event.flagged for event in events)
    assert sum(map(sum, (one.histogram for one in whole))) == 300
    assert reader.rollups(first, first + 10, 10, "long") == whole[:1]
    assert reader.rollups(first + 10, first + 20) == []


def test_damaged_sums_are_an_error_for_reader_and_writer(database: Database) -> None:
    fill(database, [an_event(1)])
    with database.writer.begin() as connection:
        sketch = connection.execute(select(rollup.c.sketch)).scalar_one()
        connection.execute(update(rollup).values(sketch=sketch[:-1]))
    with pytest.raises(CorruptArtifact, match=r"the sums of minute .* are damaged"):
        Reader(database).rollups(0, 2**40)
    with pytest.raises(CorruptArtifact, match="damaged"):
        fill(database, [an_event(2)])
