"""A LiteLLM proxy in a virtual environment of its own, as its pins fit nobody else's: `python tests/monitor/peers/setup_litellm.py`.

Made once from the exact list beside this file, into a folder that git ignores; again where the list or the Python has changed. Several processes
may want it at once: one makes it, the others wait. Wants the package index, or a cache of pip, the first time.
"""

import fcntl
import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

__all__ = ["litellm_command"]

PINS = Path(__file__).with_name("litellm.txt")
PLACE = Path(__file__).parents[3] / ".venv-litellm"


def _fingerprint() -> str:
    return hashlib.sha256(PINS.read_bytes() + sys.version.encode() + sys.executable.encode()).hexdigest()


def _make(environment: Path) -> None:
    shutil.rmtree(environment, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
    into = ["--python", str(environment / "bin" / "python")]
    exactly = ["--no-deps", "--only-binary", ":all:", "--require-hashes", "--no-compile"]
    subprocess.run(
        [sys.executable, "-m", "pip", *into, "install", "--quiet", *exactly, "--requirement", str(PINS)], check=True
    )


def litellm_command(place: Path = PLACE) -> Path:
    """The command `litellm`, installed where it was not. Errors: `CalledProcessError` where that fails."""
    place.mkdir(exist_ok=True)
    stamp, wanted = place / "ready", _fingerprint()
    with (place / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not stamp.is_file() or stamp.read_text() != wanted:
            stamp.unlink(missing_ok=True)
            _make(place / "environment")
            stamp.write_text(wanted)
    return place / "environment" / "bin" / "litellm"


if __name__ == "__main__":
    print(litellm_command())
