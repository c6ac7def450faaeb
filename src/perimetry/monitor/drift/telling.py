"""What Prometheus and the log hear of drift."""

import logging

from perimetry.monitor.drift.watch import Watch, WindowDone
from perimetry.monitor.http.metrics import Metrics

__all__ = ["tell"]

_log = logging.getLogger(__name__)


def tell(metrics: Metrics, watch: Watch, done: WindowDone | None, *, crossed: bool) -> None:
    """Tell of a prompt that was taken, and of the window that it filled. `crossed`: the sum has reached its threshold with it."""
    metrics.cusum.set(watch.cusum)
    if crossed:
        metrics.drift_alarms.labels("cusum").inc()
        _log.warning("drift alarm: the cumulative sum of p-values has reached %.2f", watch.cusum)
    if done is None:
        return
    for one in done.judgements:
        metrics.drift_statistic.labels(one.name).set(one.tested.statistic)
        metrics.drift_effect.labels(one.name).set(one.effect.value)
        if done.alarm and one.alarms:
            metrics.drift_alarms.labels(one.name).inc()
    found = [one.name for one in done.judgements if one.alarms]
    if found:
        level = "alarm" if done.alarm else "watch"
        _log.warning("drift %s: window %d differs from the calibration (%s)", level, done.number, ", ".join(found))
