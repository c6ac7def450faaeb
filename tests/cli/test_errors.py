"""Bad input through the real command line: exit code 2, a type, a message that says what to do."""

import errno
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.worlds import METER_SETTINGS, World, run_child, run_main, save_model, text_of, write_jsonl

from perimetry import storage
from perimetry.activations.model import tiny_language_model
from perimetry.cli import main

FLOAT = ("--dtype", "float32")


def refused(*arguments: str | Path, kind: str, message: str) -> None:
    """The command ends with 2; the error comes as JSON where asked, and always as a line for a person."""
    found = run_main(*arguments, "--json").error()
    assert found[0] == kind, found
    assert re.search(message, found[1]), found
    plain = run_main(*arguments)
    assert plain.code == 2
    assert plain.out == ""
    assert plain.err.startswith(f"{kind}: ")
    assert "Traceback" not in plain.err


LINES = [
    ('{"id": "a", "text": "x"}\n{"id": "b", "text"', "MalformedLine", "line 2: it is not JSON"),
    ('{"id": "a", "text": "x"}\n\n\n[1, 2]\n', "MalformedLine", "line 4: it holds a list, not an object"),
    ('"text"\n', "MalformedLine", "line 1: it holds a str, not an object"),
    ('{"id": "a"}\n', "MalformedLine", "line 1: 'text' is of type NoneType, a text is wanted"),
    ('{"id": "a", "text": 7}\n', "MalformedLine", "line 1: 'text' is of type int"),
    ('{"text": "no id"}\n', "MalformedLine", "line 1: 'id' is None, a text or a whole number is wanted"),
    ('{"id": true, "text": "x"}\n', "MalformedLine", "line 1: 'id' is True"),
    ('{"id": 1, "text": "x", "text": "y"}\n', "MalformedLine", "line 1: .*the same key twice"),
    ('{"id": 1, "text": "x", "n": NaN}\n', "MalformedLine", "line 1: .*NaN is not JSON"),
    ('{"id": 1, "text": "x \\ud800"}\n', "MalformedLine", "line 1: .*half of a surrogate pair"),
    ('{"id": 1, "text": "x"} {"id": 2, "text": "y"}\n', "MalformedLine", "line 1: it is not JSON"),
    ('{"id": "a", "text": "x"}\n{"id": "b", "text": " \\n"}\n', "EmptyText", "line 2: the text of 'b' is empty"),
]


@pytest.mark.parametrize(("data", "kind", "message"), LINES)
def test_bad_lines_are_named(world: World, tmp_path: Path, data: str, kind: str, message: str) -> None:
    file = tmp_path / "x.jsonl"
    file.write_text(data, encoding="utf-8")
    refused("score", world.meter, "--input", file, kind=kind, message=f"{re.escape(str(file))}, {message}")


def test_other_encodings_are_named(world: World, tmp_path: Path) -> None:
    file = tmp_path / "x.jsonl"
    file.write_bytes('{"id": 1, "text": "fine"}\n{"id": 2, "text": "café"}\n'.encode("latin-1"))
    refused("score", world.meter, "--input", file, kind="MalformedLine", message="line 2: it is not UTF-8")
    file.write_text('{"id": 1, "text": "x"}', encoding="utf-16")
    refused("score", world.meter, "--input", file, kind="MalformedLine", message="line 1: it is not UTF-8")


