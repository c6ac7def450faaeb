"""Hashes of prompts: keyed, of 128 bits, with a key that only its owner reads."""

import hashlib
import hmac
import stat
from pathlib import Path

import pytest

from perimetry.errors import ConfigError, StorageError
from perimetry.monitor.store.hashing import install_key, prompt_hmac


def test_the_key_is_made_once_for_the_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "new" / "hash.key"
    key = install_key(path)
    assert len(key) == 32
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert install_key(path) == key
    assert install_key(tmp_path / "other.key") != key
    assert [entry.name for entry in path.parent.iterdir()] == ["hash.key"]


def test_a_key_that_others_read_or_of_the_wrong_length_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "hash.key"
    install_key(path)
    path.chmod(0o640)
    with pytest.raises(ConfigError, match="may be read by others \\(mode 0640\\); chmod 600"):
        install_key(path)
    path.chmod(0o600)
    path.write_bytes(b"short")
    with pytest.raises(ConfigError, match="holds 5 bytes and a key has 32"):
        install_key(path)
    with pytest.raises(StorageError, match="no key of hashes"):
        install_key(path / "below" / "a-file")


def test_the_hash_is_hmac_sha256_of_roles_and_contents() -> None:
    key = bytes(range(32))
    wanted = hmac.new(key, b'[["user","h\\u00e9"]]', hashlib.sha256).digest()[:16]
    assert prompt_hmac(key, [("user", "hé")]) == wanted
    cases = [
        [("user", "ab")],
        [("user", "a"), ("user", "b")],
        [("system", "ab")],
        [("", "ab")],
        [("", '[["user","ab"]]')],
        [("", "\ud800")],
    ]
    assert len({prompt_hmac(key, case) for case in cases}) == len(cases)
    assert prompt_hmac(bytes(32), cases[0]) != prompt_hmac(key, cases[0])
