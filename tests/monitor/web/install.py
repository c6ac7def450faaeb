"""Have a Chromium for the tests of the page: `python -m tests.monitor.web.install FILE`.

Tried in this order: the one that is there (PERIMETRY_CHROMIUM, `chromium` on the path, Playwright's), the package of Debian, that of
Playwright. FILE gets what to put into the environment of the tests: nothing, or PERIMETRY_SKIP_BROWSER=1 where none could be had.
"""

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.monitor.web.browser import installed

WAYS = (
    (("apt-get", "update", "-qq"), ("apt-get", "install", "-qq", "-y", "--no-install-recommends", "chromium")),
    ((sys.executable, "-m", "playwright", "install", "chromium"),),
)
"""Commands one after the other, by way."""
PATIENCE_S = 300.0


def ran(command: Sequence[str]) -> bool:
    """Whether a command did what it should."""
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=2, timeout=PATIENCE_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def setting(have: Callable[[], bool], run: Callable[[Sequence[str]], bool] = ran) -> str:
    """What the environment of the tests gets."""
    for way in WAYS:
        if have():
            return ""
        print(f"no Chromium; trying {way[-1][0]} ...", file=sys.stderr)
        for command in way:
            run(command)
    if have():
        return ""
    print("no Chromium could be had: the tests of the page in a browser are skipped", file=sys.stderr)
    return "PERIMETRY_SKIP_BROWSER=1"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(setting(lambda: installed() is not None) + "\n", encoding="utf-8")