def test_files_that_are_not_there(world: World, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    refused("score", world.meter, "--input", gone, kind="MissingFile", message=f"no file {gone}; check the path")
    refused("score", world.meter, "--input", tmp_path, kind="MissingFile", message="no file")
    refused("score", gone, "x", kind="MissingFile", message=f"no meter at {gone}; give the folder that holds")
    refused("report", gone, kind="MissingFile", message="no file")
    asked = ("calibrate", "--sae", gone, "--text", world.prompts, "--out", tmp_path / "m")
    refused(*asked, kind="MissingFile", message=f"no SAE at {gone}; give the folder that holds sae_weights.safetensors")
    asked = ("calibrate", "--sae", world.sae, "--text", f"{gone}.jsonl", "--out", tmp_path / "m", *FLOAT)
    refused(*asked, kind="MissingFile", message="no file or folder .*gone.jsonl; check the path")
    asked = ("train", "--model", gone, "--text", world.corpus, "--out", tmp_path / "s")
    refused(
        *asked, kind="MissingFile", message="no folder .*gone; give the folder of a model, an asset name or a hub id"
    )


@pytest.mark.parametrize("text", ["", "  ", "\n\t"])
def test_empty_texts(world: World, text: str) -> None:
    refused("score", world.meter, text, kind="EmptyText", message="prompt '0': the text is empty or white space")


def test_a_text_without_a_scorable_token(world: World, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(world.meter, tmp_path / "meter"))
    document = json.loads((folder / "meter.json").read_text())
    document["policy"]["max_norm"] = 1e-9
    (folder / "meter.json").write_text(json.dumps(document))
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["meter.json"] = storage.hash_file(folder / "meter.json")
    manifest["digest"] = storage.hash_json(manifest["files"])
    (folder / "manifest.json").write_text(json.dumps(manifest))
    refused("score", folder, "x", kind="NoScorableToken", message="prompt '0': every token is special or an attention")


def test_texts_and_a_file_exclude_each_other(world: World) -> None:
    for asked in ((), ("a text", "--input", world.prompts)):
        refused("score", world.meter, *asked, kind="UsageError", message="give texts or --input FILE, one of the two")


@pytest.mark.parametrize("alpha", ["0", "1", "-0.5", "1.5", "nan"])
def test_alpha_out_of_range(world: World, alpha: str) -> None:
    asked = ("score", world.meter, "x", f"--alpha={alpha}")
    refused(*asked, kind="ConfigError", message="alpha is .*a false-alarm rate between 0 and 1 is wanted")


def test_unknown_names_give_the_nearest(world: World, tmp_path: Path) -> None:
    asked = ("score", world.meter, "x", "--detectors", "surprize")
    refused(*asked, kind="UnknownName", message="unknown detector 'surprize'; the nearest name is 'surprise'")
    asked = ("calibrate", "--sae", world.sae, "--text", world.prompts, "--out", tmp_path / "m", *FLOAT)
    small = ("--config", world.settings, "--main", "mahalanobiss")
    refused(*asked, *small, kind="UnknownName", message="the nearest name is 'mahalanobis'")
    asked = ("calibrate", "--sae", world.sae, "--text", "wikipedja", "--out", tmp_path / "m", *FLOAT)
    refused(*asked, kind="UnknownName", message="unknown text 'wikipedja'; the nearest name is 'wikipedia'")
    asked = ("train", "--out", tmp_path / "s", "--architecture", "topkk")
    refused(*asked, kind="UnknownName", message="unknown architecture 'topkk'; the nearest name is 'topk'")
    refused("assets", "path", "wikipedja", kind="UnknownName", message="the nearest name is 'wikipedia'")
    refused("demo", "--preset", "tinny", kind="UnknownName", message="the nearest name is 'tiny'")
    asked = ("bench", "shift", world.meter, "--suite", "typoes", "--text", world.corpus, "--out", tmp_path / "b")
    refused(*asked, kind="UnknownName", message="unknown suite 'typoes'; the nearest name is 'typos'")


def test_unknown_flags_and_commands(world: World) -> None:
    for asked in (
        ("score", world.meter, "x", "--bogus"),
        ("trane",),
        ("score",),
        ("score", world.meter, "--alpha", "x"),
    ):
        done = run_main(*asked, "--json")
        kind, message = done.error()
        assert kind.endswith("Error")
        assert len(message) > 10
    assert "--bogus" in run_main("score", world.meter, "x", "--bogus").err
    assert "trane" in run_main("trane").err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--device", "gpu"), "device 'gpu' is no device; wanted auto, cpu, cuda or cuda:N"),
        (("--threads=-3",), "threads = -3: Input should be greater than or equal to 0"),
        (("--dtype", "float16"), "dtype = 'float16': Input should be 'auto', 'float32' or 'bfloat16'"),
        (("--epochs", "0"), "epochs = 0.0: Input should be greater than 0"),
        (("--lr", "nan"), "lr = nan: Input should be a finite number"),
        (("--layer", "9"), "layer 9 is not in 'model', which has 3 blocks; choose a layer from 0 to 2"),
        (("--layer=-1",), "layer = -1: Input should be greater than or equal to 0"),
        (("--context", "999"), "rows of 999 tokens were asked for; .*at most 128"),
        (("--k", "90", "--width", "64"), "k = 90 exceeds width = 64; give a smaller k"),
        (("--tokens", "10"), "tokens = 10 is less than one batch of 2048; give more tokens"),
    ],
)
def test_numbers_that_cannot_be(world: World, tmp_path: Path, flags: tuple[str, ...], message: str) -> None:
    dtype = () if "--dtype" in flags else FLOAT
    asked = ("train", "--model", world.model, "--text", world.corpus, "--out", tmp_path / "s", *dtype, *flags)
    refused(*asked, kind="ConfigError", message=message)


