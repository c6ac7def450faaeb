"""Killed, full, failing, or without power: the old state or the new one, and the same bytes when it is run again."""

import errno
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.activations.documents import make_documents
from tests.reliability.faults import Faults, files_of
from tests.reliability.power import Recorder, lay_out
from tests.train.planted import Planted, config
from tests.worlds import World, in_a_child, run_main, train_arguments

from perimetry import storage
from perimetry.activations.model import LanguageModel
from perimetry.activations.store import HarvestConfig, harvest
from perimetry.artifact import read_artifact, write_artifact
from perimetry.errors import MissingFile, PerimetryError, StorageError, StorageFull
from perimetry.shift.meter import KIND, Meter
from perimetry.train import train

pytestmark = pytest.mark.crash
Work = Callable[[Path], object]


@pytest.fixture(params=["harvest", "training", "calibration"])
def work(request: pytest.FixtureRequest, tiny_lm: LanguageModel, meter: Meter) -> Work:
    """What writes for long: it is given a folder, and goes on with what lies there."""
    settings = HarvestConfig(tokens=240, context=24, batch_rows=3, shard_tokens=100, seed=4)
    documents = make_documents(30)
    return {
        "harvest": lambda out: harvest(tiny_lm, 1, documents, out, settings),
        "training": lambda out: train(config(tokens=64 * 12), Planted(), out),
        "calibration": lambda out: meter.save(out / "meter"),
    }[request.param]


