"""Where and how events are kept."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from perimetry.config import Config

__all__ = ["Ack", "StoreConfig", "TextKept"]

Ack = Literal["queued", "committed", "dropped"]
"""What has become of an event: waiting to be written, written so that the death of the process does not lose it, or lost
and counted."""

TextKept = Literal["off", "redacted", "full"]
"""What is kept of the words of a prompt: nothing, the text with personal data blotted out as far as is seen, or all."""


class StoreConfig(Config):
    """Where and how events are kept."""

    folder: Path = Path("runs/monitor")
    """Holds the SQLite file, the key and the fragments; made where it is missing. One process at a time owns it."""
    url: str | None = Field(default=None, repr=False)
    """Database: None is `events.sqlite` in the folder; else `sqlite:///FILE` or `postgresql+psycopg://USER@HOST/NAME`."""
    key_file: Path | None = None
    """Key of the hashes of prompts; None is `hash.key` in the folder. Replicas that share a database share a key."""
    ack: Literal["async", "commit"] = "async"
    """`async` answers `queued` at once; `commit` waits for the commit and answers `committed`."""
    ack_timeout_ms: int = Field(default=2_000, ge=1)
    """Longest wait of `commit`, in milliseconds; after it the answer is `queued`."""
    synchronous: Literal["NORMAL", "FULL"] = "NORMAL"
    """SQLite: NORMAL may lose the last commits when power fails, FULL syncs each of them."""
    text: TextKept = "off"
    """What is kept of the words of prompts. Redaction is best effort."""
    text_days: float = Field(default=7.0, gt=0)
    """Days after which kept words are wiped."""
    text_chars: int = Field(default=16_384, ge=1)
    """Code points of a text that are kept at most, up to the last space before."""
    retain_days: float = Field(default=30.0, gt=0)
    """Days after which events go."""
    retain_bytes: int = Field(default=2**30, ge=2**20)
    """Bytes of the database above which the oldest events go."""
    retain_rows: int = Field(default=5_000, ge=1)
    """Events that one transaction removes at most."""
    retain_every_s: float = Field(default=60.0, gt=0)
    """Seconds between two looks at age and size."""
    rollup_days: float = Field(default=365.0, gt=0)
    """Days for which the sums by minute and the drift windows outlive the events."""
    queue_rows: int = Field(default=10_000, ge=1)
    """Events that wait at most; further ones are dropped and counted."""
    queue_bytes: int = Field(default=64 * 2**20, ge=2**16)
    """Bytes of text that wait at most, where text is kept."""
    commit_ms: float = Field(default=50.0, ge=0)
    """Milliseconds from the first waiting event to the commit."""
    commit_rows: int = Field(default=128, ge=1, le=1_000)
    """Events at which a commit does not wait any longer."""
    least_free_bytes: int = Field(default=256 * 2**20, ge=0)
    """Free bytes of the disk below which nothing is written."""
    retry_s: float = Field(default=30.0, gt=0)
    """Seconds until a full disk is tried again, and the longest wait for a database that is down."""
    full_check_bytes: int = Field(default=256 * 2**20, ge=0)
    """Size of an SQLite file above which the start makes the quick check only, and the full one goes on beside the work."""
    fragment_bytes: int = Field(default=64 * 2**20, ge=2**16)
    """Bytes of all fragments that a missing PostgreSQL may leave on the disk."""
    database_timeout_s: float = Field(default=5.0, gt=0)
    """Longest wait for a connection to PostgreSQL (at least 2 seconds) or for one answer of it."""
    force_network: bool = False
    """Keep an SQLite file on a network mount although its locks cannot be trusted."""
