"""Jobs in processes, figures, and what a lab prints."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from perimetry.errors import ConfigError
from perimetry.labs import LABS
from perimetry.labs.base import Line, Panel
from perimetry.labs.pictures import keep_panels
from perimetry.labs.running import run_lab
from perimetry.labs.swing_by.lab import SwingByConfig

LAB = LABS["swing-by"]
SMALL = SwingByConfig(
    seeds={"theory": 2, "deep_linear": 1, "network": 1, "count": 1},
    theory=("1_2",),
    networks=("net_one_layer",),
    count_arms=(),
    points=200,
    shorten=0.05,
    watch=0,
)


def test_numbers_do_not_depend_on_how_many_processes_there_are(tmp_path: Path) -> None:
    said: list[str] = []
    alone = run_lab(LAB, SMALL, tmp_path / "alone")
    spread = run_lab(LAB, SMALL, tmp_path / "spread", workers=2, say=said.append)
    assert spread["rows"] == alone["rows"]
    assert [line.split()[0] for line in said] == [f"{i}/5" for i in range(1, 6)]


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="children are read from /proc")
def test_killed_it_leaves_no_process_behind(tmp_path: Path) -> None:
    """The processes that jobs are spread over end with the one that made them, even where that gets no word in."""
    script = (
        "from pathlib import Path; from perimetry.labs import LABS; from perimetry.labs.running import run_lab\n"
        f"if __name__ == '__main__': run_lab(LABS['swing-by'], LABS['swing-by'].presets['quick'], Path({str(tmp_path)!r}), workers=2)"
    )
    file = tmp_path / "run.py"
    file.write_text(script)
    parent = subprocess.Popen([sys.executable, str(file)])
    children: list[int] = []
    try:
        end = time.monotonic() + 120
        while len(children) < 2 and time.monotonic() < end:
            time.sleep(0.2)
            children = _children(parent.pid)
        assert len(children) >= 2
    finally:
        parent.kill()
        parent.wait()
    while any(map(_runs, children)) and time.monotonic() < end:
        time.sleep(0.2)
    assert [child for child in children if _runs(child)] == []


def _runs(pid: int) -> bool:
    """Whether a process is alive; one that ended and that nobody has asked after is not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _children(pid: int) -> list[int]:
    found = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in found.read_text().split()] if found.exists() else []


def test_another_configuration_is_refused(tmp_path: Path) -> None:
    run_lab(LAB, SMALL, tmp_path)
    with pytest.raises(ConfigError, match="with other settings \\(points\\)"):
        run_lab(LAB, SMALL.model_copy(update={"points": 300}), tmp_path)


def test_a_figure_and_its_data(tmp_path: Path) -> None:
    lines = [Line("a", [1.0, 10.0], [0.5, 0.7], [0.4, 0.6], [0.6, 0.8]), Line("b", [1.0, 10.0], [0.1, 0.2])]
    (made,) = keep_panels([Panel("p", "A title", "x", "y", lines, log_x=True, level=0.5)], tmp_path)
    assert made.read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "p.csv").read_text().splitlines() == [
        "line,x,y,low,high",
        "a,1.0,0.5,0.4,0.6",
        "a,10.0,0.7,0.6,0.8",
        "b,1.0,0.1,,",
        "b,10.0,0.2,,",
    ]
