"""Sums of the traffic come back from the store, groups together, and what is synthetic does not count."""

from datetime import timedelta
from pathlib import Path

import pytest
from tests.monitor.test_sink import NOON, new, run

from perimetry.monitor.http.sinks import NoSink, Slice
from perimetry.monitor.problems import Problem
from perimetry.monitor.sink import StoreSink


def test_stretches_are_summed_over_groups(tmp_path: Path) -> None:
    async def use(sink: StoreSink) -> None:
        for at, group, p_value in (
            (0, "short", 0.25),
            (90, "long", 0.001),
            (3700, "short", 1.0),
            (-3700, "short", 0.5),
        ):
            await sink.put(new(at, group=group, p_value=p_value, flagged=p_value < 0.01))
        await sink.put(new(10, metadata={"synthetic": "page"}))
        first, second = await sink.traffic(NOON, 60)
        bins = [0] * 20
        bins[0] = bins[4] = 1
        assert first == Slice(NOON, 2, 1, tuple(bins))
        assert (second.begin, second.n, second.flagged, second.histogram[19]) == (NOON + timedelta(hours=1), 1, 0, 1)
        assert [one.n for one in await sink.traffic(NOON, 1)] == [1, 1, 1]
        assert await sink.traffic(NOON + timedelta(hours=2), 60) == []
        assert await NoSink().traffic(NOON, 60) == ()

    run(tmp_path, use)


def test_a_store_that_cannot_be_read_is_a_problem(tmp_path: Path) -> None:
    async def use(sink: StoreSink) -> None:
        with pytest.raises(Problem, match="the event store cannot be read"):
            await sink.traffic(NOON, 0)

    run(tmp_path, use)
