"""A Chromium is installed where there is none, by the first way that works, and what cannot be had is said."""

from collections.abc import Sequence

import pytest
from tests.monitor.web.install import ran, setting


def having(*after: str) -> tuple[list[str], str]:
    """The programs that were run, and the setting, where there is a browser once these have run."""
    runs: list[str] = []

    def run(command: Sequence[str]) -> bool:
        runs.append(" ".join(command).rpartition("/")[2])
        return True

    found = setting(lambda: any(done in line for line in runs for done in after) or "" in after, run)
    return runs, found


def test_one_that_is_there_is_taken() -> None:
    assert having("") == ([], "")


def test_debian_first_then_playwright() -> None:
    runs, found = having("apt-get install")
    assert (found, [line.split()[1] for line in runs]) == ("", ["update", "install"])
    runs, found = having("playwright install")
    assert (found, len(runs)) == ("", 3)


def test_none_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert having("nothing")[1] == "PERIMETRY_SKIP_BROWSER=1"
    assert "are skipped" in capsys.readouterr().err


def test_what_fails_is_no_fault() -> None:
    assert not ran(["false"])
    assert not ran(["there-is-no-such-program"])
    assert ran(["true"])
