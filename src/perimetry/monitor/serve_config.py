"""Everything that `perimetry serve` is told, in one place: the section `serve` of a configuration file."""

from typing import Final

from pydantic import Field, model_validator

from perimetry.config import Config
from perimetry.monitor.config import MonitorConfig
from perimetry.monitor.drift.drift_config import DriftConfig
from perimetry.monitor.http.http_config import HttpConfig
from perimetry.monitor.store.store_config import StoreConfig
from perimetry.monitor.telemetry.telemetry_config import TelemetryConfig

__all__ = ["SECTION", "ServeConfig"]

SECTION: Final = "serve"
"""Section of the configuration file, and the middle of the names of its environment variables."""


class ServeConfig(Config):
    """The service. Each part is a table of its own: `[serve.http]`, `[serve.engine.batch]`, `[serve.store]` ..."""

    http: HttpConfig = HttpConfig()
    """Where it listens, to whom, and what clients may ask."""
    engine: MonitorConfig = MonitorConfig()
    """What scores, in which batches, within which times."""
    events: bool = True
    """Whether events are kept."""
    store: StoreConfig = StoreConfig()
    """Where and how they are kept."""
    store_required: bool = False
    """Whether the service is not ready while events cannot be written. Scores never wait for them in any case."""
    drift: DriftConfig = DriftConfig()
    """How the traffic is held against the calibration."""
    telemetry: TelemetryConfig = TelemetryConfig()
    """Where OpenTelemetry events go, if anywhere."""
    log_lines: int = Field(default=10_000, ge=1)
    """Lines that may wait for whoever reads the log; further ones are lost and counted."""

    @model_validator(mode="after")
    def _fit_together(self) -> "ServeConfig":
        if self.engine.alpha not in (MonitorConfig().alpha, self.http.alpha):
            raise ValueError(
                f"engine.alpha is {self.engine.alpha:g} and http.alpha {self.http.alpha:g}; set http.alpha alone, the engine takes it from there"
            )
        if self.http.limits.drain_s < self.engine.time.drain_s:
            raise ValueError(
                f"http.limits.drain_s is {self.http.limits.drain_s} and engine.time.drain_s {self.engine.time.drain_s:g}: "
                "requests would be cut off while their rows are still scored; raise the first or lower the second"
            )
        return self

    @property
    def scoring(self) -> MonitorConfig:
        """The configuration of the engine, with the rate that requests get which name none."""
        return self.engine.model_copy(update={"alpha": self.http.alpha})
