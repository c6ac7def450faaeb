"""`perimetry train --causal`: from a store and live, killed and resumed, swept, refused."""

import functools
import signal
from pathlib import Path

import pytest
import torch
from tests.cli.test_train import hashes, kill_when
from tests.worlds import World, run_main, text_of, train_arguments, write_jsonl

from perimetry.activations.stream import StreamConfig
from perimetry.pipeline import training
from perimetry.sae.formats import load_sae
from perimetry.train.log import read_log

CAUSAL = ("--causal", "5", "--causal-every", "2")
SMALL = "[train]\nfit_tokens = 1024\nthreshold_tokens = 1024\n"
"""Fewer tokens around the training, so that the model reads little."""


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("causal")
    return write_jsonl(folder / "text.jsonl", [{"id": f"m{i}", "text": text_of(f"m{i}", 80)} for i in range(120)])


def trained(world: World, text: Path, out: Path, *flags: str, file: str = "") -> Path:
    out.mkdir()
    (out / "train.toml").write_text(SMALL + file)
    outcome = run_main(*train_arguments(world.model, text, out), "--config", out / "train.toml", *flags)
    assert outcome.code == 0, outcome.err
    return out


@pytest.mark.parametrize("live", [(), ("--live",)])
def test_the_loss_changes_the_dictionary_and_is_in_the_log(
    world: World, text: Path, tmp_path: Path, live: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "StreamConfig", functools.partial(StreamConfig, chunk_tokens=1024))
    plain = load_sae(trained(world, text, tmp_path / "plain", *live))
    causal = load_sae(trained(world, text, tmp_path / "causal", *live, *CAUSAL))
    assert not torch.equal(plain.sae.W_dec, causal.sae.W_dec)
    assert "causal" not in plain.info.train
    assert (causal.info.train["causal"], causal.info.train["causal_every"]) == (5.0, 2)
    rows = read_log(tmp_path / "causal" / "log.jsonl")
    assert all(row["causal"] > 0 and row["causal_relative"] > 0 for row in rows)


def test_a_sweep_over_the_weight_has_one_store_and_plain_names(world: World, text: Path, tmp_path: Path) -> None:
    out = trained(world, text, tmp_path / "out", "--sweep", "causal=0,2", "--sweep", "seed=0,1")
    names = {folder.name for folder in out.iterdir() if (folder / "sae").is_dir()}
    assert names == {f"causal-{weight}_seed-{seed}" for weight in ("0.0", "2.0") for seed in (0, 1)}
    alone = load_sae(trained(world, text, tmp_path / "alone", "--causal", "2", "--seed", "1"))
    assert load_sae(out / "causal-2.0_seed-1").info.digest == alone.info.digest
    none = load_sae(trained(world, text, tmp_path / "none", "--seed", "1"))
    assert load_sae(out / "causal-0.0_seed-1").info.digest == none.info.digest


def test_all_settings_come_from_the_file(world: World, text: Path, tmp_path: Path) -> None:
    file = 'causal = 0.5\ncausal_target = "kl"\ncausal_ramp = 0.5\ncausal_sequences = 2\ncausal_share = 0.1\n'
    out = trained(world, text, tmp_path / "out", "--causal-share", "uniform", file=file)
    found = load_sae(out).info.train
    wanted = {"causal": 0.5, "causal_target": "kl", "causal_ramp": 0.5, "causal_sequences": 2, "causal_every": 1}
    assert {key: found[key] for key in wanted} == wanted
    assert found["causal_share"] == "uniform"


def test_masked_text_is_masked_for_the_loss_too(world: World, text: Path, tmp_path: Path) -> None:
    out = trained(world, text, tmp_path / "out", *CAUSAL, "--mask", "0.3", "--mask-kind", "eos")
    assert load_sae(out).info.masking["kind"] == "eos"
    assert read_log(out / "log.jsonl")[-1]["causal"] > 0


@pytest.mark.slow
def test_killed_it_ends_with_the_same_hashes(world: World, text: Path, tmp_path: Path) -> None:
    config = tmp_path / "train.toml"
    config.write_text(SMALL)

    def arguments(out: Path) -> list[str]:
        return [*train_arguments(world.model, text, out, tokens=10_000), *CAUSAL, "--config", str(config)]

    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert run_main(*arguments(whole)).code == 0
    assert kill_when(arguments(cut), lambda: any((cut / "checkpoints").glob("[!.]*"))) == -signal.SIGKILL
    assert not (cut / "sae").exists()
    done = run_main(*arguments(cut))
    assert done.code == 0, done.err
    assert hashes(cut) == hashes(whole)
    logs = [read_log(folder / "log.jsonl") for folder in (cut, whole)]
    assert [row["causal"] for row in logs[0]] == [row["causal"] for row in logs[1]]


@pytest.mark.parametrize(
    ("flags", "file", "said"),
    [
        (["--causal", "-1"], "", "causal = -1.0"),
        (["--causal", "1", "--causal-share", "half"], "", "causal_share"),
        (["--causal", "1", "--architecture", "spade"], "", "spade is none, or gives another place"),
        (["--causal", "1"], '[train]\nsmooth = 0.1\n[train.masking]\nvariant = "consistency"\n', "two versions"),
        (["--causal", "1"], '[train]\n[train.masking]\nvariant = "denoising"\n', "two versions"),
        (["--causal", "1"], "[train]\ncausal_sequences = 4000\n", "on 4000 at a time"),
        ([], "[train]\ncausal_shar = 0.2\n", "causal_share"),
    ],
)
def test_refusals(world: World, text: Path, tmp_path: Path, flags: list[str], file: str, said: str) -> None:
    if file:
        (tmp_path / "train.toml").write_text(file)
        flags = [*flags, "--config", str(tmp_path / "train.toml")]
    outcome = run_main(*train_arguments(world.model, text, tmp_path / "out"), *flags)
    assert outcome.code == 2
    assert said in outcome.err
    assert "Traceback" not in outcome.err
