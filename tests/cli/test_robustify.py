"""`perimetry robustify` as a user calls it, and its adapter in the commands that read with it."""

import json
from pathlib import Path

import pytest
from tests.worlds import Outcome, World, run_main, text_of, write_jsonl

KEPT = ("metric", "case", "arm", "estimate", "low", "high", "n")


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("texts") / "texts.jsonl"
    write_jsonl(path, ({"id": f"d{i}", "text": text_of(f"robust:{i}", 30).capitalize()} for i in range(80)))
    return path


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "own.toml"
    path.write_text(
        "[robustify.tune.weights]\nconsistency = 0.5\nalignment = 0.5\nshift = 0.1\nretain = 0.5\n", encoding="utf-8"
    )
    return path


def call(world: World, texts: Path, config: Path, out: Path, *more: str, preset: str = "tiny") -> Outcome:
    given = ["--meter", world.meter, "--text", texts, "--preset", preset, "--config", config, "--out", out]
    return run_main("robustify", *given, *more)


@pytest.fixture(scope="module")
def made(world: World, texts: Path, config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("robustify") / "out"
    found = call(world, texts, config, out)
    assert found.code == 0, found.err
    assert "update 4 of 4: clean" in found.err
    assert "shift" in found.err
    assert "typos 40 % (not tuned on)" in found.out
    return out


def test_the_adapter_says_what_it_was_made_with(made: Path) -> None:
    card = json.loads((made / "adapter" / "perimetry.json").read_text(encoding="utf-8"))
    results = json.loads((made / "results.json").read_text(encoding="utf-8"))
    assert card["base"]["revision"]
    assert card["rows"] == results["rows"]
    assert {row["metric"] for row in results["rows"]} == set(results["metrics"])
    assert all(row["low"] <= row["estimate"] <= row["high"] for row in results["rows"])
    assert [line["step"] for line in map(json.loads, (made / "log.jsonl").read_text().splitlines())] == [1, 2, 3, 4]
    assert (made / "adapter" / "adapter_model.safetensors").is_file()


def test_the_report_is_the_one_that_was_written(made: Path, tmp_path: Path) -> None:
    again = run_main("report", made, "--out", tmp_path / "again.html")
    assert again.code == 0, again.err
    assert (tmp_path / "again.html").read_bytes() == (made / "report.html").read_bytes()
    assert "ocr 40 % (not tuned on)" in (made / "report.html").read_text(encoding="utf-8")


def test_the_same_command_gives_the_same_numbers(
    world: World, texts: Path, config: Path, made: Path, tmp_path: Path
) -> None:
    again = call(world, texts, config, tmp_path / "out", "--json", "--quiet")
    assert (again.code, again.err) == (0, "")
    before = json.loads((made / "results.json").read_text(encoding="utf-8"))
    assert again.json()["rows"] == before["rows"]
    assert again.json()["adapter"] == before["adapter"]


def test_readings_with_the_adapter_say_so(world: World, made: Path) -> None:
    text = "the cat sat on teh mat and looekd at the sea"
    plain, tuned = (
        run_main("score", world.meter, text, "--json", *more).json()
        for more in ((), ("--adapter", str(made / "adapter")))
    )
    revision = json.loads((made / "results.json").read_text(encoding="utf-8"))["adapter"]["revision"]
    assert tuned["meter"] == f"{plain['meter']}+{revision[:12]}"
    assert tuned["score"] != plain["score"]


def test_a_bench_with_the_adapter_is_never_taken_for_one_without(
    world: World, texts: Path, made: Path, tmp_path: Path
) -> None:
    own = tmp_path / "own.toml"
    own.write_text(
        "[bench]\nwords = 10\npassages = 10\ndoses = [0.2]\nclean_prompts = 20\nresamples = 100\n", encoding="utf-8"
    )
    words = [
        "bench",
        "shift",
        world.meter,
        "--suite",
        "typos",
        "--text",
        texts,
        "--config",
        own,
        "--out",
        tmp_path / "out",
    ]
    plain = run_main(*words, "--json")
    assert plain.code == 0, plain.err
    tuned = run_main(*words, "--json", "--adapter", made / "adapter")
    assert "measured again" in tuned.err
    areas = [[row["estimate"] for row in found.json()["rows"] if row["metric"] == "auroc"] for found in (plain, tuned)]
    assert areas[0] != areas[1]


def test_what_is_refused(world: World, texts: Path, config: Path, made: Path, tmp_path: Path) -> None:
    kind, message = call(world, texts, config, tmp_path / "a", "--json", preset="tinny").error()
    assert (kind, "'tinny'" in message) == ("UnknownName", True)
    own = tmp_path / "own.toml"
    own.write_text('[robustify]\nkinds = ["typpos"]\n', encoding="utf-8")
    kind, message = call(world, texts, own, tmp_path / "b", "--json").error()
    assert (kind, "nearest name is 'typos'" in message) == ("ConfigError", True)
    own.write_text("[robustify.tune]\nlearning_rate = 1\n", encoding="utf-8")
    kind, message = call(world, texts, own, tmp_path / "c", "--json").error()
    assert (kind, "unknown key 'tune.learning_rate'" in message) == ("ConfigError", True)
    own.write_text("[robustify]\nseed = 3\n", encoding="utf-8")
    kind, message = call(world, texts, own, made, "--json").error()
    assert (kind, "a tuning with other settings (seed" in message) == ("ConfigError", True)
    kind, message = run_main("score", world.meter, "a text", "--adapter", world.meter, "--json").error()
    assert (kind, "no peft adapter" in message) == ("CorruptArtifact", True)


def test_a_run_that_diverges_leaves_the_last_good_adapter(world: World, texts: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.toml"
    own.write_text("[robustify.tune]\nlr = 50.0\nupdates = 20\nclean_limit = 0.01\nwarmup = 1.0\n", encoding="utf-8")
    kind, message = call(world, texts, own, tmp_path / "out", "--json").error()
    assert (kind, "the run diverged" in message) == ("Diverged", True)
    card = json.loads((tmp_path / "out" / "last-good" / "perimetry.json").read_text(encoding="utf-8"))
    assert card["stopped"] == message
    assert not (tmp_path / "out" / "adapter").exists()


def test_texts_chosen_by_the_meter(world: World, texts: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.toml"
    own.write_text('[robustify]\nselection = "shift"\nbudget = 150\ndoses = [0.0, 0.3]\n', encoding="utf-8")
    found = call(world, texts, own, tmp_path / "out", "--json")
    assert found.code == 0, found.err
    assert found.json()["data"]["selection"] == "shift"
    assert 0 < found.json()["data"]["tokens"] <= 150
