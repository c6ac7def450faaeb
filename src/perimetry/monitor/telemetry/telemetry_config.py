"""How telemetry is set: where it goes, how much of it may wait, and for how long."""

from pathlib import Path
from typing import Final, Literal
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from perimetry.config import Config
from perimetry.errors import ConfigError, MissingFile

__all__ = ["TelemetryConfig", "read_headers"]

_LOGS: Final = "/v1/logs"


def _fault(endpoint: str) -> str | None:
    """What is wrong with the address of a collector."""
    try:
        parts = urlsplit(endpoint)
    except ValueError:
        return "it cannot be read"
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return "http:// or https:// and a host are wanted"
    if parts.username is not None or parts.query or parts.fragment:
        return "no user, query or fragment is taken; secrets belong into the file of headers"
    return None


class TelemetryConfig(Config):
    """One OpenTelemetry event for every score and every failure; off unless there is an endpoint."""

    endpoint: str | None = None
    """Address of a collector, such as http://127.0.0.1:4318; without a path, /v1/logs is added. None: no telemetry."""
    headers: Path | None = None
    """File of headers for the collector, a line each: `name: value`. The place for its token."""
    protocol: Literal["http/protobuf"] = "http/protobuf"
    """How the collector is spoken to."""
    service_name: str = Field(default="perimetry", min_length=1)
    """What the collector knows this service by."""
    queue: int = Field(default=2_048, ge=1)
    """Events that wait at most; further ones are dropped and counted."""
    batch: int = Field(default=256, ge=1)
    """Events that are sent together at most."""
    wait_s: float = Field(default=1.0, ge=0)
    """Seconds that an event waits for company."""
    timeout_s: float = Field(default=5.0, gt=0)
    """Seconds in which a batch must be taken, further attempts included; else it is dropped and counted."""
    close_s: float = Field(default=2.0, ge=0)
    """Seconds that the end of the service waits for what has not been sent; the rest is dropped and counted."""

    @property
    def address(self) -> str | None:
        """Where events are sent to, in full.

        >>> TelemetryConfig(endpoint="http://127.0.0.1:4318").address
        'http://127.0.0.1:4318/v1/logs'
        """
        if self.endpoint is None or urlsplit(self.endpoint).path.strip("/"):
            return self.endpoint
        return self.endpoint.rstrip("/") + _LOGS

    @model_validator(mode="after")
    def _reachable(self) -> "TelemetryConfig":
        fault = None if self.endpoint is None else _fault(self.endpoint)
        if fault is not None:
            raise ValueError(f"endpoint is no address of a collector: {fault}")
        return self


def read_headers(path: Path) -> dict[str, str]:
    """Headers from a file; empty lines and lines that begin with # do not count. Errors: `MissingFile`, `ConfigError`, without what the file says."""
    if not path.is_file():
        raise MissingFile(f"no file of headers {path}; check telemetry.headers")
    found: dict[str, str] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        name, colon, value = (part.strip() for part in line.partition(":"))
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if not colon or not value or not name.replace("-", "").replace("_", "").isalnum() or not value.isprintable():
            raise ConfigError(f"{path}, line {number} is no header; wanted `name: value`")
        found[name.lower()] = value
    return found
