"""Names for prompts that only the holder of a key can make: the same prompt has the same name, and the name tells nothing.

Pseudonymous, not anonymous: who holds the key can test whether a prompt that he knows was seen.
"""

import hashlib
import hmac
import json
import os
import secrets
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from perimetry.errors import ConfigError, StorageError

__all__ = ["install_key", "prompt_hmac"]

KEY_BYTES: Final = 32
HASH_BYTES: Final = 16


def _make_key(path: Path) -> None:
    """Write a new key beside its place and link it there: of two processes that start together one wins, whole."""
    temporary = path.with_name(f".tmp-{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as handle:
            handle.write(secrets.token_bytes(KEY_BYTES))
            handle.flush()
            os.fsync(handle.fileno())
        try:
            os.link(temporary, path)
        except FileExistsError:
            return
    finally:
        temporary.unlink(missing_ok=True)


def install_key(path: Path) -> bytes:
    """The key of this installation, 32 bytes: made at the first call, for the owner's eyes only (mode 0600).

    Errors: `ConfigError` for a file that others may read or that holds no key, `StorageError` where it cannot be made.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.exists():
            _make_key(path)
        mode = stat.S_IMODE(path.stat().st_mode)
        key = path.read_bytes()
    except OSError as error:
        raise StorageError(
            f"no key of hashes at {path}: {error.strerror or error}; check the folder and its permissions"
        ) from error
    if mode & 0o077:
        raise ConfigError(f"{path} may be read by others (mode {mode:04o}); chmod 600 it, or name another key file")
    if len(key) != KEY_BYTES:
        raise ConfigError(
            f"{path} holds {len(key)} bytes and a key has {KEY_BYTES}; put the right file there, or remove it: with a new "
            "key the same prompt gets another hash"
        )
    return key


def prompt_hmac(key: bytes, messages: Sequence[tuple[str, str]]) -> bytes:
    """HMAC-SHA256 of the roles and contents of a prompt, the first 16 bytes. Plain text has one message of the role "".

    >>> prompt_hmac(bytes(32), [("", "hello")]).hex()
    '61dd7d007c7adf5c236271f5646ece78'
    """
    written = json.dumps([[role, content] for role, content in messages], separators=(",", ":"))
    return hmac.new(key, written.encode("ascii"), hashlib.sha256).digest()[:HASH_BYTES]
