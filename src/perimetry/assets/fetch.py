"""One file from the network: resumed where it stopped, verified by SHA-256, put in place in one step.

The bytes so far lie in a `.part` file named by the hash that is wanted, so a killed download continues and two files
never mix. Nothing is believed before the whole file hashes right.
"""

import contextlib
import errno
import os
import time
from collections.abc import Callable, Iterator, Sequence
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit
from urllib.request import url2pathname

import httpx

from perimetry.assets.cache import waiting_lock
from perimetry.assets.transport import open_client, redact
from perimetry.errors import DownloadFailed, HashMismatch, StorageError, StorageFull
from perimetry.storage import hash_file, require_space

__all__ = ["Outcome", "fetch", "part_path"]

BLOCK = 1 << 18
TRIES = 6
BACKOFF_S = 0.5
LONGEST_WAIT_S = 30.0
PASSING = {408, 425, 429, 500, 502, 503, 504}

Report = Callable[[int], None]


class Outcome(NamedTuple):
    """How one attempt at one address ended."""

    done: bool
    """The server has no more bytes to give."""
    again: bool
    """Trying the same address once more may help."""
    reason: str
    """Why it stopped, for the message."""
    wait: float = 0.0
    """Seconds that the server asked to wait."""


def part_path(destination: Path, sha256: str) -> Path:
    """Where the bytes of an unfinished download lie."""
    return destination.with_name(f"{sha256}.part")


