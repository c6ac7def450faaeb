"""Many SAEs from one run of the model, by `perimetry train`: what they learn from, what is written, and kills."""

import functools
import json
import os
import re
import signal
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from tests.cli.test_train import hashes
from tests.worlds import Outcome, World, in_a_child, run_main, train_arguments

from perimetry.activations import feed
from perimetry.activations.aligned import AlignedStores
from perimetry.activations.shards import ActivationStore
from perimetry.activations.stream import StreamConfig
from perimetry.activations.writer import StoreWriter
from perimetry.pipeline import training
from perimetry.pipeline.places import sites_of
from perimetry.pipeline.sweep import Member, differences, expand, folder_names
from perimetry.sae.formats import load_sae
from perimetry.train import TrainConfig, train
from perimetry.train.run import Run

PAGE = Path(__file__).parents[2] / "docs" / "training.md"
SWEEP = """
[train]
width = 64
k = 6
tokens = 2048
batch = 128
fit_tokens = 1024
threshold_tokens = 1024
checkpoint_every = 6

[train.sweep]
layer = [0, 1]
architecture = ["batchtopk", "topk"]

[[train.runs]]
architecture = "transcoder"
layer = 1
place = "mlp"
options = { skip = true }

[[train.runs]]
architecture = "transcoder"
layer = 0
target_layer = 2

[[train.runs]]
architecture = "crosscoder"
layers = [2, 0]
width = 96
"""
NAMES = {
    "layer-00_batchtopk_width-64": ["layer-00"],
    "layer-00_topk_width-64": ["layer-00"],
    "layer-01_batchtopk_width-64": ["layer-01"],
    "layer-01_topk_width-64": ["layer-01"],
    "layer-01-mlp_transcoder_skip-true_width-64": ["layer-01-mlp_in", "layer-01-mlp_out"],
    "layer-00-to-02_transcoder_skip-false_width-64": ["layer-00", "layer-02"],
    "layers-02-00_crosscoder_width-96": ["layer-02", "layer-00"],
}
"""Folder of each SAE -> the stores that its rows are made of, in their order."""


class Swept(NamedTuple):
    """A run of several SAEs that was never stopped."""

    out: Path
    config: Path
    done: Outcome


def asked(world: World, out: Path, *more: str | Path) -> list[str]:
    """The command, without the sizes that stand in the file."""
    paths = ["--model", world.model, "--text", world.corpus, "--out", out]
    return ["train", *map(str, paths), "--context", "64", "--dtype", "float32", *map(str, more)]


@pytest.fixture(scope="module")
def swept(world: World, tmp_path_factory: pytest.TempPathFactory) -> Swept:
    root = tmp_path_factory.mktemp("swept")
    config = root / "sweep.toml"
    config.write_text(SWEEP)
    done = run_main(*asked(world, root / "out", "--config", config, "--json"))
    assert done.code == 0, done.err
    return Swept(root / "out", config, done)


def refused(out: Path, *more: str | Path, match: str, kind: str = "ConfigError") -> None:
    """The command ends with an error; `more` has the model, where there is one."""
    model = () if "--model" in more else ("--model", out / "gone")
    found = run_main("train", "--out", out, *model, *more, "--json").error()
    assert found[0] == kind, found
    assert re.search(match, found[1]), found


def test_folders_are_named_after_what_differs(swept: Swept) -> None:
    rows = swept.done.json()["saes"]
    assert [Path(row["path"]) for row in rows] == [swept.out / name / "sae" for name in NAMES]
    assert {p.name for p in swept.out.iterdir()} == {*NAMES, "store", "sweep.json", ".lock"}
    assert rows[0] == {
        **{"path": str(swept.out / "layer-00_batchtopk_width-64" / "sae"), "seed": 0, "width": 64},
        **{"layer": 0, "layers": None, "place": "resid_post", "target_layer": None, "architecture": "batchtopk"},
        **{key: rows[0][key] for key in ("digest", "fvu", "l0", "dead")},
    }
    assert rows[4]["options"] == {"skip": True}
    assert (rows[4]["place"], rows[5]["target_layer"], rows[6]["layers"]) == ("mlp", 2, [2, 0])


def test_the_file_beside_them_says_the_same(swept: Swept) -> None:
    assert swept.done.json()["sweep"] == str(swept.out / "sweep.json")
    document = json.loads((swept.out / "sweep.json").read_text())
    rows = swept.done.json()["saes"]
    assert document["rows"] == [row | {"path": f"{name}/sae"} for row, name in zip(rows, NAMES, strict=True)]
    config = document["config"]
    assert (config["context"], config["live"]) == (64, False)
    assert [run["architecture"] for run in config["runs"]][-2:] == ["transcoder", "crosscoder"]
    for row, run in zip(rows, config["runs"], strict=True):
        info = load_sae(Path(row["path"])).info
        assert info.digest == row["digest"]
        recipe = {key: value for key, value in run.items() if key in TrainConfig.model_fields and key != "options"}
        assert recipe == {key: value for key, value in info.train.items() if key != "options"}