def test_too_little_text(world: World, tmp_path: Path) -> None:
    asked = ["train", "--model", world.model, "--text", world.corpus, "--out", tmp_path / "s", *FLOAT]
    asked += ["--tokens", "10000000", "--width", "32", "--k", "4", "--context", "64"]
    refused(*asked, kind="TooFewSamples", message=r"gives 3\d,\d\d\d tokens, .*--epochs \d+")
    asked = ["calibrate", "--sae", world.sae, "--text", world.prompts, "--out", tmp_path / "m", *FLOAT]
    refused(
        *asked, kind="TooFewSamples", message="200 texts give 200 calibration prompts .*ask for fewer with --prompts"
    )


def test_an_sae_of_another_width(world: World, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(world.sae / "sae", tmp_path / "sae"))
    (folder / "manifest.json").unlink()
    weights = load_file(folder / "sae_weights.safetensors")
    narrow = {"W_enc": weights["W_enc"][:16], "W_dec": weights["W_dec"][:, :16], "b_dec": weights["b_dec"][:16]}
    save_file({k: v.contiguous() for k, v in (weights | narrow).items()}, folder / "sae_weights.safetensors")
    config = json.loads((folder / "cfg.json").read_text())
    (folder / "cfg.json").write_text(json.dumps(config | {"d_in": 16}))
    asked = ("calibrate", "--sae", folder, "--text", world.prompts, "--out", tmp_path / "m", *FLOAT)
    refused(*asked, kind="WidthMismatch", message="the SAE reads width 16 but layers.1 of this model gives 32")


def test_a_meter_for_another_model_or_dtype(world: World, tmp_path: Path) -> None:
    other = save_model(tiny_language_model("llama", seed=4), tmp_path / "other")
    asked = ("score", world.meter, "x", "--model", other)
    refused(*asked, kind="ModelMismatch", message="give that model, or calibrate a meter for this one")
    asked = ("score", world.meter, "x", "--dtype", "bfloat16")
    refused(*asked, kind="DtypeMismatch", message="the meter was made with float32; leave --dtype away")


def test_an_sae_of_another_origin(world: World, tmp_path: Path) -> None:
    asked = [
        "calibrate",
        "--sae",
        world.sae,
        "--text",
        world.prompts,
        "--out",
        tmp_path / "m",
        "--config",
        world.settings,
    ]
    refused(*asked, *FLOAT, "--layer", "0", kind="ModelMismatch", message="trained after block 1, block 0 was asked")
    refused(*asked, "--dtype", "bfloat16", kind="ModelMismatch", message="use --dtype float32")
    other = save_model(tiny_language_model("llama", seed=4), tmp_path / "other")
    refused(*asked, *FLOAT, "--model", other, kind="ModelMismatch", message="the SAE was trained on .* of revision")


def test_damage(world: World, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(world.meter, tmp_path / "meter"))
    data = bytearray((folder / "detectors.safetensors").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "detectors.safetensors").write_bytes(data)
    refused("score", folder, "x", kind="CorruptArtifact", message="does not hash as its manifest says")
    refused("score", world.sae / "sae", "x", kind="Incompatible", message="is a 'sae', a 'meter' was wanted")
    (folder / "manifest.json").write_text("{")
    refused("score", folder, "x", kind="BadHeader", message="is not strict JSON")
    bad = tmp_path / "results.json"
    bad.write_text("{}")
    refused("report", bad, kind="ConfigError", message="these results cannot be shown")


def test_numbers_that_are_none(world: World, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(world.model, tmp_path / "model"))
    weights = load_file(folder / "model.safetensors")
    weights["model.embed_tokens.weight"][100:] = torch.nan
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    for asked in (
        ("score", world.meter, "x", "--model", folder),
        ("train", "--model", folder, "--text", world.corpus, "--out", tmp_path / "s", *FLOAT),
        ("doctor", "--model", folder, *FLOAT),
    ):
        refused(*asked, kind="NonFinite", message="holds NaN or infinity in 'model.embed_tokens.weight'")


@pytest.fixture
def precious(tmp_path: Path) -> Path:
    folder = tmp_path / "precious"
    folder.mkdir()
    (folder / "thesis.txt").write_text("years of work")
    return folder


