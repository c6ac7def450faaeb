"""An export holds the events of its range, with plain types, and no words unless they are asked for."""

from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.monitor.store.makers import NOON, an_event, fill

from perimetry.monitor.store.database import Database
from perimetry.monitor.store.export import export_events


@pytest.fixture
def filled(database: Database) -> Database:
    """2,500 events, one a second; the last was not scored."""
    for start in range(0, 2_500, 500):
        fill(
            database,
            [an_event(i, ts_us=NOON + i * 10**6, text=f"words-{i}", expires_us=1) for i in range(start, start + 500)],
        )
    fill(
        database,
        [an_event(2_500, ts_us=NOON + 2_500 * 10**6, score=None, p_value=None, outcome="deadline", concepts=())],
    )
    return database


def test_all_events_with_plain_types(filled: Database, tmp_path: Path) -> None:
    path = tmp_path / "out" / "events.parquet"
    assert export_events(filled, path) == 2_501
    table = pq.read_table(path)
    assert table.num_rows == 2_501
    assert table.schema.field("ts").type == pa.timestamp("us", tz="UTC")
    rows = table.to_pylist()
    assert [row["id"] for row in rows] == list(range(1, 2_502))
    assert rows[7]["ts"] == datetime.fromtimestamp(NOON // 10**6 + 7, UTC)
    assert rows[7]["prompt_hmac"] == (7).to_bytes(16).hex()
    assert rows[7]["metadata"] == '{"team": "blue"}'
    assert rows[7]["concepts"].startswith('[{"concept": 5, "energy": 2.0, "tokens": 3')
    assert (rows[-1]["score"], rows[-1]["outcome"]) == (None, "deadline")
    assert {row["text"] for row in rows} == {None}
    assert b"words-7" not in path.read_bytes()


def test_a_range_and_words(filled: Database, tmp_path: Path) -> None:
    path = tmp_path / "some.parquet"
    assert export_events(filled, path, NOON + 10 * 10**6, NOON + 13 * 10**6, text=True) == 3
    assert pq.read_table(path).column("text").to_pylist() == ["words-10", "words-11", "words-12"]
    assert export_events(filled, path, 0, 1) == 0
    assert pq.read_table(path).num_rows == 0


def test_an_export_that_fails_leaves_the_old_one(filled: Database, tmp_path: Path) -> None:
    path = tmp_path / "events.parquet"
    export_events(filled, path, NOON, NOON + 10**6)
    before = path.read_bytes()
    filled.close()
    with pytest.raises(Exception, match="closed"):
        export_events(filled, path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir() if entry.is_file()] == ["events.parquet"]
