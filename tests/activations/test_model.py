import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from perimetry.activations.model import (
    BLOCKS,
    LanguageModel,
    folder_revision,
    from_pretrained_parts,
    load_language_model,
    tiny_language_model,
)
from perimetry.activations.tiny import tiny_parts
from perimetry.errors import AssetError, UnknownName, UnsafeFormat
from perimetry.runtime import Runtime

CPU = Runtime(torch.device("cpu"), torch.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny_lm):
    path = tmp_path_factory.mktemp("model")
    tiny_lm.model.save_pretrained(path)
    tiny_lm.tokenizer.save_pretrained(path)
    return path


@pytest.mark.parametrize("family", sorted(BLOCKS))
def test_a_tiny_model_of_each_family_is_frozen_and_seeded(family):
    state = torch.random.get_rng_state()
    lm, again, other = (tiny_language_model(family, seed) for seed in (0, 0, 1))
    assert torch.equal(state, torch.random.get_rng_state())
    assert (lm.family, lm.d_model, lm.n_layers, len(lm.blocks), lm.context) == (family, 32, 3, 3, 128)
    assert not lm.model.training
    assert not any(p.requires_grad for p in lm.model.parameters())
    assert lm.revision == again.revision != other.revision


def test_an_unknown_family_is_refused_with_the_nearest_name():
    with pytest.raises(UnknownName, match=r"unknown model family 'lama'; the nearest name is 'llama'; known: gemma, "):
        tiny_language_model("lama")


def test_qwen_has_no_bos_and_the_others_have_one():
    assert tiny_language_model("qwen3").bos_id is None
    assert tiny_language_model("gpt2").bos_id == 1


def test_a_saved_folder_loads_to_the_same_logits(folder, tiny_lm):
    lm = load_language_model(str(folder), CPU)
    ids = torch.tensor([[1, 50, 60, 70]])
    assert torch.equal(lm.model(ids).logits, tiny_lm.model(ids).logits)
    assert (lm.name, lm.revision) == (folder.name, folder_revision(folder))
    assert lm.tokenizer_hash == tiny_lm.tokenizer_hash
    assert lm.dtype == torch.float32
    half = load_language_model(str(folder), Runtime(torch.device("cpu"), torch.bfloat16))
    assert half.dtype == torch.bfloat16
    assert half.revision == lm.revision


def test_the_revision_follows_weights_and_configuration_not_the_place(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    assert folder_revision(copy) == folder_revision(folder)
    weights = load_file(copy / "model.safetensors")
    name = sorted(weights)[0]
    weights[name].view(-1)[0] += 1
    save_file(weights, copy / "model.safetensors")
    changed = folder_revision(copy)
    assert changed != folder_revision(folder)
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 1e-3}))
    assert folder_revision(copy) not in (changed, folder_revision(folder))


def test_a_large_weight_file_is_known_by_its_slices(tmp_path, monkeypatch):
    monkeypatch.setattr("perimetry.activations.model.FULL_HASH_BYTES", 2**16)
    (tmp_path / "config.json").write_text("{}")
    file = tmp_path / "w.safetensors"
    save_file({"w": torch.zeros(2**18)}, file)
    before = folder_revision(tmp_path)
    save_file({"w": torch.cat([torch.zeros(2**18 - 1), torch.ones(1)])}, file)
    assert folder_revision(tmp_path) != before


def test_a_folder_without_safetensors_is_refused(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    with pytest.raises(UnsafeFormat, match=r"only as pytorch_model\.bin.*wanted safetensors"):
        load_language_model(str(copy), CPU)
    with pytest.raises(AssetError, match=r"wanted config\.json and safetensors"):
        folder_revision(copy)


def test_missing_weights_are_refused_instead_of_being_made_up(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    weights = load_file(copy / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(AssetError, match=r"lacks weights .*model\.layers\.1\.mlp\.up_proj\.weight \(1 in all\)"):
        load_language_model(str(copy), CPU)


def test_a_folder_of_an_unknown_family_is_refused(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"model_type": "mamba"}))
    with pytest.raises(UnknownName, match="unknown model family 'mamba'"):
        load_language_model(str(copy), CPU)


def test_the_tokenizer_hash_ignores_padding_settings():
    model, tokenizer = tiny_parts("llama", 0)
    before = from_pretrained_parts(model, tokenizer, "a").tokenizer_hash
    tokenizer(["a", "b c"], padding=True, truncation=True, max_length=4)
    after = from_pretrained_parts(model, tokenizer, "a")
    assert isinstance(after, LanguageModel)
    assert after.tokenizer_hash == before
    tokenizer.add_tokens(["zebra"])
    assert from_pretrained_parts(model, tokenizer, "a").tokenizer_hash != before


def test_the_chat_template_is_split_around_the_text(tiny_lm):
    before, after = tiny_lm.template
    assert tiny_lm.tokenizer.decode(before) == "<|im_start|>user\n"
    assert tiny_lm.tokenizer.decode(after) == "<|im_end|>\n<|im_start|>assistant\n"
