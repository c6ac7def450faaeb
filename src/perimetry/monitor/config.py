"""What the engine of the service is told: how much it takes, how long it waits, and what it loads."""

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from perimetry.config import Config

__all__ = ["BatchConfig", "LimitConfig", "MonitorConfig", "TimeConfig", "WorkerConfig"]


class LimitConfig(Config):
    """How much is taken at most. Beyond it there is a refusal, never a wait."""

    prompt_tokens: int = Field(default=8192, ge=1)
    """Tokens of one prompt; the context of the model where that is less."""
    request_tokens: int = Field(default=32_768, ge=1)
    """Tokens of one request."""
    queue_rows: int = Field(default=512, ge=1)
    """Rows that were let in and have no answer yet."""
    queue_tokens: int = Field(default=131_072, ge=1)
    """Tokens of those rows."""


class BatchConfig(Config):
    """How rows become batches."""

    mode: Literal["packed", "exact"] = "packed"
    """`packed` pads rows of like length together; `exact` gives each row a forward pass of its own and deterministic kernels,
    so that a score does not depend on what else came in, to the bit."""
    tokens: int = Field(default=16_384, ge=1)
    """Padded tokens of one batch: rows times the longest."""
    rows: int = Field(default=32, ge=1)
    """Rows of one batch."""
    wait_ms: float = Field(default=3.0, ge=0)
    """How long the oldest row waits for company, in milliseconds; it does not where no other row is on its way."""
    padding: float = Field(default=0.25, ge=0, lt=1)
    """Share of a batch that may be padding."""


class TimeConfig(Config):
    """How long things may take."""

    batch_hard_ms: int = Field(default=30_000, ge=1)
    """Milliseconds after which a batch that still runs costs the worker its life."""
    drain_s: float = Field(default=30.0, ge=0)
    """Seconds that a stop waits for what has begun."""
    model_load_s: float = Field(default=600.0, gt=0)
    """Seconds for the worker to load the model and pass the sentinel."""
    sentinel_idle_s: float = Field(default=600.0, gt=0)
    """Seconds of idleness after which the sentinel is asked again."""
    respawn_first_s: float = Field(default=1.0, gt=0)
    """Seconds before a dead worker is started again; twice as long after each further death."""
    respawn_most_s: float = Field(default=30.0, gt=0)
    """The longest of these waits."""
    deaths: int = Field(default=5, ge=1)
    """Deaths of the worker within `deaths_s` after which the service gives up."""
    deaths_s: float = Field(default=600.0, gt=0)
    """Seconds in which they are counted."""


class WorkerConfig(Config):
    """What the process that owns the model loads, and how it computes."""

    tap: Literal["meter", "mock"] = "meter"
    """`mock` scores nothing real and loads nothing; it is there for tests of everything around the model."""
    model: str | None = None
    """Where the model lies, if not where the meter was made."""
    adapter: Path | None = None
    """Folder of an adapter to put on the model."""
    device: str = "auto"
    """As of every command: `auto`, `cpu`, `cuda`, `cuda:1` ..."""
    threads: int = Field(default=0, ge=0)
    """Threads of CPU operations; 0 leaves the default of the machine."""
    state: Path | None = None
    """Folder in which the sentinel of a meter is kept; None is the user's folder for such things."""
    mock_ms: float = Field(default=5.0, ge=0)
    """Milliseconds that a batch of the mock takes."""


class MonitorConfig(Config):
    """The engine."""

    alpha: float = Field(default=0.01, gt=0, le=0.5)
    """False-alarm rate for which thresholds are stated; `perimetry serve` gives that of requests that name none."""
    limits: LimitConfig = LimitConfig()
    """How much is taken."""
    batch: BatchConfig = BatchConfig()
    """How rows become batches."""
    time: TimeConfig = TimeConfig()
    """How long things may take."""
    worker: WorkerConfig = WorkerConfig()
    """What is loaded."""

    @model_validator(mode="after")
    def _fit_together(self) -> "MonitorConfig":
        for name, room in (("batch.tokens", self.batch.tokens), ("limits.queue_tokens", self.limits.queue_tokens)):
            if room < self.limits.prompt_tokens:
                raise ValueError(
                    f"{name} is {room} and limits.prompt_tokens {self.limits.prompt_tokens}: a prompt of that length would "
                    "never be scored; raise the first or lower the second"
                )
        return self
