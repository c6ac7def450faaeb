"""`perimetry drift` as a user calls it."""

import json
import random
from pathlib import Path

import pytest
from tests.worlds import World, run_main, text_of, write_jsonl

from perimetry.artifact import read_artifact, write_artifact
from perimetry.shift.meter import KIND

SCORES = ("--detectors", "surprise,l0,nll")


def written(world: World, folder: Path, rows: list[dict[str, str]], name: str = "readings.jsonl") -> Path:
    done = run_main("score", world.meter, "--input", write_jsonl(folder / "in.jsonl", rows), "--json", *SCORES)
    assert done.code == 0, done.err
    file = folder / name
    file.write_text(done.out, encoding="utf-8")
    return file


def clean(prefix: str, n: int, seed: int) -> list[dict[str, str]]:
    rng = random.Random(seed)
    return [{"id": f"{prefix}{i}", "text": text_of(f"{prefix}{i}", rng.randint(5, 24))} for i in range(n)]


@pytest.fixture(scope="module")
def calm(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(world, tmp_path_factory.mktemp("calm"), clean("new", 40, 5))


@pytest.fixture(scope="module")
def moved(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = random.Random(1)
    noise = [
        {"id": f"x{i}", "text": "".join(rng.choice("xqzjk{}#%") for _ in range(rng.randint(40, 90)))} for i in range(40)
    ]
    return written(world, tmp_path_factory.mktemp("moved"), clean("old", 40, 6) + noise)


def test_clean_readings_do_not_drift(world: World, calm: Path) -> None:
    done = run_main("drift", world.meter, calm, "--json", "--fail")
    assert done.code == 0, done.err
    found = done.json()
    assert found["drifted"] is False
    assert found["detector"] == "surprise"
    (window,) = found["windows"]
    assert (window["prompts"], window["first"], window["last"]) == (40, "new0", "new39")
    assert [t["name"] for t in window["tests"]] == ["score", "p_value", "scores", "alarms"]
    assert [e["score"] for e in window["effects"]] == ["surprise", "l0", "nll"]


def test_the_window_that_drifted_is_named(world: World, moved: Path) -> None:
    done = run_main("drift", world.meter, moved, "--window", "40", "--json")
    assert done.code == 0, done.err
    assert [w["drifted"] for w in done.json()["windows"]] == [False, True]
    assert run_main("drift", world.meter, moved, "--window", "40", "--json", "--fail").code == 1
    one = run_main("drift", world.meter, moved, "--window", "40", "--json", "--scores", "nll").json()
    assert [e["score"] for e in one["windows"][1]["effects"]] == ["surprise", "nll"]


def test_a_table_for_a_person(world: World, moved: Path) -> None:
    done = run_main("drift", world.meter, moved, "--window", "40")
    assert done.code == 0, done.err
    assert [line.split()[-1] for line in done.out.splitlines()[4:6]] == ["clean", "drift"]
    assert "drift is said at p x 4 <= 0.025: 0.05 over 2 window(s)" in " ".join(done.out.split())
    assert "Cliff's delta" in done.out


def test_readings_may_come_by_a_pipe(world: World, calm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open(calm, encoding="utf-8") as handle:
        monkeypatch.setattr("sys.stdin", handle)
        piped = run_main("drift", world.meter, "-", "--json")
    assert piped.json() == run_main("drift", world.meter, calm, "--json").json()


def test_a_meter_that_did_not_keep_which_scores_go_together(world: World, calm: Path, tmp_path: Path) -> None:
    artifact = read_artifact(world.meter, KIND)
    kept = {k: v for k, v in artifact.tensors["calibration"].items() if not k.startswith("order|")}
    digest = write_artifact(tmp_path / "old", KIND, {**artifact.tensors, "calibration": kept}, dict(artifact.documents))
    lines = [json.loads(line) | {"meter": digest} for line in calm.read_text().splitlines()]
    readings = write_jsonl(tmp_path / "readings.jsonl", lines[:20])
    kind, message = run_main("drift", tmp_path / "old", readings, "--json").error()
    assert kind == "UsageError"
    assert "calibrate again, or give clean readings with --reference" in message
    other = write_jsonl(tmp_path / "clean.jsonl", lines[20:])
    done = run_main("drift", tmp_path / "old", readings, "--json", "--reference", other)
    assert done.code == 0, done.err
    assert done.json()["drifted"] is False
    few = write_jsonl(tmp_path / "few.jsonl", lines[:3])
    kind, message = run_main("drift", tmp_path / "old", readings, "--json", "--reference", few).error()
    assert (kind, message[:25]) == ("TooFewSamples", "the clean readings are 3,")


def test_refusals(world: World, calm: Path, tmp_path: Path) -> None:
    def error(*arguments: str | Path) -> tuple[str, str]:
        return run_main("drift", *arguments, "--json").error()

    lines = [json.loads(line) for line in calm.read_text().splitlines()]
    foreign = write_jsonl(tmp_path / "foreign.jsonl", [line | {"meter": "0" * 64} for line in lines])
    kind, message = error(world.meter, foreign)
    assert kind == "ModelMismatch"
    assert "was made by meter 000000000000" in message
    assert error(world.meter, write_jsonl(tmp_path / "few.jsonl", lines[:5]))[0] == "TooFewSamples"
    assert error(world.meter, write_jsonl(tmp_path / "none.jsonl", []))[0] == "TooFewSamples"
    assert error(world.meter, tmp_path / "missing.jsonl")[0] == "MissingFile"
    assert error(tmp_path / "no-meter", calm)[0] == "MissingFile"
    assert error(world.sae, calm)[0] in ("Incompatible", "CorruptArtifact")
    assert error(world.meter, calm, "--window", "4")[0] == "TooFewSamples"
    assert error(world.meter, calm, "--scores", "entropy")[1].startswith("not every reading carries entropy")
    bad = tmp_path / "bad.jsonl"
    for text, wanted in (
        ("{", "line 2: no JSON"),
        ('{"id": "a", "text": "b"}', "line 2: this is no reading; wanted a line as `perimetry score"),
        ("[1]", "line 2: this is no reading"),
        (json.dumps(lines[0] | {"p_value": "low"}), "line 2: this is no reading"),
        (json.dumps(lines[0] | {"scores": {"surprise": None}}), "line 2: a score is no finite number"),
        (json.dumps(lines[0] | {"score": float("nan")}), "line 2: this is no reading"),
    ):
        bad.write_text("\n" + text + "\n")
        kind, message = error(world.meter, bad)
        assert kind == "UsageError"
        assert wanted in message
