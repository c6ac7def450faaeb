"""Drift beside the service: told of every prompt, judged by a thread of its own, kept in the event store.

Scoring never waits for it: prompts that come faster than they can be judged are left out and counted.

Where replicas share a PostgreSQL, one of them leads. It takes the events of all of them from the database, so that there is one sum and one
window for the whole traffic; the others show what it has found. An event that is committed later than `settle_s` after it was scored may be missed then.
"""

import asyncio
import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple, final

from sqlalchemy import make_url
from sqlalchemy.exc import SQLAlchemyError

from perimetry.errors import PerimetryError
from perimetry.monitor.baseline import Baseline
from perimetry.monitor.drift.drift_config import DriftConfig
from perimetry.monitor.drift.keeping import Keeping
from perimetry.monitor.drift.leader import Leader
from perimetry.monitor.drift.reference import Reference
from perimetry.monitor.drift.sharing import Sharing
from perimetry.monitor.drift.telling import tell
from perimetry.monitor.drift.watch import Seen, Watch
from perimetry.monitor.http.metrics import Metrics
from perimetry.monitor.http.sinks import NewEvent
from perimetry.monitor.problems import Problem
from perimetry.monitor.store.event_store import EventStore

__all__ = ["DriftService", "seen_of"]

_WAIT_S: Final = 10.0
_log = logging.getLogger(__name__)


class _Begin(NamedTuple):
    baseline: Baseline
    artifact: str


class _Acknowledge(NamedTuple):
    name: str
    done: "Future[bool]"


class _Stop(NamedTuple):
    pass


_Item = Seen | _Begin | _Acknowledge | _Stop | threading.Event


def seen_of(event: NewEvent) -> Seen | None:
    """What drift makes of an event; None where it is none of its business: it was not scored, or is synthetic."""
    if event.outcome != "ok" or "synthetic" in event.metadata:
        return None
    concepts = tuple((c.latent, c.n_tokens) for c in event.concepts)
    artifact = event.artifact["calibration_sha256"]
    return Seen(artifact, event.group, event.p_value, event.score, event.summary, event.n_tokens, concepts)


