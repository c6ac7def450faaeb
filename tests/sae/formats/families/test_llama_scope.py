import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tests.sae.formats.families.doctor import change_json, change_tensors, copy
from tests.sae.formats.families.evaluate import evaluate, number, vectors, worst

from perimetry.errors import CorruptArtifact, Incompatible
from perimetry.sae.formats.families.llama_scope import read, recognises
from perimetry.sae.formats.record import JumpReLUGate

SCALE = 4 / 6.3125


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return copy("llama_scope/residual", tmp_path) / "Llama3_1-8B-Base-LXR-8x" / "Llama3_1-8B-Base-L15R-8x"


def formula(folder: Path, x: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """As published: normalise, gate p times decoder norm, decode, take the output's scale off."""
    config = json.loads((folder / "hyperparams.json").read_text())
    t = {k: number(v) for k, v in load_file(folder / "checkpoints" / "final.safetensors").items()}
    into, out = (4 / config["dataset_average_activation_norm"][side] for side in ("in", "out"))
    pre = (x * into) @ t["encoder.weight"].T + t["encoder.bias"]
    norms = np.linalg.norm(t["decoder.weight"], axis=0) if config["sparsity_include_decoder_norm"] else 1.0
    codes = np.where(pre * norms > config["jump_relu_threshold"] * into, np.maximum(pre, 0), 0)
    return codes, (codes @ t["decoder.weight"].T + t["decoder.bias"]) / out


def test_decoder_norms_take_part_in_the_comparison(folder: Path) -> None:
    stretch = torch.linspace(0.3, 3, 48)
    file = folder / "checkpoints" / "final.safetensors"
    change_tensors(file, lambda t: t.update({"decoder.weight": t["decoder.weight"] * stretch}))
    x = vectors("llama_scope/residual").x
    codes, out = formula(folder, x)
    found = evaluate(read(folder, {}), x)
    assert worst(found.codes, codes) <= 1e-5
    assert worst(found.reconstruction, out) <= 1e-5
    plain = evaluate(read(folder, {"sparsity_include_decoder_norm": False}), x)
    assert worst(plain.codes, codes) > 1e-2
    change_json(folder / "hyperparams.json", lambda c: c.pop("sparsity_include_decoder_norm"))
    with pytest.raises(CorruptArtifact, match="sparsity_include_decoder_norm is not given"):
        read(folder, {})


def test_a_transcoder_has_two_scales(folder: Path) -> None:
    norms = {"in": 64.0, "out": 3.390625}
    change_json(
        folder / "hyperparams.json",
        lambda c: c.update(hook_point_out="blocks.15.hook_mlp_out", dataset_average_activation_norm=norms),
    )
    x = vectors("llama_scope/residual").x
    record = read(folder, {})
    assert record.transcoder
    assert record.hook.name_out == "blocks.15.hook_mlp_out"
    codes, out = formula(folder, x)
    found = evaluate(record, x)
    assert worst(found.codes, codes) <= 1e-5
    assert worst(found.reconstruction, out) <= 1e-5
    change_json(folder / "hyperparams.json", lambda c: c["dataset_average_activation_norm"].pop("out"))
    with pytest.raises(CorruptArtifact, match=r"norm_out is not given.*--set norm_out="):
        read(folder, {})
    assert read(folder, {"norm_out": 3.390625}).how["norm_out"] == "user"


def test_the_threshold_is_multiplied_unless_told(folder: Path) -> None:
    raw = read(folder, {})
    scaled = read(folder, {"threshold_units": "scaled"})
    assert isinstance(raw.gate, JumpReLUGate)
    assert isinstance(scaled.gate, JumpReLUGate)
    assert number(raw.gate.threshold) == pytest.approx(number(scaled.gate.threshold) * SCALE, rel=1e-6)
    assert raw.how["threshold_units"] == "family"
    assert raw.declared.l0 == 50
    with pytest.raises(Incompatible, match="threshold_units 'metres'"):
        read(folder, {"threshold_units": "metres"})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dataset_average_activation_norm": None}, "norm_in is not given"),
        ({"jump_relu_threshold": None}, "jump_relu_threshold is not given"),
        ({"hook_point_in": None}, "hook_name is not given"),
        ({"d_model": None}, "d_model is not given"),
    ],
)
def test_what_is_missing_is_named(folder: Path, change: dict[str, None], message: str) -> None:
    change_json(folder / "hyperparams.json", lambda c: [c.pop(k) for k in change])
    with pytest.raises(CorruptArtifact, match=message):
        read(folder, {})


@pytest.mark.parametrize(
    "change",
    [
        {"act_fn": "topk"},
        {"norm_activation": "token-wise"},
        {"use_glu_encoder": True},
        {"apply_decoder_bias_to_pre_encoder": True},
        {"d_model": 17},
    ],
)
def test_other_rules_are_refused(folder: Path, change: dict[str, Any]) -> None:
    change_json(folder / "hyperparams.json", lambda c: c.update(change))
    with pytest.raises(Incompatible, match=next(iter(change))):
        read(folder, {})


def test_the_distilled_kind_has_no_scale_of_its_own(tmp_path: Path) -> None:
    folder = copy("llama_scope/r1_distill", tmp_path) / "Llama-Scope-R1-Distill"
    folder = folder / "400M-Slimpajama-400M-OpenR1-Math-220k" / "L15R"
    assert recognises(folder)
    with pytest.raises(CorruptArtifact, match="norm_in is not given"):
        read(folder, {})
    assert read(folder, {"norm_in": 5.0}).how["normalisation"] == "user"
