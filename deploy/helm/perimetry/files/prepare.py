"""Runs before the service: fetches the archive of meter and model, compares its SHA-256, and unpacks it. Standard library only."""

import argparse
import hashlib
import hmac
import os
import secrets
import shutil
import sys
import tarfile
import urllib.request
from pathlib import Path, PurePosixPath
from typing import BinaryIO

BLOCK = 1 << 20
WAIT_S = 60.0


class Refused(Exception):
    """What came is not what was asked for."""


def fetch(source: str, sink: BinaryIO) -> str:
    """Copy an address or a file; the SHA-256 of what came."""
    digest = hashlib.sha256()
    far = source.startswith(("https://", "http://"))
    with urllib.request.urlopen(source, timeout=WAIT_S) if far else Path(source).open("rb") as found:
        while block := found.read(BLOCK):
            digest.update(block)
            sink.write(block)
    return digest.hexdigest()


def place(name: str, folder: Path) -> Path:
    """Where a member goes: below the folder, or nowhere."""
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or "\\" in name or "\0" in name:
        raise Refused(f"the archive has a member that would lie elsewhere: {name[:100]!r}")
    return folder.joinpath(*parts)


def unpack(archive: Path, folder: Path) -> int:
    """Folders and plain files of an archive, nothing else; how many files there were."""
    count = 0
    with tarfile.open(archive, "r:*") as tar:
        for member in tar:
            if member.name in (".", "./"):
                continue
            target = place(member.name.removeprefix("./"), folder)
            if member.isdir():
                target.mkdir(mode=0o755, parents=True, exist_ok=True)
                continue
            found = tar.extractfile(member) if member.isreg() else None
            if found is None:
                raise Refused(f"the archive has a member that is neither file nor folder: {member.name[:100]!r}")
            target.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            with found, target.open("xb") as sink:
                shutil.copyfileobj(found, sink, BLOCK)
            count += 1
    return count


def prepare(source: str, sha256: str, folder: Path) -> int:
    """Empty the folder and fill it from the archive. Errors: `Refused`, with nothing but an empty folder left."""
    for entry in folder.iterdir():
        shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
    archive = folder / ".archive"
    try:
        with archive.open("xb") as sink:
            found = fetch(source, sink)
        if not hmac.compare_digest(found, sha256.lower()):
            raise Refused(f"the archive has SHA-256 {found}; {sha256} was wanted")
        count = unpack(archive, folder)
        if not (folder / "meter").is_dir():
            raise Refused("the archive holds no folder meter/")
    except BaseException:
        for entry in folder.iterdir():
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        raise
    archive.unlink()
    return count


def copy_key(source: Path, target: Path) -> None:
    """A key that a Secret holds, as a file that its owner alone may read: a Secret's own files belong to a group, too."""
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as sink:
        sink.write(source.read_bytes())
    temporary.replace(target)


def main(arguments: list[str] | None = None) -> int:
    """0 where all is in place, 1 where something was refused or could not be reached."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--from", dest="source", required=True, help="address or file of the archive")
    parser.add_argument("--sha256", required=True, help="its SHA-256, in hexadecimal")
    parser.add_argument("--to", dest="folder", required=True, type=Path, help="folder that is emptied and filled")
    parser.add_argument("--key", type=Path, help="key of the hashes, as it came")
    parser.add_argument("--key-to", type=Path, help="where it goes")
    asked = parser.parse_args(arguments)
    try:
        count = prepare(asked.source, asked.sha256, asked.folder)
        if asked.key is not None and asked.key_to is not None:
            copy_key(asked.key, asked.key_to)
    except (Refused, OSError, EOFError, tarfile.TarError) as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return 1
    sys.stderr.write(f"{count} files in {asked.folder}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
