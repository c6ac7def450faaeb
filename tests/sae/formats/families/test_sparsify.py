from pathlib import Path
from typing import Any

import pytest
import torch
from tests.sae.formats.families.doctor import change_json, change_tensors, copy

from perimetry.errors import ConfigError, CorruptArtifact, Incompatible, MissingFile, NonFinite
from perimetry.sae.formats.families.sparsify import read, recognises


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return copy("sparsify/topk", tmp_path) / "layers.3"


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"k": None}, CorruptArtifact, r"k is not given; its absence would mean another SAE.*--set k="),
        ({"d_in": None}, CorruptArtifact, "d_in is not given"),
        ({"k": 49}, ConfigError, "k = 49 for a dictionary of 48 latents"),
        ({"k": 0}, ConfigError, "k = 0 for a dictionary"),
        ({"num_latents": 64}, CorruptArtifact, r"encoder.weight has shape \(48, 16\), cfg.json says \(64, 16\)"),
        ({"signed": True}, Incompatible, r"signed = true chooses latents by \|p\|"),
        ({"skip_connection": True, "transcode": None}, CorruptArtifact, "transcode is not given"),
        ({"skip_connection": True}, CorruptArtifact, r"missing \['W_skip'\]"),
        ({"normalize_io": True}, Incompatible, r"options \{'normalize_io': True\} of a release that is not known"),
        ({"activation": "topk_binary"}, Incompatible, "activation 'topk_binary'"),
    ],
)
def test_what_is_missing_or_strange_is_refused(
    folder: Path, change: dict[str, Any], error: type[Exception], message: str
) -> None:
    change_json(folder / "cfg.json", lambda c: (c.update(change), [c.pop(k) for k in [*c] if c[k] is None]))
    with pytest.raises(error, match=message):
        read(folder, {})


def test_the_user_may_give_what_is_missing(folder: Path) -> None:
    change_json(folder / "cfg.json", lambda c: c.pop("k"))
    record = read(folder, {"k": 4})
    assert record.gate == (4,)
    assert record.overrides == {"k": 4}
    assert record.how["k"] == "user"


def test_the_old_configuration_means_topk_with_subtraction(folder: Path) -> None:
    old = {"expansion_factor": 3, "normalize_decoder": True, "num_latents": 48, "k": 4, "d_in": 16}
    change_json(folder / "cfg.json", lambda c: (c.clear(), c.update(old)))
    record = read(folder, {})
    assert record.subtract_b_dec
    assert record.how["transcode"] == record.how["activation"] == "family"


def test_seeds_lie_one_folder_deeper(folder: Path) -> None:
    target = folder / "seed7"
    target.mkdir()
    for name in ("cfg.json", "sae.safetensors"):
        (folder / name).rename(target / name)
    assert recognises(target)
    record = read(target, {})
    assert (record.hook.name, record.extra["hookpoint"]) == ("blocks.3.hook_resid_post", "layers.3")
    assert record.model == "EleutherAI/pythia-160m"


def test_a_run_is_not_a_dictionary(folder: Path) -> None:
    assert recognises(folder.parent)
    with pytest.raises(MissingFile, match=r"is a run of 1 dictionaries \(layers.3\); give one folder"):
        read(folder.parent, {})
    (folder / "sae.safetensors").unlink()
    (folder.parent / "optimizer_0.pt").touch()
    assert recognises(folder.parent)
    with pytest.raises(MissingFile, match=r"state of an optimiser and no sae.safetensors"):
        read(folder.parent, {})
    assert not recognises(folder)


def test_a_module_path_without_the_kind_of_model_stays_unresolved(tmp_path: Path) -> None:
    folder = copy("sparsify/expansion", tmp_path) / "layers.3.mlp"
    record = read(folder, {})
    assert record.hook.name is None
    assert record.hook.layer == 3
    assert "--set model_type=" in record.notes[0]
    gemma = read(folder, {"model_type": "gemma2"})
    assert (gemma.hook.name, gemma.hook.hf_name) == ("blocks.3.mlp.hook_out", "model.layers.3.mlp"), "before the norm"


def test_numbers_that_are_none_and_tensors_that_nobody_knows(folder: Path) -> None:
    file = folder / "sae.safetensors"
    change_tensors(file, lambda t: t.update(threshold=torch.zeros(48)))
    with pytest.raises(CorruptArtifact, match=r"unknown \['threshold'\]"):
        read(folder, {})
    change_tensors(file, lambda t: (t.pop("threshold"), t["b_dec"].fill_(float("nan"))))
    with pytest.raises(NonFinite, match="NaN or infinity in 'b_dec'"):
        read(folder, {})
    change_tensors(file, lambda t: (t["b_dec"].zero_(), t["W_dec"].zero_()))
    with pytest.raises(CorruptArtifact, match="W_dec is all zero"):
        read(folder, {})


def test_a_decoder_the_other_way_round_is_refused(folder: Path) -> None:
    change_tensors(folder / "sae.safetensors", lambda t: t.update(W_dec=t["W_dec"].T))
    with pytest.raises(CorruptArtifact, match=r"wanted|would fit transposed"):
        read(folder, {})