@pytest.mark.parametrize("name", NAMES)
def test_each_learns_what_it_would_learn_alone_from_its_places(swept: Swept, tmp_path: Path, name: str) -> None:
    stores = [ActivationStore.open(swept.out / "store" / part) for part in NAMES[name]]
    loaded = load_sae(swept.out / name)
    alone = train(TrainConfig.model_validate(loaded.info.train), AlignedStores(stores), tmp_path)
    tensors, settings = loaded.sae.state()
    wanted = load_sae(alone.path).sae.state()
    assert settings == wanted.settings
    assert tensors.keys() == wanted.tensors.keys()
    assert [key for key in tensors if not torch.equal(tensors[key], wanted.tensors[key])] == []


def test_each_says_where_it_reads_and_writes(swept: Swept) -> None:
    found = [load_sae(swept.out / name).info for name in NAMES]
    assert [info.layer for info in found] == [0, 0, 1, 1, None, 0, None]
    mlp, across, several = found[-3:]
    assert (mlp.hook_name, mlp.hook_name_out) == ("blocks.1.mlp.hook_in", "blocks.1.mlp.hook_out")
    assert (across.hook_name, across.hook_name_out) == ("blocks.0.hook_resid_post", "blocks.2.hook_resid_post")
    assert several.hook_names == ("blocks.2.hook_resid_post", "blocks.0.hook_resid_post")
    assert (mlp.train["options"]["d_in"], several.train["options"]["widths"]) == (32, [32, 32])
    policies = [info.policy["max_norm"] for info in found]
    assert policies[0] == policies[1] == policies[5]
    assert len(set(policies)) == 4, "each place has its own sink threshold"


