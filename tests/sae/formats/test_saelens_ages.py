"""SAELens of all ages: what SAELens itself computed, legacy headers, training checkpoints; and SAELens reading what we write."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from perimetry.errors import ConfigError, CorruptArtifact, Incompatible, NonFinite, PerimetryError
from perimetry.runtime import generator
from perimetry.sae import ARCHITECTURES
from perimetry.sae.base import AbstractSAE
from perimetry.sae.formats import SAEInfo, load_sae, save_sae
from perimetry.sae.formats.build import to_sae
from perimetry.sae.formats.record import BatchTopKGate, JumpReLUGate
from perimetry.sae.formats.reference import saelens_reference
from perimetry.sae.formats.saelens_config import layer_of, shape_config
from perimetry.sae.formats.saelens_read import read_saelens
from perimetry.sae.formats.wrapped import NormalisedSAE

from .planted import config_of, write_folder

ROOT = Path(__file__).parents[3]
GOLDEN = Path(__file__).parent / "golden" / "saelens"
CASES = sorted(folder.name for folder in GOLDEN.iterdir())
TRANSCODERS = "transcoder" in ARCHITECTURES
PEERS = os.environ.get("PERIMETRY_PEERS")


def close(found: torch.Tensor, wanted: torch.Tensor, bound: float = 1e-6) -> bool:
    return float((found - wanted).abs().max() / wanted.abs().max()) <= bound


@pytest.mark.parametrize("name", CASES)
def test_codes_and_output_are_those_that_saelens_computed(name: str, tmp_path: Path) -> None:
    record = read_saelens(GOLDEN / name, {})
    if record.transcoder and not TRANSCODERS:
        pytest.skip("no architecture of transcoders yet")
    sae = to_sae(record)
    x, wanted = load_file(GOLDEN / name / "x.safetensors")["x"], load_file(GOLDEN / name / "saelens.safetensors")
    codes, output = sae(x)
    assert close(codes.dense(), wanted["codes"])
    assert close(output, wanted["output"])
    assert int((wanted["codes"] != 0).sum()) > 24


@pytest.mark.parametrize("name", CASES)
def test_the_formulas_are_those_of_saelens(name: str) -> None:
    reference = saelens_reference(GOLDEN / name, {})
    x, wanted = load_file(GOLDEN / name / "x.safetensors")["x"], load_file(GOLDEN / name / "saelens.safetensors")
    codes = reference.codes(x.double().numpy())
    assert close(torch.from_numpy(codes).float(), wanted["codes"])
    assert close(torch.from_numpy(reference.output(x.double().numpy(), codes)).float(), wanted["output"])


def test_checkpoints_of_batchtopk_keep_their_k_and_threshold() -> None:
    gate = read_saelens(GOLDEN / "train_batchtopk", {}).gate
    assert gate == BatchTopKGate(4, 0.4)
    scaled = read_saelens(GOLDEN / "train_scaled", {})
    assert isinstance(scaled.gate, BatchTopKGate)
    assert scaled.gate.threshold == pytest.approx(0.4 / 0.37)
    assert scaled.notes[0] == "the scale 0.37 of the activations was folded"
    assert set(scaled.source.files) == {"cfg.json", "sae_weights.safetensors", "activation_scaler.json"}


def weights(seed: int = 4, **extra: torch.Tensor | None) -> dict[str, torch.Tensor]:
    source = generator(seed)
    made: dict[str, torch.Tensor | None] = {
        "W_enc": torch.randn(8, 32, generator=source),
        "W_dec": torch.nn.functional.normalize(torch.randn(32, 8, generator=source), dim=1),
        "b_enc": torch.randn(32, generator=source),
        "b_dec": torch.randn(8, generator=source),
    } | extra
    return {name: tensor for name, tensor in made.items() if tensor is not None}


OLD = {
    "d_in": 8,
    "d_sae": 32,
    "dtype": "torch.float32",
    "device": "cuda",
    "hook_point": "blocks.6.hook_resid_post",
    "hook_point_layer": 6,
    "hook_point_head_index": None,
    "activation_fn_str": "relu",
    "normalize_activations": False,
    "apply_b_dec_to_input": True,
    "model_name": "gpt2-small",
    "prepend_bos": True,
    "context_size": 64,
    "dataset_path": "x/y",
    "finetuning_scaling_factor": False,
}


def test_a_flat_header_of_before_version_6(tmp_path: Path) -> None:
    record = read_saelens(write_folder(tmp_path / "old", weights(), dict(OLD)), {})
    assert (record.hook.name, record.hook.layer, record.model) == ("blocks.6.hook_resid_post", 6, "gpt2-small")
    assert (record.context_size, record.dataset, record.policy) == (64, "x/y", {"prepend_bos": True})
    assert record.architecture == "standard"
    assert record.source.version is None
    loaded = load_sae(tmp_path / "old")
    assert (loaded.info.layer, loaded.info.model, loaded.verified) == (6, "gpt2-small", False)


def test_an_old_header_with_topk_in_its_activation(tmp_path: Path) -> None:
    config = {**OLD, "activation_fn_str": "topk", "activation_fn_kwargs": {"k": 5}}
    sae = load_sae(write_folder(tmp_path / "old", weights(), config)).sae
    assert sae.state().settings["k"] == 5
    del config["activation_fn_kwargs"]
    with pytest.raises(CorruptArtifact, match="k is not given; its absence would mean another SAE"):
        load_sae(write_folder(tmp_path / "no-k", weights(), config))


def test_an_old_header_that_says_true_wants_the_scale(tmp_path: Path) -> None:
    config = {**OLD, "normalize_activations": True}
    folder = write_folder(tmp_path / "old", weights(), config)
    with pytest.raises(CorruptArtifact, match="norm_scaling_factor is not given"):
        read_saelens(folder, {})
    record = read_saelens(folder, {"norm_scaling_factor": 0.5})
    assert record.overrides == {"norm_scaling_factor": 0.5}
    assert record.how["norm_scaling_factor"] == "user"
    torch.testing.assert_close(record.W_dec, weights()["W_dec"] * 2)


OLD_BAD: list[tuple[dict[str, Any], type[PerimetryError], str]] = [
    ({"activation_fn_str": "tanh-relu"}, Incompatible, "the activation function 'tanh-relu'; relu or topk is read"),
    (
        {"activation_fn_str": "topk", "architecture": "gated"},
        CorruptArtifact,
        "a 'gated' SAE with the activation function",
    ),
    ({"finetuning_scaling_factor": True}, Incompatible, "a scaling factor of fine-tuning"),
    ({"apply_b_dec_to_input": None}, CorruptArtifact, "apply_b_dec_to_input is not given"),
    ({"activation_fn_str": None}, CorruptArtifact, "architecture is not given"),
]


@pytest.mark.parametrize(("changes", "error", "message"), OLD_BAD)
def test_old_headers_that_are_refused(
    changes: dict[str, Any], error: type[PerimetryError], message: str, tmp_path: Path
) -> None:
    config = {
        key: value for key, value in (OLD | changes).items() if value is not None or key == "hook_point_head_index"
    }
    with pytest.raises(error, match=message):
        read_saelens(write_folder(tmp_path / "old", weights(), config), {})


def test_a_missing_stamp_does_not_lose_the_names() -> None:
    nested = {"architecture": "standard", "metadata": {"model_name": "m", "hook_name": "blocks.1.hook_resid_pre"}}
    shaped = shape_config("cfg.json", nested)
    assert not shaped.legacy
    assert shaped.metadata["model_name"] == "m"
    odd = shape_config(
        "cfg.json", nested | {"metadata": nested["metadata"] | {"sae_lens_version": "built from source"}}
    )  # pyright: ignore[reportOperatorIssue]
    assert (odd.legacy, odd.version) == (False, "built from source")
    assert shape_config("cfg.json", {"sae_lens_version": "5.11.0", "hook_name": "x"}).legacy


def test_layers_come_from_the_hook_or_the_old_field() -> None:
    assert layer_of("blocks.7.attn.hook_z", {}) == 7
    assert layer_of("hook_embed", {}) is None
    assert layer_of(None, {"hook_layer": 3}) == 3
    assert layer_of(None, {"hook_layer": True}) is None


def test_a_threshold_stored_as_its_logarithm(tmp_path: Path) -> None:
    log = torch.linspace(-2, 0, 32)
    record = read_saelens(write_folder(tmp_path / "j", weights(log_threshold=log), config_of("jumprelu", 8, 32)), {})
    assert isinstance(record.gate, JumpReLUGate)
    torch.testing.assert_close(record.gate.threshold, log.exp())
    assert record.notes == ("the threshold was stored as its logarithm",)


def test_a_scaling_factor_of_ones_is_dropped(tmp_path: Path) -> None:
    record = read_saelens(write_folder(tmp_path / "s", weights(scaling_factor=torch.ones(32)), dict(OLD)), {})
    assert record.notes == ("a scaling_factor of ones was dropped",)


def whitened(folder: Path, **changes: torch.Tensor) -> Path:
    source = generator(6)
    matrix = torch.randn(8, 8, generator=source) + 3 * torch.eye(8)
    stats = {
        "mean": torch.randn(8, generator=source),
        "matrix": matrix,
        "inverse_matrix": torch.linalg.inv(matrix),
    } | changes
    made = write_folder(folder, weights(), config_of("standard", 8, 32, normalize_activations="covariance_whitening"))
    save_file({k: t.contiguous() for k, t in stats.items()}, made / "activation_whitening.safetensors")
    (made / "activation_scaler.json").write_text(json.dumps({"scaling_factor": None, "has_whitening": True}))
    return made


def test_a_whitening_beside_the_weights_is_folded(tmp_path: Path) -> None:
    folder = whitened(tmp_path / "w")
    sae, reference = to_sae(read_saelens(folder, {})), saelens_reference(folder, {})
    x = torch.randn(30, 8, generator=generator(7))
    codes = reference.codes(x.double().numpy())
    out = sae(x)
    assert close(out.codes.dense(), torch.from_numpy(codes).float(), 1e-5)
    assert close(out.reconstruction, torch.from_numpy(reference.output(x.double().numpy(), codes)).float(), 1e-5)


def test_whitenings_that_do_not_hold_together(tmp_path: Path) -> None:
    with pytest.raises(Incompatible, match="not each other's inverse"):
        read_saelens(whitened(tmp_path / "a", inverse_matrix=torch.eye(8)), {})
    with pytest.raises(CorruptArtifact, match=r"mean has shape \(7,\), wanted \(8,\)"):
        read_saelens(whitened(tmp_path / "b", mean=torch.zeros(7)), {})
    with pytest.raises(NonFinite):
        read_saelens(whitened(tmp_path / "c", mean=torch.full((8,), torch.nan)), {})


def test_files_that_contradict_the_header_on_the_scale(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "s", weights(), config_of("standard", 8, 32))
    (folder / "activation_scaler.json").write_text('{"scaling_factor": 0.5, "has_whitening": false}')
    with pytest.raises(
        Incompatible, match=r"says that activations are not normalised, activation_scaler\.json beside it says how"
    ):
        read_saelens(folder, {})
    scaled = read_saelens(folder, {"normalize_activations": "expected_average_only_in"})
    torch.testing.assert_close(scaled.W_dec, weights()["W_dec"] * 2)
    (folder / "activation_scaler.json").write_text('{"scaling_factor": "big"}')
    with pytest.raises(CorruptArtifact, match="scaling_factor is 'big', a number or null is wanted"):
        read_saelens(folder, {})


def test_what_a_person_should_know_is_noted(tmp_path: Path) -> None:
    metadata = {
        "sae_lens_version": "6.1.0",
        "hook_name": "blocks.2.attn.hook_z",
        "hook_head_index": 1,
        "model_from_pretrained_kwargs": {"fold_ln": True},
        "exclude_special_tokens": [0, 5],
        "num_dead_features": 16,
        "l0": 12.5,
    }
    config = config_of("standard", 8, 32, reshape_activations="hook_z", metadata=metadata)
    record = read_saelens(write_folder(tmp_path / "s", weights(), {**config, "spare": 1}), {})
    assert record.notes == (
        "the activations were made with model_from_pretrained_kwargs {'fold_ln': True}",
        "tokens [0, 5] were excluded, which the token policy here cannot say",
    )
    assert (record.hook.reshape, record.hook.head_index, record.hook.layer) == ("hook_z", 1, 2)
    assert (record.declared.l0, record.declared.dead) == (12.5, 0.5)
    assert record.extra["cfg"]["spare"] == 1


def test_an_override_that_nothing_reads_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--set hook_nam: .* the nearest name is 'hook_name'"):
        read_saelens(write_folder(tmp_path / "s", weights(), config_of("standard", 8, 32)), {"hook_nam": "x"})


def exportable() -> dict[str, AbstractSAE]:
    names = ("batchtopk", "gated", "hierarchical", "jumprelu", "matching_pursuit", "matryoshka", "standard", "topk")
    made = {name: ARCHITECTURES[name].tiny() for name in names}
    if TRANSCODERS:
        made["transcoder"] = ARCHITECTURES["transcoder"].tiny()
    return made | {"normalised": NormalisedSAE.tiny()}


@pytest.mark.parametrize("name", sorted(exportable()))
def test_what_is_written_reads_back_by_the_formulas_of_saelens(name: str, tmp_path: Path) -> None:
    sae = exportable()[name]
    save_sae(sae, tmp_path / "s", SAEInfo(architecture=name, layer=2))
    config = json.loads((tmp_path / "s" / "cfg.json").read_text())
    assert config["metadata"]["sae_lens_version"] == "6.54.12"
    reference = saelens_reference(tmp_path / "s", {})
    x = torch.randn(20, config["d_in"], generator=generator(3))
    codes = reference.codes(x.double().numpy())
    out = sae(x)
    assert close(out.codes.dense(), torch.from_numpy(codes).float(), 1e-5)
    assert close(out.reconstruction, torch.from_numpy(reference.output(x.double().numpy(), codes)).float(), 1e-5)


def test_a_cut_by_decoder_norm_is_not_written_as_a_plain_one(tmp_path: Path) -> None:
    from perimetry.sae.affine import tiny_weights
    from perimetry.sae.batchtopk import BatchTopKSAE

    sae = BatchTopKSAE(tiny_weights(), k=4, threshold=0.3, select_by_norm=True)
    save_sae(sae, tmp_path / "s", SAEInfo(architecture="batchtopk"))
    assert (tmp_path / "s" / "dictionary.json").is_file()
    assert load_sae(tmp_path / "s").sae.state().settings["select_by_norm"] is True


@pytest.mark.skipif(PEERS is None, reason="PERIMETRY_PEERS names no folder of environments with sae-lens")
def test_saelens_itself_loads_what_we_write(tmp_path: Path) -> None:
    saes = exportable()
    for name, sae in saes.items():
        save_sae(sae, tmp_path / name, SAEInfo(architecture=name, layer=2))
        d_in = json.loads((tmp_path / name / "cfg.json").read_text())["d_in"]
        save_file({"x": torch.randn(40, d_in, generator=generator(5))}, tmp_path / name / "x.safetensors")
    python = Path(str(PEERS)) / "saelens" / "bin" / "python"
    script = ROOT / "benchmarks" / "peers" / "check_saelens.py"
    command = [str(python), str(script), "encode", *(str(tmp_path / name) for name in saes)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr
    for name, sae in saes.items():
        theirs = load_file(tmp_path / name / "saelens.safetensors")
        x = load_file(tmp_path / name / "x.safetensors")["x"]
        codes, output = sae(x)
        assert close(codes.dense(), theirs["codes"], 1e-5), name
        assert close(output, theirs["output"], 1e-5), name
