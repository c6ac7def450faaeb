"""The sentinel passes what is as it was, and nothing else."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from perimetry.errors import CorruptArtifact
from perimetry.monitor.mock_tap import MockTap
from perimetry.monitor.sentinel import check_sentinel
from perimetry.monitor.tap import AbstractTap, Facts, Probe
from perimetry.monitor.wire import Answer, Asked


class Changed(AbstractTap):
    """The mock, one of whose probes is another one now."""

    def __init__(self, change: Callable[[Probe], Probe], tolerance: float = 0.02) -> None:
        self._mock, self._change, self._tolerance = MockTap(0.0, 0.01), change, tolerance

    @property
    def facts(self) -> Facts:
        return self._mock.facts._replace(spread=2.0, tolerance=self._tolerance)

    def run(self, rows: Sequence[Asked], cancelled: Callable[[], bool]) -> list[Answer]:
        return self._mock.run(rows, cancelled)

    def probe(self) -> list[Probe]:
        first, *others = [probe._replace(vector=[1.0, 0.0]) for probe in self._mock.probe()]
        return [*others, self._change(first)]


def same(probe: Probe) -> Probe:
    return probe


def test_the_first_start_is_kept_and_the_second_compared(tmp_path: Path) -> None:
    first = check_sentinel(Changed(same), tmp_path / "deep")
    assert first.ok
    assert "first start" in first.detail
    (file,) = (tmp_path / "deep").iterdir()
    before = file.read_bytes()
    assert check_sentinel(Changed(same), tmp_path / "deep").detail == "as at the first start"
    assert file.read_bytes() == before


@pytest.mark.parametrize(
    ("change", "ok"),
    [
        (lambda p: p._replace(score=p.score + 0.039), True),
        (lambda p: p._replace(score=p.score + 0.041), False),
        (lambda p: p._replace(score=p.score - 0.041), False),
        (lambda p: p._replace(vector=[1.0, 0.04]), True),
        (lambda p: p._replace(vector=[1.0, 0.05]), False),
        (lambda p: p._replace(vector=[1.0]), False),
        (lambda p: p._replace(ids=[*p.ids[:-1], 7]), False),
        (lambda p: p._replace(text=p.text + " "), False),
        (lambda p: p._replace(score=math.nan), False),
        (lambda p: p._replace(vector=[math.inf, 1.0]), False),
    ],
)
def test_what_moved_too_far_does_not_pass(tmp_path: Path, change: Callable[[Probe], Probe], ok: bool) -> None:
    assert check_sentinel(Changed(same), tmp_path).ok
    verdict = check_sentinel(Changed(change), tmp_path)
    assert verdict.ok == ok, verdict
    assert check_sentinel(Changed(same), tmp_path).ok


def test_numbers_that_are_none_are_never_kept(tmp_path: Path) -> None:
    assert not check_sentinel(Changed(lambda p: p._replace(score=math.nan)), tmp_path).ok
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["{}", "[]", '{"probes": []}', '{"probes": [{"text": "x"}]}', '{"probes": [1]}', "no"])
def test_a_damaged_file_is_told(tmp_path: Path, text: str) -> None:
    check_sentinel(Changed(same), tmp_path)
    (file,) = tmp_path.iterdir()
    file.write_text(text)
    with pytest.raises(CorruptArtifact):
        check_sentinel(Changed(same), tmp_path)