def test_the_model_runs_once_for_all_of_them(
    world: World, swept: Swept, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, passes = feed.read_sites, []

    def counted(lm: Any, sites: Any, *rest: Any) -> Any:
        passes.append(len(sites))
        return read(lm, sites, *rest)

    monkeypatch.setattr(feed, "read_sites", counted)
    one = tmp_path / "one.toml"
    one.write_text(SWEEP.partition("[train.sweep]")[0])
    assert run_main(*asked(world, tmp_path / "one", "--config", one, "--layer", "0")).code == 0
    alone = len(passes)
    assert set(passes) == {1}
    passes.clear()
    assert run_main(*asked(world, tmp_path / "all", "--config", swept.config)).code == 0
    assert passes == [5] * alone, "as many passes as for one SAE, all places in each"


def test_the_same_command_again_says_the_same(world: World, swept: Swept) -> None:
    before = hashes(swept.out)
    again = run_main(*asked(world, swept.out, "--config", swept.config, "--json"))
    assert again.json() == swept.done.json()
    assert hashes(swept.out) == before


def killing(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, at: int) -> None:
    """Make the process die right after call number `at` of `owner.name`; 0 is before the first."""
    real: Callable[..., Any] = getattr(owner, name)
    left = [at]

    def called(*args: Any, **kwargs: Any) -> Any:
        result = real(*args, **kwargs) if left[0] else None
        left[0] -= 1
        if left[0] <= 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    monkeypatch.setattr(owner, name, called)


def test_killed_anywhere_it_ends_with_the_same_hashes(
    world: World, swept: Swept, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut = tmp_path / "cut"

    def killed(owner: Any, name: str, at: int) -> None:
        def work() -> None:
            killing(monkeypatch, owner, name, at)
            run_main(*asked(world, cut, "--config", swept.config))

        assert in_a_child(work) == -signal.SIGKILL

    def finished() -> int:
        return len(list(cut.glob("*/sae/manifest.json")))

    killed(StoreWriter, "write", 3)
    assert len(list((cut / "store").glob("*/shard-*"))) == 3, "killed in the harvest, between its stores"
    killed(Run, "save", 3)
    assert len(list(cut.glob("*/checkpoints/step-*"))) == 3, "killed when some had a checkpoint and others had none"
    killed(Run, "save", 10)
    assert finished() == 0, "killed in the middle of the training"
    killed(Run, "finish", 2)
    assert finished() == 2, "killed when some were finished and others were not"
    killed(training, "write_json", 0)
    assert finished() == 7, "killed before the table was written"
    assert not (cut / "sweep.json").exists()
    done = run_main(*asked(world, cut, "--config", swept.config, "--json"))
    assert done.code == 0, done.err
    assert hashes(cut) == hashes(swept.out)


def test_a_person_gets_a_table(world: World, swept: Swept) -> None:
    shown = run_main(*asked(world, swept.out, "--config", swept.config))
    assert shown.out == ""
    assert "7 SAEs on the same batches" in shown.err
    for row in swept.done.json()["saes"]:
        line = next(line for line in shown.err.splitlines() if row["digest"][:16] in line)
        assert f"{row['fvu']:.4f}" in line
        assert f"{row['l0']:.1f}" in line
    assert f"--sae {swept.out / 'layer-00_batchtopk_width-64' / 'sae'} --text" in shown.err


def test_a_flag_sweeps_as_a_file_does_and_each_is_as_alone(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = train_arguments(world.model, world.corpus, tmp_path / "x")
    for flag in ("--width", "--k"):
        at = base.index(flag)
        del base[at : at + 2]
    done = run_main(*base, "--sweep", "width=48,64", "--sweep", "k=4,6", "--json")
    assert done.code == 0, done.err
    rows = done.json()["saes"]
    assert [Path(row["path"]).parent.name for row in rows] == [
        *("width-48_k-4", "width-48_k-6", "width-64_k-4", "width-64_k-6")
    ]
    assert [(row["width"], row["k"]) for row in rows] == [(48, 4), (48, 6), (64, 4), (64, 6)]
    assert rows[3]["digest"] == load_sae(world.sae).info.digest, "one place: the same bytes as alone"
    small(monkeypatch)
    seeds = run_main(
        *train_arguments(world.model, world.corpus, tmp_path / "y"), "--sweep", "seed=3,4", "--json"
    ).json()
    both = run_main(*train_arguments(world.model, world.corpus, tmp_path / "z"), "--seed", "3", "--seed", "4", "--json")
    assert [row["digest"] for row in seeds["saes"]] == [row["digest"] for row in both.json()["saes"]]
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "y").glob("seed-*/sae/*")}
    more = run_main(
        *train_arguments(world.model, world.corpus, tmp_path / "y"), "--sweep", "seed=3,4,5", "--json"
    ).json()
    assert more["saes"][:2] == seeds["saes"], "what is finished stays"
    assert {p: p.stat().st_mtime_ns for p in before} == before
    assert Path(more["saes"][2]["path"]).parent.name == "seed-5"


def test_live_a_sweep_reads_the_model_and_keeps_no_store(
    world: World, swept: Swept, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "StreamConfig", functools.partial(StreamConfig, chunk_tokens=1024))
    outs = [tmp_path / "one", tmp_path / "two"]

    def work() -> None:
        killing(monkeypatch, Run, "save", 10)
        run_main(*asked(world, outs[1], "--config", swept.config, "--live"))

    assert in_a_child(work) == -signal.SIGKILL
    assert len(list(outs[1].glob("*/checkpoints/step-*"))) == 10, "killed in the middle of the training"
    for out in outs:
        done = run_main(*asked(world, out, "--config", swept.config, "--live", "--json"))
        assert done.code == 0, done.err
        assert [Path(row["path"]).parent.name for row in done.json()["saes"]] == list(NAMES)
        assert not (out / "store").exists()
    assert hashes(outs[0]) == hashes(outs[1])
    stored = load_sae(swept.out / "layer-01-mlp_transcoder_skip-true_width-64").info
    live = load_sae(outs[0] / "layer-01-mlp_transcoder_skip-true_width-64").info
    assert live.policy == pytest.approx(stored.policy)
    assert (live.hook_name, live.hook_name_out) == (stored.hook_name, stored.hook_name_out)


def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Less to read and to write, where only that it runs is looked at."""
    for key, value in {"FIT_TOKENS": "512", "THRESHOLD_TOKENS": "512", "CHECKPOINT_EVERY": "8"}.items():
        monkeypatch.setenv(f"PERIMETRY_TRAIN_{key}", value)


TINY = ["--width", "64", "--k", "6", "--tokens", "1024", "--batch", "128"]


def test_one_transcoder_one_crosscoder_by_flags_alone(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small(monkeypatch)
    wanted = {
        "a": (["transcoder", "--layer", "0", "--target-layer", "2"], "blocks.2.hook_resid_post"),
        "b": (["transcoder", "--place", "mlp"], "blocks.1.mlp.hook_out"),
        "c": (["crosscoder", "--layers", "0,1,2"], None),
        "d": (["topk", "--place", "mlp_out"], None),
    }
    for name, (flags, written) in wanted.items():
        done = run_main(*asked(world, tmp_path / name, *TINY, "--architecture", *flags, "--json"))
        assert done.code == 0, done.err
        (row,) = done.json()["saes"]
        assert row["path"] == str(tmp_path / name / "sae")
        assert set(row) == {"path", "digest", "seed", "fvu", "l0", "dead"}
        assert load_sae(tmp_path / name).info.hook_name_out == written
        assert not (tmp_path / name / "sweep.json").exists()
        assert "next:" not in run_main(*asked(world, tmp_path / name, *TINY, "--architecture", *flags)).err
    for name, place in (("c", "blocks.0.hook_resid_post, blocks.1"), ("d", "blocks.1.mlp.hook_out")):
        calibrate = [
            "calibrate",
            "--sae",
            tmp_path / name,
            "--text",
            world.prompts,
            "--out",
            tmp_path / "m",
            "--layer",
            "1",
        ]
        kind, message = run_main(*calibrate, "--json").error()
        assert kind == "ConfigError"
        assert f"reads {place}" in message
        assert "a meter reads the output of one block" in message


def test_what_cannot_be_is_refused_before_the_model_is_loaded(tmp_path: Path) -> None:
    refused(tmp_path, "--architecture", "transcoder", match="no target was given for 'transcoder'")
    refused(tmp_path, "--target-layer", "2", match="target_layer = 2 for 'batchtopk'.*takes a target: transcoder")
    refused(tmp_path, "--layers", "0,1", match="give --sweep layer=0,1 for an SAE each")
    refused(tmp_path, "--layers", "0,x", match="--layers 0,x is no list of blocks; wanted numbers with commas")
    refused(tmp_path, "--place", "mlp_mid", match="place = 'mlp_mid': Input should be")
    refused(tmp_path, "--sweep", "width=64,64", match="SAE 2 is the same as SAE 1")
    refused(tmp_path, "--sweep", "tokens=4096,8192", match="need the same tokens; SAE 1 has 4096 and SAE 2")
    refused(tmp_path, "--sweep", "seed=1,2", "--seed", "3", match="--seed 3 and --sweep seed=")
    refused(tmp_path, "--sweep", "k=1,2", "--k", "3", match="k is given as 3 and as the list")
    refused(tmp_path, "--sweep", "widht=1,2", kind="UnknownName", match="the nearest name is 'width'")


def test_the_middle_block_and_its_number_are_the_same_place(world: World, tmp_path: Path) -> None:
    file = tmp_path / "x.toml"
    file.write_text(
        "[train]\ntokens = 1024\nbatch = 128\nwidth = 64\nk = 4\n[[train.runs]]\n[[train.runs]]\nlayer = 1\n"
    )
    here = ["--model", world.model, "--text", world.corpus]
    refused(tmp_path / "o", *here, "--config", file, match="SAE 2 is the same as SAE 1")
    refused(tmp_path / "o", *here, *TINY, "--sweep", "layer=1,7", match="layer 7 is not in .*, which has 3 blocks")


def example() -> str:
    """The example of the page."""
    found = re.search(r"^```toml\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert found is not None
    return found[1]


SMALLER = {
    "5_000_000": "1024", "batch = 4096": "batch = 128", "[6, 12, 18]": "[0, 1, 2]", "[4608, 16384]": "[48, 64]",
    "k = 32": "k = 4", "layer = 12": "layer = 1", "[10, 12, 14]": "[0, 1, 2]", "width = 8192": "width = 32",
}  # fmt: skip
"""What of the example is made smaller, so that a test can run it."""


def test_the_example_of_the_page_runs(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = example()
    for large, tiny in SMALLER.items():
        assert large in text
        text = text.replace(large, tiny)
    assert not re.search(r"\d{4,}", text.replace("1024", "")), "nothing large is left"
    file = tmp_path / "sweep.toml"
    file.write_text(text)
    small(monkeypatch)
    done = run_main(*asked(world, tmp_path / "out", "--config", file, "--json"))
    assert done.code == 0, done.err
    rows = done.json()["saes"]
    assert len(rows) == 3 * 2 + 2 + 1 + 1
    assert {load_sae(Path(row["path"])).info.digest for row in rows} == {row["digest"] for row in rows}
    assert len({row["digest"] for row in rows}) == len(rows)


def test_the_page_shows_the_folders_of_its_example() -> None:
    page = PAGE.read_text(encoding="utf-8")
    runs = expand(tomllib.loads(example())["train"])
    made = [Member(run.recipe, sites_of(run.where, run.architecture, 12)) for run in runs]
    shown = re.search(r"<!-- folders -->(.*?)<!-- end -->", page, re.DOTALL)
    assert shown is not None
    assert shown[1].split() == folder_names(differences(made))