@final
class DriftService:
    """A `DriftSource` and a `Listener` of the HTTP layer."""

    def __init__(
        self, config: DriftConfig, store: EventStore | None, metrics: Metrics, clock: Callable[[], float] = time.time
    ) -> None:
        """`store`: open while this works, or None: then nothing outlives the process. Nothing begins yet."""
        self.config = config
        self.faults = 0
        """Prompts and windows that could not be judged."""
        self._metrics, self._clock = metrics, clock
        self._keeping = None if store is None else Keeping(store)
        self._sharing = None if store is None else _sharing(store, config, clock)
        self._inbox: queue.SimpleQueue[_Item] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._waiting = 0
        self._dropped = 0
        self._thread: threading.Thread | None = None
        self._watch: Watch | None = None
        self._said: Mapping[str, Any] | None = None
        self._notes: tuple[str, ...] = ()
        self._unsaved = 0

    @property
    def notes(self) -> tuple[str, ...]:
        """What an operator should know: a test that is off and why, a state that was damaged."""
        return self._notes

    @property
    def dropped(self) -> int:
        """Prompts that were left out because too many waited."""
        return self._dropped

    def leads(self) -> bool:
        """Whether this process judges the traffic; where replicas share a store, whether it did when it last looked."""
        return self._sharing is None or self._sharing.leading

    def begin(self, baseline: Baseline | None, artifact: Mapping[str, str]) -> None:
        """Hold the traffic against this calibration from now on. Never waits. With that of before nothing changes."""
        if baseline is None:
            self._note("drift is off: the worker says nothing of the calibration prompts")
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="perimetry-drift", daemon=True)
            self._thread.start()
        self._inbox.put(_Begin(baseline, artifact["calibration_sha256"]))

    def scored(self, event: NewEvent, alpha: float) -> None:  # noqa: ARG002
        """As `Listener.scored`."""
        self.observe(event)

    def failed(self, adapter: str, alpha: float, kind: str) -> None:
        """As `Listener.failed`: what was not scored says nothing of the traffic."""

    def observe(self, event: NewEvent) -> None:
        """Take a prompt. From any thread; never waits."""
        one = None if self._sharing is not None else seen_of(event)
        if one is None:
            return
        with self._lock:
            room = self._waiting < self.config.queue
            self._waiting += room
            self._dropped += not room
        if room:
            self._inbox.put(one)
        else:
            self._metrics.telemetry_dropped.labels("drift").inc()

    async def current(self) -> Mapping[str, Any]:
        """As `DriftSource.current`. Errors: `Problem` of `loading` before the calibration is known."""
        if self._said is None:
            raise Problem("loading", "nothing is known of the calibration yet", retry_after_s=5)
        return self._said

    async def acknowledge(self) -> bool:
        """Somebody has seen the alarm: the sum begins anew. Whether that is kept, or will be as soon as the leader looks.

        Errors: `Problem` of `loading` before the calibration is known.
        """
        await self.current()
        done: Future[bool] = Future()
        self._inbox.put(_Acknowledge(self._now(), done))
        return await asyncio.wait_for(asyncio.wrap_future(done), _WAIT_S)

    def settled(self, timeout_s: float = _WAIT_S) -> bool:
        """Wait until everything that was handed in so far is judged; False where that took longer."""
        mark = threading.Event()
        self._inbox.put(mark)
        return self._thread is not None and mark.wait(timeout_s)

    def close(self, timeout_s: float = _WAIT_S) -> bool:
        """Judge what waits, write the state down and end. Before the store is closed. False where it took longer."""
        if self._thread is None:
            return True
        self._inbox.put(_Stop())
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _now(self) -> str:
        return datetime.fromtimestamp(self._clock(), UTC).isoformat()

    def _note(self, line: str) -> None:
        if line and line not in self._notes:
            self._notes = (*self._notes, line)
            _log.warning("%s", line)

    def _run(self) -> None:
        wait = None if self._sharing is None else self.config.follow_s
        going = True
        while going:
            try:
                item = self._inbox.get(timeout=wait)
            except queue.Empty:
                item = None
            try:
                going = self._handle(item)
            except Exception as fault:
                # The thread outlives whatever one window holds.
                self.faults += 1
                _log.error("fault %s while drift was judged", type(fault).__name__)

    def _handle(self, item: _Item | None) -> bool:
        """Do what came, or where nothing came look into the shared store; False at the end."""
        if isinstance(item, Seen):
            with self._lock:
                self._waiting -= 1
            self._take(item)
        elif isinstance(item, _Begin):
            self._begin(item)
        elif isinstance(item, _Acknowledge):
            self._acknowledge(item)
        elif isinstance(item, threading.Event):
            item.set()
        elif isinstance(item, _Stop):
            if self._sharing is None:
                self._save()
            else:
                self._sharing.close()
            return False
        elif self._watch is not None and self._sharing is not None:
            self._note(self._sharing.look(self._watch, self._take, self._save))
            self._show(self._watch)
        return True

    def _begin(self, wanted: _Begin) -> None:
        before = self._watch
        if before is not None and before.artifact == wanted.artifact:
            return
        watch = Watch(self.config, Reference(wanted.baseline, self.config), wanted.artifact, self._now())
        if watch.reference.why:
            self._note(f"drift compares no summaries: {watch.reference.why}")
        if self._keeping is not None and self._sharing is None:
            try:
                self._note(self._keeping.restore(watch, int(self._clock() * 1e6)))
            except (SQLAlchemyError, PerimetryError) as error:
                self._note(f"the state of drift could not be read and begins anew ({type(error).__name__})")
        self._watch, self._unsaved = watch, 0
        self._show(watch)

    def _acknowledge(self, wanted: _Acknowledge) -> None:
        kept = False
        try:
            assert self._watch is not None
            if self._sharing is not None:
                kept = self._sharing.acknowledge(wanted.name)
            else:
                self._watch.acknowledge(wanted.name)
                kept = self._save()
                self._show(self._watch)
        finally:
            wanted.done.set_result(kept)

    def _take(self, one: Seen) -> None:
        watch = self._watch
        if watch is None or one.artifact != watch.artifact:
            return
        crossed = watch.crossed
        done = watch.take(one, self._now())
        tell(self._metrics, watch, done, crossed=watch.crossed and not crossed)
        self._unsaved += 1
        if done is not None and self._keeping is not None:
            self._keeping.record(watch, done, int(self._clock() * 1e6))
        if self._sharing is None and (done is not None or self._unsaved >= self.config.persist_every):
            self._save()
        self._show(watch)

    def _save(self) -> bool:
        # What was not kept is tried again with the next hundred, and not with each prompt.
        self._unsaved = 0
        return self._watch is not None and self._keeping is not None and self._keeping.save(self._watch)

    def _show(self, watch: Watch) -> None:
        self._said = watch.said()
        self._metrics.cusum.set(watch.cusum)


def _sharing(store: EventStore, config: DriftConfig, clock: Callable[[], float]) -> Sharing | None:
    """How the traffic of several replicas is taken together; None for a store that one process owns."""
    url = store.config.url or ""
    if not url.startswith("postgresql"):
        return None
    return Sharing(store, Leader(make_url(url), store.config.database_timeout_s), config, clock)
