"""The configuration of the store is strict, and an address of a database is understood or refused without being repeated."""

from pathlib import Path

import pytest

from perimetry.config import build
from perimetry.errors import ConfigError
from perimetry.monitor.store.database import database_url
from perimetry.monitor.store.store_config import StoreConfig


def test_the_defaults_are_those_of_the_promises() -> None:
    config = StoreConfig()
    assert (config.text, config.ack, config.synchronous) == ("off", "async", "NORMAL")
    assert (config.queue_rows, config.commit_ms, config.commit_rows) == (10_000, 50.0, 128)
    assert (config.retain_days, config.retain_bytes, config.retain_rows) == (30.0, 2**30, 5_000)
    assert (config.text_days, config.rollup_days) == (7.0, 365.0)
    assert (config.least_free_bytes, config.retry_s, config.fragment_bytes) == (256 * 2**20, 30.0, 64 * 2**20)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"txt": "off"}, "nearest key is 'text'"),
        ({"text": "all"}, "text = 'all'"),
        ({"commit_rows": 0}, "commit_rows = 0"),
        ({"retain_bytes": 1}, "retain_bytes = 1"),
        ({"ack": "later"}, "ack = 'later'"),
    ],
)
def test_what_is_wrong_is_named(values: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        build(StoreConfig, values, "configuration [store]")


def test_addresses_of_databases() -> None:
    assert database_url(StoreConfig(folder=Path("x"))).database == "x/events.sqlite"
    assert database_url(StoreConfig(url="sqlite:////tmp/e.db")).database == "/tmp/e.db"
    assert database_url(StoreConfig(url="postgresql+psycopg://u@h/d")).drivername == "postgresql+psycopg"


@pytest.mark.parametrize(
    "url", ["mysql://me:geheim@h/d", "postgresql://me:geheim@h/d", "sqlite://", "no address: geheim"]
)
def test_other_addresses_are_refused_and_no_password_is_repeated(url: str) -> None:
    config = StoreConfig(url=url)
    with pytest.raises(ConfigError, match="wanted sqlite:///FILE or postgresql") as refused:
        database_url(config)
    assert "geheim" not in str(refused.value)
    assert "geheim" not in repr(config)
