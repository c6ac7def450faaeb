import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from perimetry.artifact import MANIFEST
from perimetry.errors import (
    ConfigError,
    CorruptArtifact,
    Incompatible,
    MissingFile,
    NonFinite,
    PerimetryError,
    UnknownName,
    WidthMismatch,
)
from perimetry.runtime import generator
from perimetry.sae import ARCHITECTURES, AffineSAE, BatchTopKSAE, JumpReLUSAE, StandardSAE, TopKSAE
from perimetry.sae.affine import tiny_weights
from perimetry.sae.formats import SAEInfo, load_sae, save_sae

INFO = {
    "model": "some-model",
    "revision": "abc123",
    "layer": 15,
    "hf_hook_name": "model.layers.15",
    "policy": {"prepend_bos": True, "exclude_special": True, "sink_ratio": 10.0},
    "dtype": "bfloat16",
    "context_size": 128,
    "dataset": "wikipedia",
    "tokens": 1000,
    "seed": 3,
    "train": {"k": 4},
    "details": {"scale": 0.5},
}


def info(sae: AffineSAE) -> SAEInfo:
    return SAEInfo(architecture=sae.architecture, **INFO)


def stranger(path: Path, **changes: Any) -> Path:
    """A folder as SAELens writes it: no manifest, nothing of ours in the metadata."""
    source = generator(4)
    path.mkdir()
    tensors = {
        "W_enc": torch.randn(8, 32, generator=source),
        "W_dec": torch.nn.functional.normalize(torch.randn(32, 8, generator=source), dim=1),
        "b_enc": torch.randn(32, generator=source),
        "b_dec": torch.randn(8, generator=source),
    }
    config: dict[str, Any] = {
        "architecture": "standard",
        "d_in": 8,
        "d_sae": 32,
        "dtype": "float32",
        "device": "cuda",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": {"sae_lens_version": "6.20.0", "model_name": "gpt2", "hook_name": "blocks.7.hook_resid_post"},
    }
    extra = changes.pop("tensors", {})
    config |= changes
    save_file({k: v for k, v in (tensors | extra).items() if v is not None}, path / "sae_weights.safetensors")
    (path / "cfg.json").write_text(json.dumps({k: v for k, v in config.items() if v is not None}))
    return path


def test_the_header_of_a_batchtopk_is_the_one_of_the_specification(tmp_path: Path) -> None:
    sae = BatchTopKSAE.tiny()
    save_sae(sae, tmp_path / "s", info(sae))
    config = json.loads((tmp_path / "s" / "cfg.json").read_text())
    metadata = config.pop("metadata")
    assert config == {
        "architecture": "jumprelu",
        "d_in": 8,
        "d_sae": 32,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "reshape_activations": "none",
    }
    ours = metadata.pop("perimetry")
    assert ours["revision"] == "abc123"
    assert ours["policy"] == INFO["policy"]
    assert "digest" not in ours
    assert metadata.pop("perimetry_version")
    details = metadata.pop("training_architecture_details")
    assert details == {"k": 4, "threshold": pytest.approx(0.3)}
    assert metadata == {
        "sae_lens_version": "6.54.12",
        "sae_lens_training_version": "6.54.12",
        "model_name": "some-model",
        "model_class_name": "AutoModelForCausalLM",
        "hook_name": "blocks.15.hook_resid_post",
        "hf_hook_name": "model.layers.15",
        "context_size": 128,
        "prepend_bos": True,
        "exclude_special_tokens": True,
        "dataset_path": "wikipedia",
        "model_from_pretrained_kwargs": {},
        "neuronpedia_id": None,
        "training_architecture": "batchtopk",
    }


