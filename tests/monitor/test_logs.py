"""Lines reach the log in order, or are counted as lost; messages of exceptions reach nobody."""

import json
import logging
import os
from pathlib import Path

from perimetry.monitor.logs import logging_to

LOG = logging.getLogger("perimetry.monitor.test")


def written(path: Path, as_json: bool, level: int = logging.INFO) -> list[str]:
    with (
        path.open("wb") as file,
        logging_to(level, as_json=as_json, lines=100, lost=lambda: None, descriptor=file.fileno()),
    ):
        LOG.info("one %d", 1)
        logging.getLogger("some.library").info("not wanted")
        logging.getLogger("some.library").warning("wanted")
        try:
            raise ValueError("the secret prompt")
        except ValueError:
            LOG.exception("a fault")
    return path.read_text().splitlines()


def test_lines_for_machines(tmp_path: Path) -> None:
    lines = [json.loads(line) for line in written(tmp_path / "log", as_json=True)]
    assert [(line["level"], line["message"], line.get("fault")) for line in lines] == [
        ("info", "one 1", None),
        ("warning", "wanted", None),
        ("error", "a fault", "ValueError"),
    ]
    assert {line["logger"] for line in lines} == {"perimetry.monitor.test", "some.library"}


def test_lines_for_people(tmp_path: Path) -> None:
    lines = written(tmp_path / "log", as_json=False)
    assert [line.partition("+00:00 ")[2] for line in lines] == [
        "info one 1",
        "warning wanted",
        "error a fault (ValueError)",
    ]
    assert not any("secret" in line for line in lines)


def test_below_the_level_nothing_is_said_and_all_is_as_before_afterwards(tmp_path: Path) -> None:
    root = logging.getLogger()
    before = (root.level, list(root.handlers), logging.getLogger("perimetry").level)
    assert len(written(tmp_path / "log", as_json=False, level=logging.WARNING)) == 2
    assert (root.level, list(root.handlers), logging.getLogger("perimetry").level) == before


def test_a_reader_that_is_stuck_costs_lines_and_no_time() -> None:
    """More is logged than the pipe and the queue hold: the rest is counted, and the end does not hang."""
    reading, writing = os.pipe()
    lost: list[int] = []
    with logging_to(logging.INFO, as_json=False, lines=10, lost=lambda: lost.append(1), descriptor=writing):
        for _ in range(200):
            LOG.info("x" * 4096)
    assert 200 - len(lost) < 60
    os.close(reading)
    os.close(writing)


def test_a_reader_that_has_gone_is_nobodys_fault() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with logging_to(logging.INFO, as_json=False, lines=10, lost=lambda: None, descriptor=writing):
        LOG.info("one")
    os.close(writing)
