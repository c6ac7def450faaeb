"""`perimetry train` on masked text."""

from pathlib import Path

import pytest
import torch
from tests.worlds import World, run_main, text_of, train_arguments, write_jsonl

from perimetry.activations.store import ActivationStore
from perimetry.sae.formats import load_sae
from perimetry.sae.transcoder import TranscoderSAE
from perimetry.storage import read_json

TOKENS = 4000


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("masked")
    return write_jsonl(folder / "text.jsonl", [{"id": f"m{i}", "text": text_of(f"m{i}", 80)} for i in range(120)])


def trained(world: World, text: Path, out: Path, *flags: str) -> Path:
    outcome = run_main(*train_arguments(world.model, text, out, tokens=TOKENS), *flags)
    assert outcome.code == 0, outcome.err
    return out


def test_an_sae_says_how_its_text_was_masked(world: World, text: Path, tmp_path: Path) -> None:
    plain = load_sae(trained(world, text, tmp_path / "plain"))
    masked = load_sae(trained(world, text, tmp_path / "masked", "--mask", "0.4", "--mask-kind", "unigram"))
    assert plain.info.masking == {}
    assert masked.info.masking["probability"] == 0.4
    assert masked.info.masking["kind"] == "unigram"
    assert not torch.equal(plain.sae.W_dec, masked.sae.W_dec)
    assert "masking" not in read_json(tmp_path / "plain" / "store" / "plan.json")["request"]["config"]
    assert read_json(tmp_path / "masked" / "store" / "plan.json")["request"]["config"]["masking"]["kind"] == "unigram"


def test_all_settings_come_from_the_file_and_flags_go_over_them(world: World, text: Path, tmp_path: Path) -> None:
    config = tmp_path / "train.toml"
    config.write_text(
        '[train]\nk = 4\n[train.masking]\nkind = "eos"\nspan = 2\nschedule = "mixture"\nprobability = 0.2\n'
    )
    out = trained(world, text, tmp_path / "out", "--config", str(config), "--mask", "0.5")
    found = load_sae(out).info.masking
    assert (found["kind"], found["span"], found["schedule"], found["probability"]) == ("eos", 2, "mixture", 0.5)


def test_the_live_stream_masks_too(world: World, text: Path, tmp_path: Path) -> None:
    out = trained(world, text, tmp_path / "out", "--live", "--mask", "0.3")
    assert load_sae(out).info.masking["kind"] == "string"


def test_consistency_trains_on_pairs(world: World, text: Path, tmp_path: Path) -> None:
    config = tmp_path / "train.toml"
    config.write_text(
        '[train]\nsmooth = 0.1\nsmooth_share = 1.0\n[train.masking]\nvariant = "consistency"\npositions = "unmasked"\n'
    )
    out = trained(world, text, tmp_path / "out", "--config", str(config))
    assert load_sae(out).info.masking["variant"] == "consistency"
    assert (out / "store" / "masked" / "manifest.json").is_file()
    assert (out / "store" / "clean" / "manifest.json").is_file()


def test_denoising_gives_a_dictionary_of_one_place(world: World, text: Path, tmp_path: Path) -> None:
    config = tmp_path / "train.toml"
    config.write_text('[train]\n[train.masking]\nvariant = "denoising"\n')
    out = trained(world, text, tmp_path / "out", "--config", str(config))
    found = load_sae(out)
    assert found.sae.reads == "one"
    assert found.info.architecture == found.sae.architecture == "batchtopk"
    assert found.info.masking["variant"] == "denoising"
    assert found.info.train["architecture"] == "batchtopk"
    pair = load_sae(out / "denoising" / "sae").sae
    assert isinstance(pair, TranscoderSAE)
    masked, clean = (ActivationStore.open(out / "store" / name) for name in ("masked", "clean"))
    rows = [next(store.batches(512)) for store in (masked, clean)]
    codes, given = found.sae(rows[0].float())
    assert torch.equal(codes.indices, pair.encode(rows[0].float()).indices)
    # It is nearer to the clean activation than to the masked one that it read.
    near, far = ((given - row.float()).square().sum() for row in (rows[1], rows[0]))
    assert near < far
    again = load_sae(trained(world, text, tmp_path / "out", "--config", str(config)))
    assert again.info.digest == found.info.digest


@pytest.mark.parametrize(
    ("flags", "file", "said"),
    [
        (["--mask", "1.5"], "", "probability"),
        (["--mask-kind", "blank"], "", "kind"),
        ([], "[train]\nmasking = 3\n", "a table is wanted"),
        ([], "[train]\n[train.masking]\nprobabilty = 0.3\n", "probability"),
        ([], '[train]\n[train.masking]\nvariant = "consistency"\n', "smooth > 0"),
        ([], '[train]\narchitecture = "matryoshka"\n[train.masking]\nvariant = "denoising"\n', "without options"),
        (["--live"], '[train]\n[train.masking]\nvariant = "denoising"\n', "wanted a store and one place"),
    ],
)
def test_refusals(world: World, text: Path, tmp_path: Path, flags: list[str], file: str, said: str) -> None:
    if file:
        (tmp_path / "train.toml").write_text(file)
        flags = [*flags, "--config", str(tmp_path / "train.toml")]
    outcome = run_main(*train_arguments(world.model, text, tmp_path / "out", tokens=TOKENS), *flags)
    assert outcome.code == 2
    assert said in outcome.err
    assert "Traceback" not in outcome.err