@pytest.mark.parametrize(
    ("name", "exported", "tensors"),
    [
        ("batchtopk", "jumprelu", {"W_enc", "W_dec", "b_enc", "b_dec", "threshold"}),
        ("jumprelu", "jumprelu", {"W_enc", "W_dec", "b_enc", "b_dec", "threshold"}),
        ("standard", "standard", {"W_enc", "W_dec", "b_enc", "b_dec"}),
        ("topk", "topk", {"W_enc", "W_dec", "b_enc", "b_dec"}),
    ],
)
def test_tensors_lie_as_saelens_lays_them(name: str, exported: str, tensors: set[str], tmp_path: Path) -> None:
    sae = ARCHITECTURES[name].tiny()
    assert isinstance(sae, AffineSAE)
    save_sae(sae, tmp_path / "s", info(sae))
    stored = load_file(tmp_path / "s" / "sae_weights.safetensors")
    assert stored.keys() == tensors
    assert torch.equal(stored["W_enc"], sae.W_enc.detach().T)
    assert torch.equal(stored["W_dec"], sae.W_dec.detach())
    config = json.loads((tmp_path / "s" / "cfg.json").read_text())
    assert config["architecture"] == exported
    if name == "topk":
        assert (config["k"], config["rescale_acts_by_decoder_norm"]) == (4, False)
    if name == "batchtopk":
        assert torch.equal(stored["threshold"], torch.full((32,), 0.3))


def test_a_batchtopk_read_as_saelens_reads_it_gives_the_same_codes(tmp_path: Path) -> None:
    sae = BatchTopKSAE.tiny()
    save_sae(sae, tmp_path / "s", info(sae))
    t = load_file(tmp_path / "s" / "sae_weights.safetensors")
    x = torch.randn(40, 8, generator=generator(1))
    pre = (x - t["b_dec"]) @ t["W_enc"] + t["b_enc"]
    codes = torch.relu(pre) * (pre > t["threshold"])
    torch.testing.assert_close(sae.encode(x).dense(), codes)
    torch.testing.assert_close(sae(x).reconstruction, codes @ t["W_dec"] + t["b_dec"])


def test_read_write_read_is_bit_identical(tmp_path: Path) -> None:
    sae = JumpReLUSAE.tiny()
    save_sae(sae, tmp_path / "a", info(sae))
    loaded = load_sae(tmp_path / "a")
    digest = save_sae(loaded.sae, tmp_path / "b", loaded.info)
    for name in ("sae_weights.safetensors", "cfg.json", MANIFEST):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert loaded.info == info(sae).model_copy(update={"digest": digest})


def test_firing_rates_are_stored_as_logarithms(tmp_path: Path) -> None:
    sae = TopKSAE.tiny()
    rates = torch.zeros(32)
    rates[3] = 0.1
    save_sae(sae, tmp_path / "s", info(sae), rates=rates)
    stored = load_sae(tmp_path / "s").log_sparsity
    assert stored is not None
    assert stored[3] == pytest.approx(-1.0)
    assert stored[0] == pytest.approx(-10.0)


def test_the_folder_of_a_training_will_do(tmp_path: Path) -> None:
    sae = TopKSAE.tiny()
    save_sae(sae, tmp_path / "run" / "sae", info(sae))
    assert load_sae(tmp_path / "run").info.layer == 15


def test_a_strangers_folder_is_read_but_not_verified(tmp_path: Path) -> None:
    loaded = load_sae(stranger(tmp_path / "s"))
    assert isinstance(loaded.sae, StandardSAE)
    assert not loaded.verified
    assert loaded.info.digest is None
    assert (loaded.info.model, loaded.info.layer) == ("gpt2", 7)
    t = load_file(tmp_path / "s" / "sae_weights.safetensors")
    x = torch.randn(5, 8, generator=generator(2))
    expected = torch.relu((x - t["b_dec"]) @ t["W_enc"] + t["b_enc"])
    torch.testing.assert_close(loaded.sae.encode(x).dense(), expected)