@contextlib.contextmanager
def _disk(path: Path) -> Iterator[None]:
    """Turn refusals of the disk into errors of ours; the bytes so far stay for the next run."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFull(
                f"no space left while downloading to {path}; what has arrived is kept; free some space and run the "
                "same command again"
            ) from error
        raise StorageError(f"cannot write {path}: {error.strerror or error}; check the folder") from error


@contextlib.contextmanager
def _bar(label: str, size: int | None, show: bool) -> Iterator[Report]:
    if not show:
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (
        TextColumn("[progress.description]{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(label, total=size)
        yield lambda done: progress.update(task, completed=done)


def _have(part: Path) -> int:
    return part.stat().st_size if part.is_file() else 0


def _append(part: Path, start: int, blocks: Iterator[bytes], limit: int | None, report: Report) -> Outcome:
    """Write blocks from byte `start` on; what lay behind `start` is cut off."""
    with _disk(part):
        handle = open(part, "ab")  # noqa: SIM115
    done = start
    with handle:
        with _disk(part):
            handle.truncate(start)
        for block in blocks:
            with _disk(part):
                handle.write(block)
            done += len(block)
            report(done)
            if limit is not None and done > limit:
                return Outcome(done=True, again=False, reason=f"it sends more than the {limit} bytes expected")
        with _disk(part):
            handle.flush()
            os.fsync(handle.fileno())
    if limit is not None and done < limit:
        return Outcome(done=False, again=True, reason=f"it stopped after {done} of {limit} bytes")
    return Outcome(done=True, again=False, reason="")


def _retry_after(response: httpx.Response) -> float:
    value = response.headers.get("Retry-After", "")
    if value.isdigit():
        return min(float(value), LONGEST_WAIT_S)
    with contextlib.suppress(ValueError, TypeError):
        return min(max(parsedate_to_datetime(value).timestamp() - time.time(), 0.0), LONGEST_WAIT_S)
    return 0.0


def _range_start(response: httpx.Response) -> int | None:
    """First byte of a 206 answer, from `Content-Range: bytes 5-9/10`."""
    unit, _, rest = response.headers.get("Content-Range", "").partition(" ")
    first = rest.partition("-")[0]
    return int(first) if unit == "bytes" and first.isdigit() else None


def _from_http(client: httpx.Client, url: str, part: Path, size: int | None, report: Report) -> Outcome:
    start = _have(part)
    headers = {"Range": f"bytes={start}-"} if start else {}
    try:
        with client.stream("GET", url, headers=headers) as response:
            status = response.status_code
            if status == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE and start:
                if size is None:  # nothing more to send: the hash decides
                    return Outcome(done=True, again=False, reason="")
                with _disk(part):
                    part.unlink(missing_ok=True)
                return Outcome(done=False, again=True, reason="it has fewer bytes than have arrived")
            if status in PASSING:
                return Outcome(
                    done=False,
                    again=True,
                    reason=f"HTTP {status} {response.reason_phrase}",
                    wait=_retry_after(response),
                )
            if status not in (httpx.codes.OK, httpx.codes.PARTIAL_CONTENT):
                return Outcome(done=False, again=False, reason=f"HTTP {status} {response.reason_phrase}")
            first = _range_start(response) if status == httpx.codes.PARTIAL_CONTENT else 0
            if first is None or first > start:
                return Outcome(done=False, again=False, reason="it answers a range with other bytes than asked for")
            report(first)
            return _append(part, first, response.iter_raw(BLOCK), size, report)
    except (httpx.TransportError, httpx.DecodingError) as error:
        return Outcome(done=False, again=True, reason=f"{type(error).__name__}: {error}")
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return Outcome(done=False, again=False, reason=f"{type(error).__name__}: {error}")


def _from_file(url: str, part: Path, size: int | None, report: Report) -> Outcome:
    source = Path(url2pathname(urlsplit(url).path))
    if not source.is_file():
        return Outcome(done=False, again=False, reason="no such file")
    with open(source, "rb") as handle:
        outcome = _append(part, 0, iter(lambda: handle.read(BLOCK), b""), size, report)
    return outcome._replace(again=False)


def _download(
    client: httpx.Client, url: str, part: Path, wanted: str, size: int | None, report: Report
) -> tuple[str, str | None]:
    """Try one address until it gave the file or hope is gone: the reason it failed ("" for none) and a wrong hash."""
    resumed = _have(part) > 0
    tries = 0
    while True:
        before = _have(part)
        if size is not None and before == size:
            outcome = Outcome(done=True, again=False, reason="")
        elif urlsplit(url).scheme == "file":
            outcome = _from_file(url, part, size, report)
        else:
            outcome = _from_http(client, url, part, size, report)
        if outcome.done:
            with _disk(part):
                digest = hash_file(part)
                if digest == wanted:
                    return "", None
                part.unlink()
            if not resumed:
                return outcome.reason or f"its bytes hash to {digest}", digest
            resumed = False  # the bytes of the earlier run may be the wrong ones: once more, from the start
            continue
        tries = 0 if _have(part) > before else tries + 1
        if not outcome.again or tries >= TRIES:
            return outcome.reason, None
        time.sleep(max(outcome.wait, BACKOFF_S * 2**tries))


def fetch(
    urls: Sequence[str],
    sha256: str,
    size: int | None,
    destination: Path,
    *,
    progress: bool = False,
    cert: str | None = None,
    proxy: str | None = None,
) -> Path:
    """Download to `destination` from the first of `urls` that gives bytes with this SHA-256.

    `size` in bytes, or None when it is not known. Errors: `DownloadFailed`, `HashMismatch` (whole, but other bytes),
    `StorageFull`, `Locked`.
    """
    part = part_path(destination, sha256)
    failures: list[str] = []
    wrong: str | None = None
    with waiting_lock(destination.parent):
        if destination.is_file() and hash_file(destination) == sha256:
            return destination
        require_space(destination.parent, max((size or 0) - _have(part), 0), f"the download of {destination.name}")
        with open_client(cert=cert, proxy=proxy) as client, _bar(destination.name, size, progress) as report:
            for url in urls:
                reason, digest = _download(client, url, part, sha256, size, report)
                if not reason:
                    with _disk(destination):
                        os.replace(part, destination)
                    return destination
                wrong = digest or wrong
                failures.append(f"{redact(url)}: {reason}")
    if wrong is not None:
        raise HashMismatch(
            f"{destination.name} arrived with SHA-256 {wrong}, but {sha256} is pinned ({'; '.join(failures)}); "
            "the copy is damaged or another file: try another index or mirror"
        )
    raise DownloadFailed(
        f"{destination.name} could not be downloaded ({'; '.join(failures) or 'no address is known'}); check the "
        "network, the proxy and the package index that pip uses, or put a copy in a folder named by PERIMETRY_MIRROR; "
        "what has arrived is kept and the same command continues"
    )
