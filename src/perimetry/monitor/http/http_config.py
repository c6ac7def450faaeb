"""How the HTTP layer is set: address, names, tokens, limits, what happens to what is flagged."""

import ipaddress
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from perimetry.config import Config

__all__ = ["HttpConfig", "Limits", "Mode", "OnError", "is_loopback"]

Mode = Literal["alert", "block"]
"""What the adapters do with what is flagged: say it, or refuse it."""

OnError = Literal["open", "closed"]
"""What an adapter that may block does when there is no score: let the text through and count it, or refuse."""


def is_loopback(host: str) -> bool:
    """Whether an address can be reached from this machine alone.

    >>> is_loopback("127.0.0.1"), is_loopback("::1"), is_loopback("localhost"), is_loopback("0.0.0.0")
    (True, True, True, False)
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    plain = parts.username is None and not parts.query and not parts.fragment
    return parts.scheme in ("http", "https") and bool(parts.hostname) and plain


class Limits(Config):
    """What one client, and all together, may ask."""

    body_bytes: int = Field(default=2 * 2**20, ge=1)
    """Bytes of a body."""
    text_bytes: int = Field(default=256 * 2**10, ge=1)
    """Bytes (UTF-8) of one text; of a chat, of all its messages."""
    json_depth: int = Field(default=32, ge=1)
    """Brackets within brackets."""
    header_fields: int = Field(default=100, ge=1)
    """Header fields of a request."""
    header_bytes: int = Field(default=16 * 2**10, ge=512)
    """Bytes of the head of a request, its address included."""
    in_flight: int = Field(default=512, ge=1)
    """Requests at once."""
    connections: int = Field(default=1024, ge=1)
    """Connections at once; beyond them uvicorn answers a bare 503."""
    rate_per_s: float = Field(default=50.0, gt=0)
    """Requests a second of one key (without tokens: of one address)."""
    burst: int = Field(default=100, ge=1)
    """Requests that one key may save up."""
    head_s: float = Field(default=10.0, gt=0)
    """Seconds in which the head of a request must be complete."""
    body_s: float = Field(default=10.0, gt=0)
    """Seconds in which its body must be complete."""
    keep_alive_s: int = Field(default=5, ge=1)
    """Seconds that an idle connection is kept."""
    drain_s: int = Field(default=30, ge=0)
    """Seconds that running requests get when the service stops."""
    subscribers: int = Field(default=16, ge=1)
    """Listeners to live events."""
    stalled_s: float = Field(default=5.0, gt=0)
    """Seconds after which a client that does not read is cut off."""
    ping_s: float = Field(default=15.0, gt=0)
    """Seconds of silence after which a stream says that it is alive."""


class HttpConfig(Config):
    """The HTTP layer of the service."""

    host: str = "127.0.0.1"
    """Address to listen on. Any but this machine's own wants `tokens`."""
    port: int = Field(default=8765, ge=0, le=65535)
    """Port; 0 takes a free one."""
    hosts: tuple[str, ...] = ("127.0.0.1", "localhost", "[::1]")
    """Names that requests may call the service by, without port; "*" (only with `tokens`) stands for any."""
    tokens: Path | None = None
    """File of tokens, a line each: name, scopes (score,read,metrics), token or sha256:HEX. None: everybody on this machine may do all."""
    https: bool = False
    """Whether browsers reach the service by https (through a proxy before it), so that cookies are marked Secure."""
    alpha: float = Field(default=0.01, gt=0, le=0.5)
    """False-alarm rate where a request names none."""
    mode: Mode = "alert"
    """What the adapters do with what is flagged."""
    on_error: OnError | None = None
    """What the adapters do without a score; None: `open` in alert mode, `closed` in block mode."""
    model: str | None = None
    """Name by which requests may call the model, besides its revision."""
    detector_id: str | None = "perimetry"
    """Name of the detector in the detector API; None: the API is off."""
    litellm: bool = True
    """Whether the guardrail of LiteLLM is answered."""
    upstream: str | None = None
    """Address of an OpenAI-compatible service (http://host/v1) that chats and completions are passed on to; None: they are not."""
    upstream_s: float = Field(default=600.0, gt=0)
    """Seconds for which that service may be silent."""
    limits: Limits = Limits()
    """What may be asked."""

    @property
    def fails(self) -> OnError:
        """What happens without a score, the default worked out."""
        return self.on_error or ("open" if self.mode == "alert" else "closed")

    @model_validator(mode="after")
    def _guarded(self) -> "HttpConfig":
        if self.tokens is None and not is_loopback(self.host):
            raise ValueError(
                f"host = {self.host!r} can be reached from other machines and there are no tokens; set tokens to a file of "
                "them, or listen on 127.0.0.1"
            )
        if self.upstream is not None and not _is_address(self.upstream):
            raise ValueError(
                "upstream is no address; one such as http://127.0.0.1:8000/v1 is wanted, without user or query"
            )
        if self.tokens is None and "*" in self.hosts:
            raise ValueError(
                "hosts = '*' without tokens lets any web page read this service (DNS rebinding); name the hosts, or set tokens"
            )
        return self
