"""`perimetry convert` from end to end: a stranger's folder, a store of a real (tiny) model, a certificate."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tests.activations.documents import make_documents
from tests.worlds import run_child, run_main

from perimetry.activations.model import LanguageModel
from perimetry.activations.shards import ActivationStore
from perimetry.activations.store import HarvestConfig, harvest
from perimetry.errors import UsageError
from perimetry.pipeline.conversion import parse_overrides, sample_store
from perimetry.runtime import generator
from perimetry.sae.formats import load_sae
from perimetry.sae.formats.saelens_read import read_saelens

LAYER = 1


@pytest.fixture(scope="module")
def store(tiny_lm: LanguageModel, tmp_path_factory: pytest.TempPathFactory) -> ActivationStore:
    config = HarvestConfig(tokens=600, context=24, dtype="float32", shard_tokens=300)
    return harvest(tiny_lm, LAYER, make_documents(40), tmp_path_factory.mktemp("store") / "s", config)


def stranger(folder: Path, store: ActivationStore, **changes: object) -> Path:
    """A SAELens dictionary that explains the store: both directions of each principal axis, about the mean."""
    acts = store.rows(torch.arange(len(store)))
    centre = acts.mean(0)
    axes = torch.linalg.svd(acts - centre, full_matrices=False).Vh
    rows = torch.cat([axes, -axes])
    folder.mkdir()
    tensors = {"W_enc": rows.T, "W_dec": rows, "b_enc": torch.zeros(len(rows)), "b_dec": centre}
    save_file({k: v.contiguous() for k, v in tensors.items()}, folder / "sae_weights.safetensors")
    config = {
        "architecture": "standard",
        "d_in": rows.shape[1],
        "d_sae": rows.shape[0],
        "dtype": "float32",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": {
            "sae_lens_version": "6.54.12",
            "model_name": "tiny",
            "hook_name": f"blocks.{LAYER}.hook_resid_post",
            "prepend_bos": True,
        },
    }
    kept = {key: value for key, value in (config | changes).items() if value is not None}
    (folder / "cfg.json").write_text(json.dumps(kept))
    return folder


def test_a_certified_conversion(store: ActivationStore, tmp_path: Path) -> None:
    source = stranger(tmp_path / "in", store)
    done = run_main("convert", source, tmp_path / "out", "--certify", "--activations", store.path, "--json")
    assert done.code == 0, done.err
    said = done.json()
    certificate = said["certificate"]
    assert certificate["verdict"] == "exact", certificate["reasons"]
    assert certificate["measured"]["explained_variance"] > 0.99
    assert certificate["activations"]["hook"]["transformer_lens"] == f"blocks.{LAYER}.hook_resid_post"
    assert certificate["activations"]["revision"] == store.plan["revision"]
    assert certificate["activations"]["tokenizer"] == store.plan["tokenizer"]
    assert (said["architecture"], said["d_model"], said["d_sae"]) == ("standard", 32, 64)
    loaded = load_sae(tmp_path / "out")
    assert loaded.info.digest == said["digest"]
    assert loaded.certificate == certificate


def test_for_a_person_it_says_the_verdict(store: ActivationStore, tmp_path: Path) -> None:
    source = stranger(tmp_path / "in", store)
    plain = run_child("convert", source, tmp_path / "a")
    assert (plain.code, plain.out) == (0, "")
    assert "standard, width 32 to 64 latents, sha256" in plain.err
    assert "not certified: add --certify" in plain.err
    certified = run_main("convert", source, tmp_path / "b", "--certify")
    assert "certificate: structural; no real activations at the declared hook were given" in certified.err


def test_fields_that_are_missing_are_asked_for_and_taken(store: ActivationStore, tmp_path: Path) -> None:
    source = stranger(tmp_path / "in", store, apply_b_dec_to_input=None)
    kind, message = run_main("convert", source, tmp_path / "out", "--json").error()
    assert kind == "CorruptArtifact"
    assert message.endswith("nothing is assumed; mend the file, or give it with --set apply_b_dec_to_input=")
    done = run_main(
        "convert", source, tmp_path / "out", "--set", "apply_b_dec_to_input=true", "--set", "context_size=24",
        "--certify", "--json",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert done.json()["certificate"]["overrides"] == {"apply_b_dec_to_input": True, "context_size": 24}
    assert done.json()["info"]["context_size"] == 24
    assert done.json()["certificate"]["how"]["apply_b_dec_to_input"] == "user"


def test_activations_of_another_place_are_refused(
    store: ActivationStore, tiny_lm: LanguageModel, tmp_path: Path
) -> None:
    config = HarvestConfig(tokens=100, context=24, dtype="float32")
    other = harvest(tiny_lm, 0, make_documents(10), tmp_path / "other", config)
    source = stranger(tmp_path / "in", store)
    kind, message = run_main(
        "convert", source, tmp_path / "out", "--certify", "--activations", other.path, "--json"
    ).error()
    assert kind == "Incompatible"
    assert "are of blocks.0.hook_resid_post, the dictionary reads blocks.1.hook_resid_post" in message
    assert not (tmp_path / "out").exists()


def test_a_dictionary_of_other_activations_is_for_inspection_only(store: ActivationStore, tmp_path: Path) -> None:
    source = stranger(tmp_path / "in", store)
    weights = {
        "W_enc": torch.eye(32).repeat(1, 2) * 3,
        "W_dec": torch.randn(64, 32, generator=generator(0)),
        "b_enc": torch.zeros(64),
        "b_dec": torch.full((32,), 9.0),
    }
    save_file(weights, source / "sae_weights.safetensors")
    done = run_main("convert", source, tmp_path / "out", "--certify", "--activations", store.path, "--json")
    assert done.json()["certificate"]["verdict"] == "structural"
    assert "worse than their mean: is it another layer, model or scale?" in done.json()["certificate"]["reasons"][0]


def test_a_sample_of_a_store_is_seeded_and_bounded(store: ActivationStore, tmp_path: Path) -> None:
    record = read_saelens(stranger(tmp_path / "in", store), {})
    one, two, other = (sample_store(store.path, record, seed).acts for seed in (0, 0, 1))
    assert one.shape == (len(store), 32)
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


def test_wrong_words_are_refused(store: ActivationStore, tmp_path: Path) -> None:
    source = stranger(tmp_path / "in", store)
    for flags, wanted in (
        (("--set", "k"), "--set k: a key, an equals sign and a value are wanted"),
        (("--set", "k=1", "--set", "k=2"), "--set k is given twice"),
        (("--set", "widht=1"), "reads no such field"),
        (("--format", "sparsly"), "unknown format 'sparsly'; the nearest name is 'sparsify'"),
        (("--activations", str(store.path)), "--activations without --certify"),
    ):
        _, message = run_main("convert", source, tmp_path / "out", *flags, "--json").error()
        assert wanted in message
    _, message = run_main("convert", tmp_path / "nothing", tmp_path / "out", "--json").error()
    assert "nothing at" in message
    with pytest.raises(UsageError):
        parse_overrides(["=3"])


def test_a_pickle_needs_the_flag(tmp_path: Path) -> None:
    golden = Path(__file__).parents[1] / "sae" / "formats" / "golden" / "goodfire" / "llama"
    source = next(golden.rglob("*.pth"))
    kind, message = run_main("convert", source, tmp_path / "out", "--json").error()
    assert kind == "UnsafeFormat"
    assert "add --unsafe-pickle" in message
    for flag in ("--unsafe-pickle", "--allow-pickle"):
        done = run_main("convert", source, tmp_path / flag, flag, "--json")
        assert done.code == 0, done.err
    assert done.json()["info"]["origin"]["source"]["family"] == "goodfire"


def test_the_native_format_may_be_asked_for(store: ActivationStore, tmp_path: Path) -> None:
    run_main("convert", stranger(tmp_path / "in", store), tmp_path / "out", "--native")
    assert (tmp_path / "out" / "dictionary.json").is_file()
