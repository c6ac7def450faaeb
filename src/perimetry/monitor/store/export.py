"""Events of a time range as a Parquet file, for tools that read tables. Runs in a process of its own, not in the service."""

import json
from pathlib import Path
from typing import Any, Final

from perimetry.errors import UsageError
from perimetry.monitor.store.database import Database
from perimetry.monitor.store.events import Stored
from perimetry.monitor.store.reading import MOST, Filter, Reader
from perimetry.storage import atomic_file

__all__ = ["export_events"]

COLUMNS: Final = {
    "id": "int64",
    "uuid": "string",
    "request_id": "string",
    "ts": "timestamp",
    "artifact_id": "string",
    "adapter": "string",
    "prompt_hmac": "string",
    "n_chars": "int64",
    "n_tokens": "int64",
    "group_id": "string",
    "score": "double",
    "p_value": "double",
    "flagged": "bool",
    "outcome": "string",
    "queue_us": "int64",
    "forward_us": "int64",
    "metadata": "string",
    "concepts": "string",
    "text": "string",
    "redacted": "bool",
}


def _row(one: Stored, *, text: bool) -> dict[str, Any]:
    event = one.event
    plain = {name: getattr(event, name) for name in COLUMNS if hasattr(event, name)}
    return plain | {
        "id": one.id,
        "ts": event.ts_us,
        "prompt_hmac": event.prompt_hmac.hex(),
        "metadata": json.dumps(dict(event.metadata), sort_keys=True),
        "concepts": json.dumps([seen._asdict() for seen in event.concepts]),
        "text": event.text if text else None,
    }


def export_events(
    database: Database, path: Path, begin_us: int | None = None, end_us: int | None = None, *, text: bool = False
) -> int:
    """Write the events from `begin_us` to before `end_us` (microseconds since 1970) to a new Parquet file; gives their number.

    `ts` is a time in UTC; `metadata` and `concepts` are JSON. Kept words are left out unless `text`. The file is there whole or
    not at all. Errors: `UsageError` where pyarrow is not installed, `StorageError`, `StorageFull`.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise UsageError("the export wants pyarrow, which is not installed; pip install 'perimetry[export]'") from error
    kinds = {
        "int64": pa.int64(),
        "string": pa.string(),
        "double": pa.float64(),
        "bool": pa.bool_(),
        "timestamp": pa.timestamp("us", tz="UTC"),
    }
    schema = pa.schema([(name, kinds[kind]) for name, kind in COLUMNS.items()])
    reader, since, number = Reader(database), 0, 0
    with atomic_file(path) as temporary, pq.ParquetWriter(temporary, schema, compression="zstd") as out:
        while True:
            page = reader.page(since, Filter(begin_us, end_us), limit=MOST)
            if page.events:
                out.write_table(pa.Table.from_pylist([_row(one, text=text) for one in page.events], schema=schema))
                number += len(page.events)
            if page.next is None:
                return number
            since = page.next
