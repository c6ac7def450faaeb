"""The set-up of the other project's environment: once, again where something changed, and by one process at a time."""

import threading
from pathlib import Path

import pytest
from tests.monitor.peers import setup_litellm


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Environments that were made; making one takes no time here."""
    found: list[Path] = []
    monkeypatch.setattr(setup_litellm, "_make", found.append)
    return found


def test_it_is_made_once_and_again_when_the_list_changes(
    tmp_path: Path, made: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(2):
        assert setup_litellm.litellm_command(tmp_path) == tmp_path / "environment" / "bin" / "litellm"
    assert made == [tmp_path / "environment"]
    other = tmp_path / "other.txt"
    other.write_text("another==1")
    monkeypatch.setattr(setup_litellm, "PINS", other)
    setup_litellm.litellm_command(tmp_path)
    assert len(made) == 2


def test_one_that_was_not_finished_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Path) -> None:
        raise RuntimeError("the network is gone")

    monkeypatch.setattr(setup_litellm, "_make", fail)
    for _ in range(2):
        with pytest.raises(RuntimeError):
            setup_litellm.litellm_command(tmp_path)


def test_two_at_once_make_it_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, begun, go = list[Path](), threading.Event(), threading.Event()

    def make(path: Path) -> None:
        made.append(path)
        begun.set()
        assert go.wait(20)

    monkeypatch.setattr(setup_litellm, "_make", make)
    threads = [threading.Thread(target=setup_litellm.litellm_command, args=(tmp_path,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    assert begun.wait(20)
    go.set()
    for thread in threads:
        thread.join(20)
    assert made == [tmp_path / "environment"]


def test_the_list_is_exact_and_hashed() -> None:
    lines = setup_litellm.PINS.read_text().replace("\\\n", "").splitlines()
    wanted = [line for line in lines if not line.startswith("#")]
    assert any(line.startswith("litellm==") for line in wanted)
    assert all("==" in line and "--hash=sha256:" in line for line in wanted)
