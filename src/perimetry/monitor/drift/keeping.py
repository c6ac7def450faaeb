"""The state of drift in the event store. For the thread of drift: each call waits for the database, for a few seconds at most."""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, Final, final

from perimetry.monitor.drift.watch import Watch, WindowDone
from perimetry.monitor.http.views import Drift
from perimetry.monitor.store.event_store import EventStore

__all__ = ["ACKNOWLEDGED", "STATE", "Keeping"]

STATE: Final = "drift"
"""Key under which the state is remembered."""
ACKNOWLEDGED: Final = "drift.acknowledged"
"""Key of the last acknowledgement, where several replicas share the store."""
_WAIT_S: Final = 5.0
_log = logging.getLogger(__name__)


def _in_time(what: Coroutine[Any, Any, Any]) -> bool:
    """Wait for a write, in a thread without an event loop; whether it is done."""

    async def bounded() -> Any:
        return await asyncio.wait_for(what, _WAIT_S)

    try:
        return asyncio.run(bounded()) == "committed"
    except TimeoutError:
        return False


@final
class Keeping:
    """Writes the state down and finds it again."""

    def __init__(self, store: EventStore) -> None:
        """`store`: open."""
        self._store = store

    def save(self, watch: Watch) -> bool:
        """Write the state down; False where that did not succeed, and the next time may."""
        return self.remember(STATE, watch.dump())

    def remember(self, key: str, value: Any) -> bool:
        """Keep a value under a key; whether it is kept."""
        return _in_time(self._store.remember(key, value))

    def recall(self, key: str) -> Any:
        """What is kept under a key; None where nothing is. Errors: `ValueError` for what is no JSON; those of SQLAlchemy where the database is down."""
        return self._store.reader.recall(key)

    def restore(self, watch: Watch, now_us: int) -> str:
        """Take over the state that is kept, where there is one of this artifact. What is damaged is set aside; the note says so, empty where all is well.

        Errors: those of SQLAlchemy where the database is down.
        """
        raw: Any = None
        try:
            raw = self.recall(STATE)
            if raw is None:
                return ""
            if not isinstance(raw, dict):
                raise ValueError("a state of drift is an object")
            trial = Watch(watch.config, watch.reference, watch.artifact, watch.as_of)
            if trial.restore(raw):
                # What would not be a word of the contract is no state either.
                Drift.model_validate(trial.said())
                watch.restore(raw)
        except ValueError as error:
            aside = f"{STATE}.damaged.{now_us}"
            self.remember(aside, raw)
            note = f"the state of drift was damaged and begins anew; what was there is kept as {aside!r}"
            _log.error("%s (%s)", note, type(error).__name__)
            return note
        return ""

    def record(self, watch: Watch, done: WindowDone, now_us: int) -> bool:
        """Keep what the tests said of a window; whether it is kept."""
        rising = watch.said()["rising_concepts"]
        results = {"window": done.number, "alarm": done.alarm, "tests": [one.said() for one in done.judgements]}
        results |= {"cusum": watch.cusum, "rising_concepts": rising}
        return _in_time(self._store.record_drift(now_us, watch.artifact, watch.config.window, results))
