"""The traffic of several replicas, taken out of the PostgreSQL that they share by the one that leads. For the thread of drift."""

import logging
from collections.abc import Callable
from typing import Final, final

from sqlalchemy.exc import SQLAlchemyError

from perimetry.errors import PerimetryError
from perimetry.monitor.baseline import unpack_summary
from perimetry.monitor.drift.drift_config import DriftConfig
from perimetry.monitor.drift.keeping import ACKNOWLEDGED, Keeping
from perimetry.monitor.drift.leader import Leader
from perimetry.monitor.drift.watch import Seen, Watch
from perimetry.monitor.store.event_store import EventStore
from perimetry.monitor.store.events import Event
from perimetry.monitor.store.reading import MOST, Filter

__all__ = ["Sharing", "seen_of_event"]

_PAGES: Final = 20
"""Pages that one look takes at most, so that other work comes in between."""
_log = logging.getLogger(__name__)


def seen_of_event(event: Event) -> Seen | None:
    """What drift makes of an event that was kept; None where it is none of its business."""
    if event.outcome != "ok" or "synthetic" in event.metadata or event.p_value is None or event.score is None:
        return None
    try:
        summary = None if event.summary is None else unpack_summary(event.summary)
    except ValueError:
        summary = None
    concepts = tuple((c.concept, c.tokens) for c in event.concepts)
    return Seen(event.artifact_id, event.group_id, event.p_value, event.score, summary, event.n_tokens, concepts)


@final
class Sharing:
    """One look after the other into the shared store."""

    def __init__(self, store: EventStore, leader: Leader, config: DriftConfig, clock: Callable[[], float]) -> None:
        self.leading = False
        """Whether this replica led when it last looked."""
        self._store, self._leader, self._config, self._clock = store, leader, config, clock
        self._keeping = Keeping(store)

    def look(self, watch: Watch, take: Callable[[Seen], None], save: Callable[[], bool]) -> str:
        """Take what is new where this replica leads, else show what the leader has found. Returns a note, empty where all is well."""
        led, leads = self.leading, self._leader.leads()
        note = ""
        try:
            if not (led and leads):
                # The leader's word, or where this one has just become it, what the one before has left.
                self.leading = False
                note = self._keeping.restore(watch, int(self._clock() * 1e6))
            self.leading = leads
            if leads:
                self._lead(watch, take, save)
        except (SQLAlchemyError, PerimetryError) as error:
            _log.warning("the events of the replicas could not be read: %s", type(error).__name__)
        return note

    def _lead(self, watch: Watch, take: Callable[[Seen], None], save: Callable[[], bool]) -> None:
        reader = self._store.reader
        changed = False
        if watch.position < 0:
            # What was there before anybody watched is no window of now.
            watch.position, changed = reader.nth_from_end(0), True
        word = self._keeping.recall(ACKNOWLEDGED)
        if isinstance(word, str) and word != watch.acknowledged:
            watch.acknowledge(word)
            changed = True
        settled = Filter(end_us=int((self._clock() - self._config.settle_s) * 1e6))
        for _ in range(_PAGES):
            page = reader.page(watch.position, settled, MOST)
            for stored in page.events:
                watch.position = stored.id
                one = seen_of_event(stored.event)
                if one is not None:
                    take(one)
                    changed = True
            if page.next is None:
                break
        if changed:
            save()

    def acknowledge(self, name: str) -> bool:
        """Leave word for the leader; whether it is kept."""
        return self._keeping.remember(ACKNOWLEDGED, name)

    def close(self) -> None:
        """Let another replica lead."""
        self._leader.close()
