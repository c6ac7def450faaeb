"""`perimetry score` as a user calls it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from scipy.stats import false_discovery_control
from tests.worlds import World, child_environment, run_child, run_main, text_of, write_jsonl

from perimetry.assets import read_texts
from perimetry.shift.meter import Meter
from perimetry.shift.tables import all_score_names

FIELDS = ("id", "score", "p_value", "flagged", "group", "tokens_scored", "truncated", "scores")
NOISE = "x" * 90


def test_json_lines_in_order_with_the_promised_fields(world: World, tmp_path: Path) -> None:
    rows = [{"id": name, "text": text_of(name, n)} for name, n in (("z", 20), ("a", 3), ("m", 12), ("b", 1))]
    done = run_main("score", world.meter, "--input", write_jsonl(tmp_path / "x.jsonl", rows), "--json")
    assert done.code == 0, done.err
    lines = done.lines()
    assert [line["id"] for line in lines] == ["z", "a", "m", "b"]
    for line in lines:
        assert set(FIELDS) <= line.keys()
        assert "tokens" not in line
        assert "concepts" not in line
        assert line["flagged"] is (line["p_value"] <= 0.05)
        assert line["truncated"] is False
        assert line["scores"] == {"surprise": line["score"]}
        assert 0 < line["p_value"] <= 1
        assert line["tokens_scored"] > 0


def test_all_detectors_tokens_and_concepts(world: World, tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "x.jsonl", [{"id": 1, "text": "the cat sat on the mat"}])
    done = run_main("score", world.meter, "--input", file, "--json", "--detectors", "all", "--tokens", "--concepts")
    (line,) = done.lines()
    assert list(line["scores"]) == all_score_names()
    assert "".join(t["text"] for t in line["tokens"]) == "the cat sat on the mat"
    assert all(isinstance(t["score"], float) for t in line["tokens"])
    assert line["concepts"][0].keys() >= {"latent", "token", "clean_rate", "contexts"}


def test_texts_on_the_command_line(world: World) -> None:
    done = run_main("score", world.meter, "the cat", "an old man", "--json", "--detectors", "nll,l0.max")
    assert [(line["id"], sorted(line["scores"])) for line in done.lines()] == [
        ("0", ["l0.max", "nll", "surprise"]),
        ("1", ["l0.max", "nll", "surprise"]),
    ]


def test_a_text_that_looks_like_a_flag(world: World) -> None:
    done = run_main("score", world.meter, "--json", "--", "--help me")
    assert done.code == 0, done.err
    assert done.lines()[0]["tokens_scored"] == 8


@pytest.mark.parametrize(
    "data",
    [
        '\ufeff{"id": "a", "text": "the cat"}\n',
        '{"id": "a", "text": "the cat"}\r\n\r\n{"id": "b", "text": "the dog"}\r\n',
        '{"id": 7, "text": "the cat", "label": [1, {"x": null}]}',
        '\n\n{"text": "the cat", "id": "b"}\n\n',
        '{"id": "é", "text": "caf\\u00e9 \\ud83d\\ude00 日本"}\n',
        '{"id": "twice", "text": "the cat"}\n{"id": "twice", "text": "a dog"}\n',
        '{"id": "w", "text": "' + "x" * 110 + '"}\n',
        '{"id": "one", "text": "a"}\n',
    ],
)
def test_files_as_they_come(world: World, tmp_path: Path, data: str) -> None:
    file = tmp_path / "x.jsonl"
    file.write_bytes(data.encode())
    wanted = [(d.id, d.text) for d in read_texts(file)]
    done = run_main("score", world.meter, "--input", file, "--json", "--tokens")
    assert done.code == 0, done.err
    lines = done.lines()
    assert [line["id"] for line in lines] == [name for name, _ in wanted]
    for line, (_, text) in zip(lines, wanted, strict=True):
        pieces = [t["text"] for t in line["tokens"]]
        assert all(p in text for p in pieces)
        assert {c for p in pieces for c in p} == set(text)


def test_an_empty_file_gives_no_line(world: World, tmp_path: Path) -> None:
    done = run_main("score", world.meter, "--input", write_jsonl(tmp_path / "x.jsonl", []), "--json")
    assert (done.code, done.out) == (0, "")


def test_standard_input_may_be_a_pipe(world: World) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "perimetry", "score", str(world.meter), "--input", "-", "--json"],
        input=b'{"id": "p", "text": "the cat sat"}\n{"id": "q", "text": "on the mat"}\n',
        capture_output=True,
        check=False,
        env=child_environment(),
    )
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["id"] for line in done.stdout.splitlines()] == ["p", "q"]


def test_alarms_end_with_one_only_where_asked(world: World) -> None:
    for flags, wanted in (((), 0), (("--fail-on-alarm",), 1)):
        done = run_main("score", world.meter, NOISE, "the cat sat on the mat.", "--alpha", "0.2", "--json", *flags)
        assert done.code == wanted
        assert done.lines()[0]["flagged"]
    quiet = run_main("score", world.meter, NOISE, "--alpha", "0.001", "--fail-on-alarm", "--json")
    assert (quiet.code, quiet.lines()[0]["flagged"]) == (0, False)
    assert run_main("score", world.meter, NOISE, "--alpha", "0.2", "--fail-on-alarm").code == 1, "without --json too"


def test_long_prompts_are_cut_on_demand_only(world: World, tmp_path: Path) -> None:
    rows = [{"id": "short", "text": "the cat"}, {"id": "long", "text": text_of("long", 300)}]
    file = write_jsonl(tmp_path / "x.jsonl", rows)
    kind, message = run_main("score", world.meter, "--input", file, "--json").error()
    assert kind == "PromptTooLong"
    assert "prompt 'long': the text has" in message
    assert "at most 128 fit the context" in message
    assert "--truncate" in message
    done = run_main("score", world.meter, "--input", file, "--json", "--truncate")
    short, long = done.lines()
    assert short["truncated"] is False
    assert (long["truncated"], long["tokens_scored"]) == (True, 127)


def test_batches_do_not_change_the_lines(world: World, tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "x.jsonl", [{"id": i, "text": text_of(i, 2 + 3 * i)} for i in range(10)])
    asked = ("score", world.meter, "--input", file, "--json", "--detectors", "all")
    one, two = run_main(*asked), run_main(*asked, "--batch-tokens", "1")
    for a, b in zip(one.lines(), two.lines(), strict=True):
        assert a["scores"] == pytest.approx(b["scores"], rel=1e-4, abs=1e-4)


def test_a_readable_reading(world: World, meter: Meter) -> None:
    done = run_main("score", world.meter, "the cat sat on [bold]the[/] mat \x1b[31m")
    (reading,) = meter.score(["the cat sat on [bold]the[/] mat \x1b[31m"])
    assert done.code == 0, done.err
    assert ("outside" if reading.flagged else "inside") in done.out
    assert f"{reading.score:.4g}" in done.out
    assert f"p {reading.p_value:.3g}" in done.out
    assert "the cat sat on [bold]the[/] mat" in done.out, "mark-up in a prompt is text"
    assert "\x1b" not in done.out, "a prompt cannot command the terminal"
    assert "concepts that speak for the score" in done.out
    assert "hottest tokens and their nearest clean tokens" in done.out


def test_every_terminal_can_show_it(world: World) -> None:
    asked = ("score", world.meter, "日本 😀 café")
    plain = run_child(*asked, PYTHONIOENCODING="ascii:strict")
    assert plain.code == 0, plain.err
    assert "\\U0001f600" in plain.out
    done = run_child(*asked, "--json", "--tokens", PYTHONIOENCODING="latin-1:strict")
    assert done.code == 0, done.err
    assert {c for t in done.lines()[0]["tokens"] for c in t["text"]} == set("日本 😀 café")


def test_bytes_that_are_no_text_are_still_read(world: World) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "perimetry", "score", str(world.meter), b"\xff\xfe hey", "--json", "--tokens"],
        capture_output=True,
        check=False,
        env=child_environment(),
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["tokens_scored"] > 3


def test_a_reader_that_leaves_early_is_no_error(world: World, tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "x.jsonl", [{"id": i, "text": text_of(i, 15)} for i in range(300)])
    command = f'"{sys.executable}" -m perimetry score "{world.meter}" --input "{file}" --json --detectors all | head -1'
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], capture_output=True, check=False, env=child_environment()
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == b""
    assert json.loads(done.stdout)["id"] == "0"


def test_a_batch_flagged_by_its_false_discovery_rate(world: World, tmp_path: Path) -> None:
    rows = [{"id": i, "text": text_of(i, 12)} for i in range(12)] + [{"id": "noise", "text": NOISE}]
    file = write_jsonl(tmp_path / "x.jsonl", rows)
    alone = run_main("score", world.meter, "--input", file, "--json").lines()
    assert all("q" not in line for line in alone)
    for method in ("bh", "by"):
        flags = ("--batch-fdr", "0.3", "--batch-method", method)
        done = run_main("score", world.meter, "--input", file, "--json", *flags)
        assert done.code == 0, done.err
        wanted = false_discovery_control([line["p_value"] for line in alone], method=method)
        assert [line["q"] for line in done.lines()] == pytest.approx(wanted)
        assert [line["flagged"] for line in done.lines()] == [q <= 0.3 for q in wanted]
        assert [line["id"] for line in done.lines()] == [line["id"] for line in alone]
    kind, message = run_main("score", world.meter, "--input", file, "--json", "--batch-fdr", "5").error()
    assert (kind, message) == ("ConfigError", "--batch-fdr is 5.0; a share between 0 and 1 is wanted, such as 0.05")