def test_strangers_of_other_kinds(tmp_path: Path) -> None:
    topk = load_sae(stranger(tmp_path / "t", architecture="topk", k=3, rescale_acts_by_decoder_norm=True))
    assert isinstance(topk.sae, TopKSAE)
    assert topk.sae.k == 3
    jump = load_sae(stranger(tmp_path / "j", architecture="jumprelu", tensors={"threshold": torch.linspace(-1, 1, 32)}))
    assert isinstance(jump.sae, JumpReLUSAE)
    assert float(jump.sae.threshold.min()) == 0.0
    bf16 = {"W_enc": torch.ones(8, 32).bfloat16()}
    assert load_sae(stranger(tmp_path / "b", dtype="bfloat16", tensors=bf16)).sae.W_enc.dtype == torch.float32


BAD: list[tuple[dict[str, Any], type[PerimetryError], str]] = [
    ({"architecture": None}, CorruptArtifact, "architecture is not given; its absence would mean another SAE"),
    (
        {"apply_b_dec_to_input": None},
        CorruptArtifact,
        "apply_b_dec_to_input is not given; .* give it with --set apply_b",
    ),
    ({"normalize_activations": None}, CorruptArtifact, "normalize_activations is not given"),
    ({"architecture": "topk"}, CorruptArtifact, "k is not given"),
    ({"architecture": "topk", "k": 3}, CorruptArtifact, "rescale_acts_by_decoder_norm is not given"),
    ({"architecture": "topk", "k": True}, CorruptArtifact, "k is True, a whole number is wanted"),
    (
        {"architecture": "topk", "k": 0, "rescale_acts_by_decoder_norm": False},
        ConfigError,
        "k = 0 for a dictionary of 32 latents",
    ),
    ({"architecture": "gate"}, UnknownName, "unknown SAE architecture 'gate'; the nearest name is 'gated'"),
    ({"architecture": "gated"}, CorruptArtifact, r"missing \['b_gate', 'b_mag', 'r_mag'\], unknown \['b_enc'\]"),
    ({"architecture": "abstopk"}, Incompatible, "its codes are signed"),
    ({"architecture": "temporal"}, Incompatible, "gives the novel part only, which is no reconstruction"),
    ({"normalize_activations": "batch_norm"}, UnknownName, "unknown normalisation 'batch_norm'"),
    (
        {"normalize_activations": "expected_average_only_in"},
        CorruptArtifact,
        "norm_scaling_factor is not given; .* give it with --set norm_scaling_factor=",
    ),
    (
        {"normalize_activations": "covariance_whitening"},
        Incompatible,
        r"activation_whitening\.safetensors is not there",
    ),
    ({"reshape_activations": "hook_z"}, CorruptArtifact, "'hook_z' at the hook 'blocks.7.hook_resid_post'"),
    ({"reshape_activations": "hook_q"}, Incompatible, "reshape_activations is 'hook_q'; none or hook_z is read"),
    ({"d_sae": 33}, CorruptArtifact, r"has shape .*, wanted .*; weights and header do not belong together"),
    ({"d_in": 2**40}, CorruptArtifact, "out of range"),
    ({"d_in": "8"}, CorruptArtifact, "d_in is '8', a whole number is wanted"),
    ({"metadata": []}, CorruptArtifact, "no object with an object 'metadata'"),
    (
        {"hook_name": "blocks.8.hook_resid_post"},
        CorruptArtifact,
        "hook_name is .*8.* at the top and .*7.* in the metadata",
    ),
    ({"tensors": {"b_enc": None}}, CorruptArtifact, r"missing \['b_enc'\]"),
    ({"tensors": {"W_gate": torch.zeros(2)}}, CorruptArtifact, r"unknown \['W_gate'\]"),
    ({"tensors": {"scaling_factor": torch.full((32,), 2.0)}}, Incompatible, "a scaling_factor that is not 1"),
    ({"tensors": {"W_enc": torch.full((8, 32), torch.nan)}}, NonFinite, "NaN or infinity in 'W_enc'"),
    ({"tensors": {"W_dec": torch.zeros(32, 8)}}, CorruptArtifact, "W_dec is all zero"),
    ({"tensors": {"b_enc": torch.zeros(32, dtype=torch.int64)}}, CorruptArtifact, "b_enc is torch.int64"),
    ({"tensors": {"W_enc": torch.ones(32, 8)}}, CorruptArtifact, "W_enc has shape .* which would fit transposed"),
    (
        {"architecture": "transcoder", "d_out": 8},
        Incompatible,
        "a transcoder with apply_b_dec_to_input, which has no meaning there",
    ),
    ({"architecture": "transcoder", "apply_b_dec_to_input": False}, CorruptArtifact, "d_out is not given"),
    (
        {
            "architecture": "transcoder",
            "apply_b_dec_to_input": False,
            "d_out": 8,
            "normalize_activations": "layer_norm",
        },
        Incompatible,
        "a transcoder with layer_norm",
    ),
]


