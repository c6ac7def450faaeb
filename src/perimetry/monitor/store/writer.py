"""The thread that writes events: it empties the queue, commits every so often, and sees to what is due by the clock."""

import logging
import threading
import time
from collections.abc import Callable
from typing import Final, final

from sqlalchemy.exc import SQLAlchemyError

from perimetry.errors import PerimetryError
from perimetry.monitor.store.events import Event, Stored
from perimetry.monitor.store.inserting import add_to_counters
from perimetry.monitor.store.intake import Change, Intake, Waiting, settle
from perimetry.monitor.store.keeper import Keeper, Refused
from perimetry.monitor.store.redaction import redact
from perimetry.monitor.store.retention import Retention
from perimetry.monitor.store.store_config import StoreConfig
from perimetry.monitor.store.tail import Tail

__all__ = ["Writer"]

FIRST_WAIT_S: Final = 1.0
DAY_US: Final = 86_400_000_000
_log = logging.getLogger(__name__)


@final
class Writer:
    """Writes what is in the queue, in its own thread."""

    def __init__(
        self,
        intake: Intake,
        keeper: Keeper,
        retention: Retention,
        tail: Tail,
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`clock`: seconds since 1970, for ages; `monotonic`: seconds, for waits. `start` begins."""
        self._intake, self._keeper, self._retention, self._tail = intake, keeper, retention, tail
        self._config: StoreConfig = keeper.database.config
        self._clock, self._monotonic = clock, monotonic
        self._renewal: str | None = None
        self._refused: Refused | None = None
        self._wait_s, self._again_at = FIRST_WAIT_S, 0.0
        self._retain_at = monotonic()
        self.written = 0
        """Events that came into the database through this writer."""
        self._thread = threading.Thread(target=self._run, name="perimetry-events", daemon=True)

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def renew(self, why: str) -> None:
        """Let the thread set a damaged SQLite file aside."""
        self._renewal = why
        self._intake.poke()

    def stop(self, timeout_s: float) -> bool:
        """Take nothing more, write what waits, and end; False where that takes longer than `timeout_s`."""
        self._intake.close()
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    @property
    def trouble(self) -> str | None:
        """Why nothing can be written at the moment; None where all is well."""
        refused = self._refused
        return self._keeper.down if refused is None else str(refused)

    def _run(self) -> None:
        while True:
            batch, changes = self._intake.take(self._until_duty())
            self._guarded(lambda batch=batch: self._write(batch))
            self._guarded(lambda changes=changes: self._change(changes))
            self._guarded(self._duties)
            if self._intake.closed and self._intake.empty():
                break
        self._guarded(self._count)

    def _until_duty(self) -> float:
        """Seconds until something is due."""
        now = self._monotonic()
        if self._refused is not None:
            return max(0.0, self._again_at - now)
        waits = [self._retain_at - now, self._keeper.wait_s(), FIRST_WAIT_S if self._intake.fresh() else None]
        return max(0.0, min(wait for wait in waits if wait is not None))

    def _guarded(self, step: Callable[[], None]) -> None:
        """A fault of one step must not end the thread, nor may its words, which may be those of a prompt, reach a log."""
        try:
            try:
                step()
            except (SQLAlchemyError, PerimetryError, OSError) as error:
                self._keeper.cope(error)
        except Refused as refused:
            self._refuse(refused)
        except Exception as error:
            _log.error("the event writer met a %s", type(error).__name__)

    def _refuse(self, refused: Refused) -> None:
        if self._refused is None or self._refused.reason != refused.reason:
            _log.warning("events are dropped: %s", refused)
        if refused.reason == "disk-full":
            self._wait_s = self._config.retry_s
        self._refused, self._intake.refusing = refused, refused.reason
        self._again_at = self._monotonic() + self._wait_s
        self._wait_s = min(2 * self._wait_s, self._config.retry_s)

    def _write(self, batch: list[Waiting]) -> None:
        if not batch:
            return
        if self._refused is not None:
            self._intake.lose(batch, self._refused.reason)
            return
        drops = self._intake.fresh()
        try:
            kept = self._keeper.write([self._as_kept(one.event) for one in batch], drops)
        except BaseException as error:
            self._intake.lose(batch, error.reason if isinstance(error, Refused) else "store-error")
            raise
        if kept.committed:
            self._intake.persisted(drops)
        self._publish(kept.stored)
        self._intake.lose([one for one in batch if one.event.uuid in kept.invalid], "invalid")
        for one in batch:
            if one.event.uuid not in kept.invalid:
                settle(one.done, "committed" if kept.committed else "queued")

    def _publish(self, stored: list[Stored]) -> None:
        self.written += len(stored)
        self._tail.publish(stored)

    def _as_kept(self, event: Event) -> Event:
        """The event with its text as the configuration wants it kept."""
        if event.text is None:
            return event
        redacted = self._config.text == "redacted"
        text = redact(event.text).text if redacted else event.text
        return event._replace(
            text=text, redacted=redacted, expires_us=event.ts_us + int(self._config.text_days * DAY_US)
        )

    def _change(self, changes: list[Change]) -> None:
        for at, one in enumerate(changes):
            try:
                self._keeper.change(one.what)
            except BaseException:
                for other in changes[at:]:
                    settle(other.done, "dropped")
                raise
            settle(one.done, "committed")

    def _duties(self) -> None:
        """What is due by the clock: setting aside, importing, forgetting, and trying again what was refused."""
        if self._renewal is not None:
            why, self._renewal = self._renewal, None
            self._keeper.renew(why)
        ticked = self._keeper.tick()
        self._publish(ticked.stored)
        self._intake.count("invalid", ticked.invalid)
        back = self._refused is not None and self._refused.reason == "fragments-full" and self._keeper.down is None
        if self._refused is not None and not back and self._monotonic() < self._again_at:
            return
        if self._monotonic() >= self._retain_at:
            self._retain()
        self._count()
        self._refused, self._intake.refusing, self._wait_s = None, None, FIRST_WAIT_S

    def _retain(self) -> None:
        self._retain_at = self._monotonic() + self._config.retain_every_s
        now_us = int(self._clock() * 1e6)
        self._retention.files(now_us)
        if self._keeper.down is None and self._retention.step(now_us):
            self._retain_at = self._monotonic()

    def _count(self) -> None:
        """Write the losses down; where events were refused this is the test whether it works again."""
        drops = self._intake.fresh()
        if self._keeper.down is None and (drops or self._refused is not None):
            self._keeper.change(lambda connection: add_to_counters(connection, drops))
            self._intake.persisted(drops)