def test_nothing_but_a_meter_is_overwritten(world: World, precious: Path) -> None:
    asked = ["calibrate", "--sae", world.sae, "--text", world.prompts, "--config", world.settings, *FLOAT, "--out"]
    for out in (precious, precious / "thesis.txt", world.sae / "sae"):
        refused(*asked, out, kind="StorageError", message="exists and is no meter; nothing there was touched")
    assert (precious / "thesis.txt").read_text() == "years of work"
    assert (
        run_main("calibrate", "--sae", world.sae, "--text", world.prompts, "--out", precious / "m", *asked[5:-1]).code
        == 0
    )
    assert (
        run_main("calibrate", "--sae", world.sae, "--text", world.prompts, "--out", precious / "m", *asked[5:-1]).code
        == 0
    )


def test_no_space_is_seen_before_the_harvest(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "free_bytes", lambda path: 1000)
    asked = ("train", "--model", world.model, "--text", world.corpus, "--out", tmp_path / "s", *FLOAT)
    message = r"the harvest needs \d+ MB under .*, where 0 MB are free; free some space or choose another folder"
    refused(*asked, "--tokens", "4096", "--context", "64", kind="StorageFull", message=message)


def test_no_space_while_writing_leaves_the_old(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = Path(shutil.copytree(world.meter, tmp_path / "m"))
    before = {p.name: p.read_bytes() for p in out.iterdir()}
    plain = Path.write_bytes

    def full(self: Path, data: bytes) -> int:
        if self.name == "detectors.safetensors":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self))
        return plain(self, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    asked = ("calibrate", "--sae", world.sae, "--text", world.prompts, "--out", out, "--config", world.settings, *FLOAT)
    refused(*asked, kind="StorageFull", message="no space left while writing .*nothing that was there before is lost")
    assert {p.name: p.read_bytes() for p in out.iterdir()} == before
    assert [p.name for p in tmp_path.iterdir()] == ["m"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB, where this machine lets a test mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    asked = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(asked, capture_output=True, check=False).returncode:
        pytest.skip("this machine does not let a test mount a small file system")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_is_really_full(world: World, small_disk: Path) -> None:
    asked = ("calibrate", "--sae", world.sae, "--text", world.prompts, "--config", world.settings, *FLOAT)
    refused(*asked, "--out", small_disk / "m", kind="StorageFull", message="no space left while writing")
    assert list(small_disk.iterdir()) == []


def test_a_folder_that_may_not_be_written(world: World) -> None:
    asked = ("calibrate", "--sae", world.sae, "--text", world.prompts, "--config", world.settings, *FLOAT)
    refused(*asked, "--out", "/proc/meter", kind="StorageError", message="cannot write /proc/meter")


def test_settings_that_are_wrong(world: World, tmp_path: Path) -> None:
    file = tmp_path / "x.toml"
    asked = (
        "calibrate",
        "--sae",
        world.sae,
        "--text",
        world.prompts,
        "--out",
        tmp_path / "m",
        *FLOAT,
        "--config",
        file,
    )
    refused(*asked, kind="MissingFile", message="no configuration file")
    for text, message in (
        (METER_SETTINGS + "mian = 'l0'\n", "unknown key 'mian'; the nearest key is 'main'"),
        ("[calibrate]\ngroups = 0\n", "groups = 0: Input should be greater than or equal to 1"),
        ("[calibrat]\ngroups = 2\n", r"has no section \[calibrate\]; the nearest name in it is 'calibrat'"),
        ("calibrate = 3\n", r"has no section \[calibrate\]"),
        ("[calibrate\n", "is not TOML"),
    ):
        file.write_text(text)
        refused(*asked, kind="ConfigError", message=message)


def test_the_shell_sees_the_same(world: World, tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "x.jsonl", [{"id": 1, "text": "x"}, {"id": 2}])
    kind, message = run_child("score", world.meter, "--input", file, "--json").error()
    assert kind == "MalformedLine"
    assert "line 2: 'text' is of type NoneType" in message
    done = run_child("score", world.meter, text_of(0, 300))
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("PromptTooLong: prompt '0': the text has")


def test_an_interrupt_is_no_traceback(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("perimetry.shift.loading.load_meter", interrupt)
    assert main(["score", str(world.meter), "x"]) == 130
    assert "the same command continues" in capsys.readouterr().err