@pytest.mark.parametrize(("changes", "error", "message"), BAD)
def test_what_is_wrong_is_refused(
    changes: dict[str, Any], error: type[PerimetryError], message: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        load_sae(stranger(tmp_path / "s", **dict(changes)))


def test_torn_files_are_refused(tmp_path: Path) -> None:
    folder = stranger(tmp_path / "s")
    weights = folder / "sae_weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    with pytest.raises(CorruptArtifact, match="is not safetensors"):
        load_sae(folder)
    weights.unlink()
    with pytest.raises(MissingFile, match=r"no sae_weights\.safetensors"):
        load_sae(folder)
    with pytest.raises(MissingFile, match="no SAE at"):
        load_sae(tmp_path / "nowhere")


def test_duplicate_keys_of_the_header_are_refused(tmp_path: Path) -> None:
    folder = stranger(tmp_path / "s")
    text = (folder / "cfg.json").read_text()
    (folder / "cfg.json").write_text(text.replace('"d_in": 8', '"d_in": 9, "d_in": 8'))
    with pytest.raises(CorruptArtifact, match="the same key twice"):
        load_sae(folder)


def test_a_changed_byte_of_ours_is_noticed(tmp_path: Path) -> None:
    sae = StandardSAE.tiny()
    save_sae(sae, tmp_path / "s", info(sae))
    weights = tmp_path / "s" / "sae_weights.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(bytes(data))
    with pytest.raises(CorruptArtifact, match="does not hash as its manifest says"):
        load_sae(tmp_path / "s")


def test_a_header_of_ours_that_lies_is_refused(tmp_path: Path) -> None:
    sae = BatchTopKSAE.tiny()
    save_sae(sae, tmp_path / "s", info(sae))
    (tmp_path / "s" / MANIFEST).unlink()
    config = json.loads((tmp_path / "s" / "cfg.json").read_text())

    def written(**metadata: Any) -> Path:
        changed = config | {"metadata": config["metadata"] | metadata}
        (tmp_path / "s" / "cfg.json").write_text(json.dumps(changed))
        return tmp_path / "s"

    assert load_sae(written()).sae.architecture == "batchtopk"
    with pytest.raises(CorruptArtifact, match="training_architecture 'topk' is not stored as 'jumprelu'"):
        load_sae(written(training_architecture="topk"))
    with pytest.raises(CorruptArtifact, match="contradicts itself on the architecture"):
        load_sae(written(training_architecture="jumprelu"))
    with pytest.raises(CorruptArtifact, match="a k and one common threshold"):
        load_sae(written(training_architecture_details={}))


def test_another_width_than_wanted_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WidthMismatch, match="reads width 8 but 576 was wanted"):
        load_sae(stranger(tmp_path / "s"), d_model=576)


def test_nothing_bad_is_written(tmp_path: Path) -> None:
    sae = TopKSAE(tiny_weights(), k=2)
    with pytest.raises(Incompatible, match="is a 'topk' but its info says 'standard'"):
        save_sae(sae, tmp_path / "s", SAEInfo(architecture="standard"))
    with torch.no_grad():
        sae.b_dec[0] = torch.nan
    with pytest.raises(NonFinite):
        save_sae(sae, tmp_path / "s", info(sae))
    assert not (tmp_path / "s").exists()
