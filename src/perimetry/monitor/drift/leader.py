"""Which of several replicas watches the traffic of all of them: the one that holds a lock of their PostgreSQL."""

import logging
from collections.abc import Callable
from typing import Final, final

from sqlalchemy import URL, Connection, Engine, text
from sqlalchemy.exc import SQLAlchemyError

from perimetry.monitor.store.postgres import postgres_engine

__all__ = ["LOCK", "Leader"]

LOCK: Final = 0x7065_7269_6D65_7472
"""Number of the advisory lock."""
_log = logging.getLogger(__name__)


@final
class Leader:
    """Holds the lock, or tries to. It goes with the connection, so that another replica leads soon after this one is gone. One thread uses it."""

    def __init__(
        self, url: URL, timeout_s: float, connect: Callable[[URL, float, int], Engine] = postgres_engine
    ) -> None:
        """`timeout_s`: longest wait for one answer of the database. Nothing is asked yet."""
        self._engine = connect(url, timeout_s, 1)
        self._held: Connection | None = None

    def leads(self) -> bool:
        """Whether this replica leads now; it tries to where nobody does."""
        try:
            if self._held is None:
                return self._try()
            # The lock is gone when the connection is, and no longer ours.
            self._held.execute(text("SELECT 1"))
        except SQLAlchemyError as error:
            _log.warning("the database of the event store does not answer who leads: %s", type(error).__name__)
            self._let_go()
        return self._held is not None

    def _try(self) -> bool:
        connection = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        if connection.execute(text("SELECT pg_try_advisory_lock(:name)"), {"name": LOCK}).scalar():
            self._held = connection
            return True
        connection.close()
        return False

    def _let_go(self) -> None:
        if self._held is not None:
            # Out of the pool: a connection that went back would keep the lock.
            self._held.invalidate()
            self._held.close()
            self._held = None

    def close(self) -> None:
        """Let go of the lock and of the connection."""
        self._let_go()
        self._engine.dispose()
