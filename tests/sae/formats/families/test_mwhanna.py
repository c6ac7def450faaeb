from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.sae.formats.families.doctor import copy
from tests.sae.formats.families.evaluate import evaluate, vectors, worst

from perimetry.errors import CorruptArtifact, MissingFile
from perimetry.sae.formats.families.mwhanna import read, recognises

pytestmark = pytest.mark.usefixtures("here")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return copy("mwhanna/transcoder", tmp_path) / "qwen3-0.6b-transcoders-lowl0"


def test_the_misspelt_configuration_is_known(folder: Path) -> None:
    (folder / "wandb-config.yaml").rename(folder / "wanb-config.yaml")
    record = read(folder / "layer_6.safetensors", {})
    assert "wanb-config.yaml" in record.source.files
    assert record.transcoder
    assert record.hook.hf_name_out == "model.layers.6.mlp"
    assert any("fold_ln = false" in note for note in record.notes)
    assert record.context_size is None, "the run's batch size is no text length"


def test_configuration_and_weights_must_agree(folder: Path) -> None:
    text = (folder / "wandb-config.yaml").read_text()
    (folder / "wandb-config.yaml").write_text(text.replace("value: 48", "value: 64"))
    with pytest.raises(CorruptArtifact, match="d_feature is 48, its configuration says 64"):
        read(folder / "layer_6.safetensors", {})


def test_without_a_configuration_the_hook_stays_open(folder: Path) -> None:
    (folder / "config.yaml").unlink()
    record = read(folder / "layer_6.safetensors", {})
    assert (record.hook.name, record.hook.layer, record.model) == (None, 6, None)
    (folder / "wandb-config.yaml").unlink()
    assert not recognises(folder / "layer_6.safetensors")


def test_a_gemma_norms_the_output_once_more(folder: Path) -> None:
    text = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(text.replace("Qwen/Qwen3-0.6B", "google/gemma-2-2b"))
    record = read(folder / "layer_6.safetensors", {})
    assert record.hook.hf_name == "model.layers.6.mlp.input"
    assert record.hook.hf_name_out is None


def test_cross_layer_transcoders_only_encode(folder: Path) -> None:
    tensors = load_file(folder / "layer_6.safetensors")
    save_file({f"{k}_2": tensors[k] for k in ("W_enc", "b_enc", "b_dec")}, folder / "W_enc_2.safetensors")
    decoders = torch.stack([tensors["W_dec"], 2 * tensors["W_dec"]], dim=1)
    file = folder / "W_enc_2.safetensors"
    assert recognises(file)
    with pytest.raises(MissingFile, match=r"no W_dec_2.safetensors"):
        read(file, {})
    save_file({"W_dec_2": decoders}, folder / "W_dec_2.safetensors")
    record = read(file, {})
    assert (record.reconstructs, record.hook.layer, record.hook.name_out) == (False, 2, None)
    assert torch.allclose(record.W_dec, 3 * tensors["W_dec"])
    wanted = vectors("mwhanna/transcoder")
    assert worst(evaluate(record, wanted.x).codes, wanted.codes) <= 1e-5
    save_file({"W_dec_2": tensors["W_dec"]}, folder / "W_dec_2.safetensors")
    with pytest.raises(CorruptArtifact, match=r"\(latents, layers, width\) is wanted"):
        read(file, {})