def moments(work: Work, folder: Path, patch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """The moments of an undisturbed run."""
    with patch.context() as inner:
        found = Faults(inner)
        work(folder)
    assert {"before-write", "after-write", "after-fsync", "after-rename"} <= {name for name, _ in found.seen}
    return found.seen


def chosen(seen: list[tuple[str, str]], most: int) -> list[int]:
    """The first and the last moment of each name, and others between."""
    ends = {k: i for i, (k, _) in reversed([*enumerate(seen)])} | {f"{k}.": i for i, (k, _) in enumerate(seen)}
    rest = range(0, len(seen), max(1, len(seen) // most))
    return sorted({*ends.values(), *rest})


def test_killed_at_any_moment_it_ends_with_the_same_bytes(
    work: Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = moments(work, tmp_path / "whole", monkeypatch)
    wanted = files_of(tmp_path / "whole")
    for at in chosen(seen, 8):
        out = tmp_path / f"at-{at}"

        def dies(out: Path = out, at: int = at) -> None:
            Faults(monkeypatch, at, short=bool(at % 2))
            work(out)

        assert in_a_child(dies) == -signal.SIGKILL, seen[at]
        work(out)
        assert files_of(out) == wanted, f"killed at {seen[at]}, the {at + 1}. of {len(seen)}"


@pytest.mark.parametrize(
    ("work", "code"),
    [("harvest", errno.EIO)]
    + [(name, code) for name in ("training", "calibration") for code in (errno.ENOSPC, errno.EIO, errno.EROFS)],
    indirect=["work"],
)
def test_a_disk_that_refuses_is_named_and_a_second_run_is_whole(
    work: Work, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = moments(work, tmp_path / "whole", monkeypatch)
    wanted = files_of(tmp_path / "whole")
    kind = StorageFull if code == errno.ENOSPC else StorageError
    for at in chosen([(k, n) for k, n in seen if k != "after-manifest"], 3):
        out = tmp_path / f"at-{at}"
        with monkeypatch.context() as patch:
            Faults(patch, at, OSError(code, os.strerror(code)), short=True)
            with pytest.raises(kind, match=r"while writing|cannot write"):
                work(out)
        assert not [p for p in out.rglob("*") if p.name.startswith(".tmp-")]
        work(out)
        assert files_of(out) == wanted, seen[at]


def test_an_older_meter_outlives_a_failed_calibration(
    meter: Meter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "meter"
    write_artifact(place, KIND, {"old": {"x": torch.ones(2)}}, {"meter": {}})
    old = read_artifact(place, KIND).digest
    seen = moments(meter.save, tmp_path / "other", monkeypatch)
    for at in range(0, len(seen), 3):

        def dies(at: int = at) -> None:
            Faults(monkeypatch, at)
            meter.save(place)

        assert in_a_child(dies) == -signal.SIGKILL
        assert read_artifact(place, KIND).digest in (old, meter.digest), seen[at]
        write_artifact(place, KIND, {"old": {"x": torch.ones(2)}}, {"meter": {}})


def states_after(recorder: Recorder, tmp_path: Path) -> list[Path]:
    """Every state that the loss of power may leave, laid out."""
    found: list[Path] = []
    unique: set[str] = set()
    for names, data in recorder.states():
        key = repr((sorted(names.items()), sorted(data.items())))
        if key not in unique:
            unique.add(key)
            found.append(tmp_path / f"state-{len(found)}")
            lay_out(names, data, recorder.root.stat().st_ino, found[-1])
    return found


@pytest.mark.parametrize("old", [None, b"old"])
def test_a_file_survives_the_loss_of_power(old: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "disk"
    root.mkdir()
    if old is not None:
        (root / "x").write_bytes(old)
    with monkeypatch.context() as patch:
        recorder = Recorder(root, patch)
        storage.write_bytes(root / "x", b"new")
    left = [(s / "x").read_bytes() if (s / "x").exists() else None for s in states_after(recorder, tmp_path)]
    assert set(left) == {old, b"new"}
    assert left[-1] == b"new", "once the call has returned, it lasts"


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("swap", [False, True])
def test_an_artifact_survives_the_loss_of_power(
    before: bool, swap: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "disk"
    root.mkdir()
    digests: set[str | None] = {None}
    if before:
        digests = {write_artifact(root / "a", "thing", {"w": {"x": torch.zeros(3)}}, {"d": {"n": 0}})}
    with monkeypatch.context() as patch:
        recorder = Recorder(root, patch)
        if not swap:
            patch.setattr(storage, "_exchange", lambda one, other: False)
        new = write_artifact(root / "a", "thing", {"w": {"x": torch.ones(3)}}, {"d": {"n": 1}})
    found: list[str | None] = []
    for state in states_after(recorder, tmp_path):
        try:
            found.append(read_artifact(state / "a", "thing").digest)
        except MissingFile:
            # Where the system cannot exchange two folders there is a moment without either; the old one lies beside.
            assert not before or not swap
            found.append(None)
    assert set(found) <= digests | {new, None}
    assert found[-1] == new
    assert len(found) > 8


def test_a_write_that_syncs_nothing_would_be_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model finds the fault that it is there for."""
    root = tmp_path / "disk"
    root.mkdir()
    (root / "x").write_bytes(b"old")
    with monkeypatch.context() as patch:
        recorder = Recorder(root, patch)
        (root / "y").write_bytes(b"new")
        storage.os.replace(root / "y", root / "x")
    left = {(s / "x").read_bytes() if (s / "x").exists() else None for s in states_after(recorder, tmp_path)}
    assert b"" in left, "renamed before its data were safe"


def test_a_second_writer_names_the_first_and_exits_2(world: World, tmp_path: Path) -> None:
    with storage.lock(tmp_path / "out"):
        found = run_main(*train_arguments(world.model, world.corpus, tmp_path / "out"), "--json")
    kind, message = found.error()
    assert kind == "Locked"
    assert f"process {os.getpid()} is writing" in message


def test_what_is_refused_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for code in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EACCES, errno.EMFILE):
        with monkeypatch.context() as patch:
            Faults(patch, 0, OSError(code, os.strerror(code)))
            with pytest.raises(PerimetryError, match=str(tmp_path)):
                storage.write_bytes(tmp_path / "x", b"x")
    assert list(tmp_path.iterdir()) == []
