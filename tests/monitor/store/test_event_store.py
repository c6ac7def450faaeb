"""The store as the service holds it: acknowledgements on a loop, following, privacy, one owner, and a light import."""

import asyncio
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Connection
from tests.monitor.store.makers import NOON, a_config, an_event

from perimetry.errors import Locked
from perimetry.monitor.store.event_store import EventStore
from perimetry.monitor.store.events import Stored
from perimetry.monitor.store.store_config import StoreConfig
from perimetry.monitor.store.tail import Gap

Opened = Callable[..., EventStore]


def _numbers(found: list[Stored | Gap]) -> list[int | Gap]:
    return [one.id if isinstance(one, Stored) else one for one in found]


async def _next(events, number: int) -> list[Stored | Gap]:
    return [await asyncio.wait_for(anext(events), 60) for _ in range(number)]


@pytest.mark.parametrize(("ack", "wanted"), [("async", "queued"), ("commit", "committed")])
def test_what_is_acknowledged_is_what_is_configured(opened: Opened, tmp_path: Path, ack: str, wanted: str) -> None:
    async def scene() -> list[str]:
        return list(await asyncio.gather(*(store.put(an_event(i)) for i in range(200))))

    store = opened(a_config(tmp_path, ack=ack, ack_timeout_ms=60_000))
    assert set(asyncio.run(scene())) == {wanted}
    if ack == "commit":
        assert store.reader.count() == 200


def test_the_loop_goes_on_while_a_commit_is_awaited_and_the_wait_ends(opened: Opened, tmp_path: Path) -> None:
    store = opened(a_config(tmp_path, ack="commit", ack_timeout_ms=50))
    inside, go_on = threading.Event(), threading.Event()

    def stuck(connection: Connection) -> None:
        inside.set()
        assert go_on.wait(60)

    async def scene() -> None:
        change = store._intake.change(stuck)
        assert await asyncio.to_thread(inside.wait, 60)
        assert await store.put(an_event(1)) == "queued"
        gone = asyncio.create_task(store.put(an_event(2)))
        await asyncio.sleep(0)
        gone.cancel()
        go_on.set()
        assert await asyncio.wrap_future(change) == "committed"
        while await store.put(an_event(3)) != "committed":
            pass

    asyncio.run(scene())
    assert store.reader.count() == 3


def test_following_begins_where_it_was_left_and_misses_nothing(opened: Opened, config: StoreConfig) -> None:
    store = opened(config.model_copy(update={"ack": "commit", "ack_timeout_ms": 60_000}))

    async def scene() -> None:
        for i in range(5):
            await store.put(an_event(i))
        events = store.follow(since=2)
        assert _numbers(await _next(events, 3)) == [3, 4, 5]
        assert store.listeners == 1
        await asyncio.gather(*(store.put(an_event(10 + i)) for i in range(20)))
        assert _numbers(await _next(events, 20)) == list(range(6, 26))
        await events.aclose()
        assert store.listeners == 0
        live = store.follow()
        waiting = asyncio.create_task(_next(live, 1))
        while not store.listeners:
            await asyncio.sleep(0)
        await store.put(an_event(99))
        assert _numbers(await waiting) == [26]
        await live.aclose()

    asyncio.run(scene())


def test_a_replay_has_a_bound_and_says_what_it_left_out(opened: Opened, config: StoreConfig) -> None:
    store = opened(config)

    async def scene() -> list[Stored | Gap]:
        receipts = [store.submit(an_event(i), wait=True) for i in range(1_200)]
        for one in receipts:
            assert one.done is not None
            await asyncio.wrap_future(one.done)
        events = store.follow(since=50)
        found = await _next(events, 1_001)
        await events.aclose()
        return found

    assert _numbers(asyncio.run(scene())) == [Gap(150), *range(201, 1_201)]


def _bytes(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


@pytest.mark.parametrize("text", ["off", "redacted", "full"])
def test_what_is_kept_of_words(opened: Opened, tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    store = opened(a_config(tmp_path, text=text))
    said = "the marker-7041 of ann@example.com"
    event = an_event(1, text=said, prompt_hmac=store.hmac([("user", said)]), p_value=0.5)
    done = store.submit(event, wait=True).done
    assert done is not None
    assert done.result(60) == "committed"
    assert store.submit(an_event(2, text=said, p_value=9.0)).ack == "dropped"
    found = store.reader.page().events[0].event
    wanted = {"off": None, "redacted": "the marker-7041 of [email]", "full": said}[text]
    assert (found.text, found.redacted) == (wanted, text == "redacted")
    assert found.expires_us == (None if text == "off" else NOON + 1 + 7 * 86_400 * 10**6)
    store.close()
    kept = _bytes(tmp_path)
    assert (b"marker-7041" in kept) == (text != "off")
    assert (b"ann@example.com" in kept) == (text == "full")
    assert "marker-7041" not in caplog.text


def test_a_folder_has_one_owner(opened: Opened, config: StoreConfig) -> None:
    store = opened(config)
    with pytest.raises(Locked, match=f"process {os.getpid()} is writing to"):
        EventStore(config).open()
    store.close()
    opened(config)


def test_states_artifacts_and_windows_are_remembered(opened: Opened, config: StoreConfig) -> None:
    async def scene() -> set[str]:
        return {
            await store.remember("cusum", {"s": 2.5, "n": 100}),
            await store.remember("cusum", {"s": 3.5, "n": 200}),
            await store.record_artifact("a", NOON, {"sae": "1"}),
            await store.record_artifact("a", NOON, {"sae": "2"}),
            await store.record_drift(NOON, "a", 500, {"ks": {"p_value": 0.5}}),
            await store.record_drift(NOON + 1, "a", 500, {"ks": {"p_value": 0.25}}),
        }

    store = opened(config)
    assert asyncio.run(scene()) == {"committed"}
    store.close()
    reader = opened(config).reader
    assert reader.recall("cusum") == {"s": 3.5, "n": 200}
    assert reader.artifacts() == {"a": {"sae": "1"}}
    assert [one["results"]["ks"]["p_value"] for one in reader.drift_windows()] == [0.25, 0.5]
    assert len(reader.drift_windows(limit=1)) == 1


def test_hashes_stay_the_same_over_restarts(opened: Opened, config: StoreConfig) -> None:
    store = opened(config)
    before = store.hmac([("", "hello")])
    store.close()
    assert opened(config).hmac([("", "hello")]) == before
    other = config.model_copy(update={"folder": config.folder / "other"})
    assert opened(other).hmac([("", "hello")]) != before
    shared = other.model_copy(update={"folder": config.folder / "third", "key_file": config.folder / "hash.key"})
    assert opened(shared).hmac([("", "hello")]) == before


def test_the_size_on_disk_and_the_queue_are_told(opened: Opened, config: StoreConfig) -> None:
    state = opened(config).state()
    assert state.file_bytes >= 4_096
    assert (state.queue, state.dropped, state.notes, state.trouble) == (0, {}, (), None)


def test_the_store_imports_neither_torch_nor_numpy() -> None:
    code = (
        "import json, sys, pkgutil, importlib\n"
        "import perimetry.monitor.store as store\n"
        "for found in pkgutil.walk_packages(store.__path__, store.__name__ + '.'):\n"
        "    importlib.import_module(found.name)\n"
        "print(json.dumps([n for n in ('torch', 'numpy', 'pyarrow', 'psycopg', 'perimetry.shift') if n in sys.modules]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []
