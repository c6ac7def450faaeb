"""A thousand hostile folders against every loader: the right error, soon, and no code run."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.reliability.attacks import CANARY
from tests.reliability.corpus import CASES
from tests.worlds import World, child_environment

from perimetry import artifact
from perimetry.errors import BadPath
from perimetry.sae.formats import load_sae
from perimetry.sae.formats.disk import sae_folder

pytestmark = pytest.mark.hostile
ROOT = Path(__file__).parents[2]
SECONDS = 1.0
"""Of processor time, so that a busy machine changes nothing."""
MUTATIONS = int(os.environ.get("PERIMETRY_MUTATIONS", "500"))
"""Nightly runs ask for 50,000."""
ROOM = 256 * 2**20


def run_module(name: str, *arguments: str | Path, seconds: int = 300) -> list[dict[str, Any]]:
    """The JSON lines of a module of the tests, run in a process of its own without checks of types."""
    done = subprocess.run(
        [sys.executable, "-m", f"tests.reliability.{name}", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=seconds,
        env=child_environment(HF_HUB_OFFLINE="1"),
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


@pytest.fixture(scope="module")
def said(world: World, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("hostile")
    lines = run_module("hostile_child", folder, world.meter, world.model, str(MUTATIONS))
    assert lines[0] == {"ready": True}, "the folders load when they are whole"
    return lines


@pytest.fixture(scope="module")
def outcomes(said: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {line["id"]: line for line in said if "id" in line}


def test_the_corpus_is_large_and_every_case_was_opened(outcomes: dict[str, dict[str, Any]]) -> None:
    assert len(CASES) >= 100
    assert set(outcomes) == {case.id for case in CASES}
    assert len(outcomes) == len(CASES), "two cases have one name"


@pytest.mark.parametrize("loader", sorted({case.loader for case in CASES}))
def test_hostile_files_are_refused_by_name_and_soon(loader: str, outcomes: dict[str, dict[str, Any]]) -> None:
    wrong: list[str] = []
    for case in CASES:
        if case.loader == loader:
            found = outcomes[case.id]
            if case.error not in found["kinds"] or found["seconds"] > SECONDS:
                wrong.append(f"{case.id}: wanted {case.error}, got {found['kinds'][0]} after {found['seconds']:.2f} s")
    assert wrong == []


def test_no_code_of_a_hostile_file_is_run(outcomes: dict[str, dict[str, Any]]) -> None:
    assert {name: found["events"] for name, found in outcomes.items() if found["events"]} == {}
    assert CANARY not in os.environ


def test_messages_say_what_to_do(outcomes: dict[str, dict[str, Any]]) -> None:
    assert [n for n, found in outcomes.items() if found["kinds"][0] != "nothing" and ";" not in found["message"]] == []


def test_the_corpus_has_every_error_of_the_table() -> None:
    wanted = {"UnsafeFormat", "BadHeader", "BadLayout", "BadShape", "NonFinite", "BadValue", "BadPath", "TooLarge"}
    assert wanted | {"Incompatible"} <= {case.error for case in CASES}


CARELESS = """
import pickle, sys
from tests.reliability.attacks import Canary
seen = []
sys.addaudithook(lambda event, arguments: seen.append(event))
pickle.loads(pickle.dumps(Canary()))
assert "pickle.find_class" in seen
"""


def test_the_canary_is_alive() -> None:
    """A careless reader would run what the hostile files hold, and the hook would see it."""
    done = subprocess.run([sys.executable, "-c", CARELESS], cwd=ROOT, check=False, env=child_environment())
    assert done.returncode == 0


def test_a_refusal_takes_little_memory(said: list[dict[str, Any]]) -> None:
    found = {line["memory"]: line for line in said if "memory" in line}
    assert len(found) >= 12
    assert {name for name, line in found.items() if line["taken"] < 0} == set(), "these were not refused"
    assert {n: line for n, line in found.items() if line["taken"] > 2 * line["bytes"] + ROOM} == {}


def test_spoilt_files_are_refused_by_name_or_load(said: list[dict[str, Any]]) -> None:
    found = {line["loader"]: line for line in said if "crashes" in line}
    assert sum(sum(line["counts"].values()) for line in found.values()) >= MUTATIONS
    assert [crash for line in found.values() for crash in line["crashes"]] == []
    refused = sum(n for line in found.values() for name, n in line["counts"].items() if name != "loaded")
    assert refused > MUTATIONS / 2, "the mutations do nothing"


def test_a_file_that_is_swapped_after_it_was_hashed(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "sae"
    shutil.copytree(sae_folder(world.sae), folder)
    weights = folder / "sae_weights.safetensors"
    other = tmp_path / "other"
    shutil.copyfile(weights, other)
    real = artifact.hash_file

    def swap(file: Path) -> str:
        found = real(file)
        if file == weights and other.exists():
            os.replace(other, weights)
        return found

    monkeypatch.setattr(artifact, "hash_file", swap)
    with pytest.raises(BadPath, match="changed while it was read"):
        load_sae(folder)
    assert load_sae(folder).sae.d_model, "the other file was as good"
