"""`perimetry train` and `calibrate` as a user calls them: settings, repeats, and a process that is killed."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from tests.worlds import (
    FLAGS,
    Outcome,
    World,
    calibrate_arguments,
    child_environment,
    run_child,
    run_main,
    text_of,
    train_arguments,
    write_jsonl,
)

from perimetry.sae.formats import load_sae
from perimetry.shift.loading import load_meter
from perimetry.storage import hash_file

PATIENCE_S = 240


def hashes(folder: Path) -> Mapping[str, str]:
    """Every file that a finished training leaves, but for the log, which holds times."""
    files = [p for p in sorted(folder.rglob("*")) if p.is_file() and p.name not in (".lock", "log.jsonl")]
    return {p.relative_to(folder).as_posix(): hash_file(p) for p in files}


def kill_when(arguments: list[str], ready: Callable[[], bool]) -> int:
    """Start the command as a process, kill it with signal 9 as soon as `ready`; its exit status."""
    child = subprocess.Popen(
        [sys.executable, "-m", "perimetry", *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=child_environment(),
    )
    try:
        end = time.monotonic() + PATIENCE_S
        while child.poll() is None and not ready():
            assert time.monotonic() < end, "the command never came to the moment of the kill"
            time.sleep(0.002)
    finally:
        if child.poll() is None:
            os.kill(child.pid, signal.SIGKILL)
    return child.wait()


@pytest.mark.slow
def test_killed_in_harvest_and_in_training_it_ends_with_the_same_hashes(world: World, tmp_path: Path) -> None:
    text = write_jsonl(tmp_path / "text.jsonl", [{"id": f"k{i}", "text": text_of(f"k{i}", 150)} for i in range(400)])

    def arguments(out: Path) -> list[str]:
        return train_arguments(world.model, text, out, tokens=100_000)

    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert run_child(*arguments(whole)).code == 0
    shards, checkpoints = cut / "store", cut / "checkpoints"
    assert kill_when(arguments(cut), lambda: any(shards.glob("shard-*"))) == -signal.SIGKILL
    assert not (shards / "manifest.json").exists(), "killed in the harvest"
    for _ in range(2):
        assert kill_when(arguments(cut), lambda: any(checkpoints.glob("[!.]*"))) == -signal.SIGKILL
        assert (shards / "manifest.json").is_file(), "killed in the training"
        assert not (cut / "sae").exists()
    done = run_child(*arguments(cut), "--json")
    assert done.code == 0, done.err
    assert hashes(cut) == hashes(whole)
    assert done.json()["saes"][0]["digest"] == load_sae(whole).info.digest


def test_the_same_command_again_does_nothing_and_says_the_same(world: World, tmp_path: Path) -> None:
    out = tmp_path / "sae"
    first = run_main(*train_arguments(world.model, world.corpus, out), "--json")
    before = {p: p.stat().st_mtime_ns for p in (out / "sae").iterdir()}
    second = run_main(*train_arguments(world.model, world.corpus, out), "--json")
    assert first.json() == second.json()
    assert {p: p.stat().st_mtime_ns for p in (out / "sae").iterdir()} == before
    assert first.json()["saes"][0]["digest"] == load_sae(world.sae).info.digest, "another folder, the same bytes"


def test_other_settings_in_the_same_folder_are_refused(world: World, tmp_path: Path) -> None:
    out = tmp_path / "sae"
    assert run_main(*train_arguments(world.model, world.corpus, out)).code == 0
    kind, message = run_main(*train_arguments(world.model, world.corpus, out), "--seed", "5", "--json").error()
    assert kind == "ConfigError"
    assert "seed was 0 and is 5" in message


def test_several_seeds_share_the_store_and_differ(world: World, tmp_path: Path) -> None:
    asked = train_arguments(world.model, world.corpus, tmp_path / "x")
    done = run_main(*asked, "--seed", "3", "--seed", "4", "--seed", "3", "--json")
    assert done.code == 0, done.err
    saes = done.json()["saes"]
    assert [row["seed"] for row in saes] == [3, 4]
    assert [Path(row["path"]).parent.name for row in saes] == ["seed-3", "seed-4"]
    assert saes[0]["digest"] != saes[1]["digest"]
    alone = run_main(*train_arguments(world.model, world.corpus, tmp_path / "y"), "--seed", "3", "--json")
    assert alone.json()["saes"][0]["digest"] == saes[0]["digest"]


@pytest.mark.parametrize("architecture", ["standard", "jumprelu", "topk"])
def test_every_architecture_becomes_a_meter(world: World, tmp_path: Path, architecture: str) -> None:
    asked = train_arguments(world.model, world.corpus, tmp_path / "s")
    assert run_main(*asked, "--architecture", architecture, "--live").code == 0
    assert not (tmp_path / "s" / "store").exists()
    fitted = calibrate(world, tmp_path / "m", sae=tmp_path / "s")
    assert fitted.code == 0, fitted.err
    assert fitted.json()["architecture"] == architecture
    done = run_main("score", tmp_path / "m", "the cat sat on the mat", "--json", "--detectors", "all")
    assert done.code == 0, done.err


def test_the_sae_knows_where_it_comes_from(world: World) -> None:
    info = load_sae(world.sae).info
    assert (info.model, info.layer, info.dtype) == (str(world.model), 1, "float32")
    assert info.policy["max_norm"] > 0
    assert info.hook_name == "blocks.1.hook_resid_post"


def calibrate(world: World, out: Path, *more: str, sae: Path | None = None) -> Outcome:
    asked = calibrate_arguments(sae or world.sae, world.prompts, out, config=world.settings, more=(*more, "--json"))
    return run_main(*asked)


def test_calibrate_finds_model_layer_and_dtype_by_the_sae(world: World, tmp_path: Path) -> None:
    done = calibrate(world, tmp_path / "m")
    assert done.code == 0, done.err
    assert done.json()["digest"] == load_meter(world.meter).digest, "the same text and settings give the same meter"
    assert done.json()["path"] == str(tmp_path / "m")
    assert run_main("score", tmp_path / "m", "the cat").code == 0, "without --model: the meter remembers the folder"


def test_file_then_environment_then_flag(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def prompts_of(*more: str) -> int:
        done = calibrate(world, tmp_path / "m", *more)
        assert done.code == 0, done.err
        return done.json()["calibration_prompts"]

    assert prompts_of() == 60, "the file"
    monkeypatch.setenv("PERIMETRY_CALIBRATE_CALIBRATION_PROMPTS", "45")
    assert prompts_of() == 45, "the environment wins over the file"
    assert prompts_of("--prompts", "31") == 31, "the flag wins over both"
    monkeypatch.setenv("PERIMETRY_CALIBRATE_CALIBRATION_PROMTS", "45")
    kind, message = calibrate(world, tmp_path / "m").error()
    assert kind == "ConfigError"
    assert "unknown key 'calibration_promts'; the nearest key is 'calibration_prompts'" in message


def test_passages_are_cut_where_asked(world: World, tmp_path: Path) -> None:
    asked = calibrate_arguments(world.sae, world.corpus, tmp_path / "m", config=world.settings)
    done = run_main(*asked, "--passages", "--json")
    assert done.code == 0, done.err
    meter = load_meter(tmp_path / "m")
    assert all(len(text.split()) <= 24 + 3 for text in meter.normal.book.texts)
    kind, message = run_main(*asked, "--json").error()
    assert kind == "PromptTooLong"
    assert "cut the texts with --passages" in message


def test_a_plain_text_folder_will_do(world: World, tmp_path: Path) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    for i in range(90):
        (folder / f"{i}.txt").write_bytes(("\ufeff" + text_of(i, 100).replace(". ", ".\r\n")).encode())
    asked = calibrate_arguments(world.sae, folder, tmp_path / "m", config=world.settings)
    done = run_main(*asked, "--json")
    assert done.code == 0, done.err


def test_a_person_is_told_what_to_do_next(world: World, tmp_path: Path) -> None:
    trained = run_main(*train_arguments(world.model, world.corpus, tmp_path / "s"))
    assert "FVU" in trained.err
    assert f"next: perimetry calibrate --model {world.model} --sae {tmp_path / 's'}" in trained.err
    fitted = run_main(*calibrate_arguments(tmp_path / "s", world.prompts, tmp_path / "m", config=world.settings))
    assert "realised false alarms within" in fitted.err
    assert f'next: perimetry score {tmp_path / "m"} "a prompt to read"' in fitted.err
    assert FLAGS == ("--dtype", "float32")
