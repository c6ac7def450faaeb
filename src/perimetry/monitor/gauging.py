"""What Prometheus may read of the engine and of the store."""

from perimetry.monitor.dispatch import BatchDone
from perimetry.monitor.http.metrics import Metrics
from perimetry.monitor.http.scrape import Totals
from perimetry.monitor.store.event_store import EventStore
from perimetry.monitor.supervisor import Supervisor

__all__ = ["count_batch", "read_engine", "read_store"]


def count_batch(metrics: Metrics, done: BatchDone) -> None:
    """A batch that came back."""
    metrics.batch_rows.observe(done.rows)
    metrics.padding_ratio.observe(1 - done.tokens / done.padded if done.padded else 0.0)
    metrics.forward.observe(done.seconds)
    metrics.tokens.labels("scored").inc(done.tokens)
    metrics.tokens.labels("padding").inc(max(0, done.padded - done.tokens))
    for wait in done.waits:
        metrics.queue_wait.observe(wait)


def read_engine(metrics: Metrics, engine: Supervisor) -> None:
    """Read the engine whenever Prometheus asks."""
    restarts = Totals(metrics.worker_restarts)

    def read() -> None:
        gauges = engine.gauges
        metrics.queue_rows.set(gauges.queue_rows)
        metrics.queue_tokens.set(gauges.queue_tokens)
        metrics.worker_up.set(gauges.up)
        metrics.sentinel_ok.set(engine.checks()["sentinel"] == "ok")
        restarts.to(gauges.restarts)

    metrics.before(read)


def read_store(metrics: Metrics, store: EventStore) -> None:
    """Read the store whenever Prometheus asks."""
    written, dropped = Totals(metrics.events_written), Totals(metrics.events_dropped)

    def read() -> None:
        state = store.state()
        metrics.event_queue.set(state.queue)
        metrics.store_bytes.set(state.file_bytes)
        written.to({"": state.written})
        dropped.to(state.dropped)

    metrics.before(read)
