from pathlib import Path
from typing import Any

import pytest
import torch
from tests.sae.formats.families.doctor import change_json, change_tensors, copy
from tests.sae.formats.families.evaluate import evaluate, vectors, worst

from perimetry.errors import CorruptArtifact, Incompatible, MissingFile
from perimetry.sae.formats.families.llamascopium import read, recognises
from perimetry.sae.formats.record import BatchTopKGate, JumpReLUGate


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return copy("llamascopium/jumprelu", tmp_path) / "L15R"


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"sae_type": "lorsa"}, Incompatible, "sae_type 'lorsa'"),
        ({"sae_type": "clt"}, Incompatible, "cross-layer and mixture dictionaries are others"),
        ({"use_glu_encoder": True}, Incompatible, "multiplies each pre-activation by a second one"),
        ({"act_fn": "layertopk"}, Incompatible, "act_fn 'layertopk'; batchtopk, jumprelu, relu, topk are read"),
        ({"norm_activation": "batch-wise"}, Incompatible, "depends on the other tokens of a batch"),
        ({"norm_activation": "inference"}, CorruptArtifact, "threshold_factor is not given"),
        ({"d_model": 32}, CorruptArtifact, "W_E reads width 16, config.json says 32"),
        ({"sparsity_include_decoder_norm": None}, CorruptArtifact, "sparsity_include_decoder_norm is not given"),
        ({"norm_activation": None}, CorruptArtifact, "norm_activation is not given"),
        ({"use_decoder_bias": False}, CorruptArtifact, r"unknown \['b_D'\]"),
    ],
)
def test_what_is_missing_or_another_rule_is_refused(
    folder: Path, change: dict[str, Any], error: type[Exception], message: str
) -> None:
    change_json(folder / "config.json", lambda c: (c.update(change), [c.pop(k) for k in [*c] if c[k] is None]))
    with pytest.raises(error, match=message):
        read(folder, {})


def test_shards_and_pickles_are_refused(folder: Path) -> None:
    weights = folder / "sae_weights.safetensors"
    pickle = weights.rename(folder / "sae_weights.pt")
    assert recognises(folder)
    with pytest.raises(Incompatible, match=r"sae_weights.pt is a pickle; save_pretrained writes safetensors"):
        read(folder, {})
    pickle.unlink()
    (folder / "sae_weights.dcp").mkdir()
    assert recognises(folder)
    with pytest.raises(Incompatible, match="shards of a distributed save"):
        read(folder, {})
    (folder / "sae_weights.dcp").rmdir()
    with pytest.raises(MissingFile, match=r"no sae_weights.safetensors"):
        read(folder, {})
    assert not recognises(folder)


def test_a_scale_that_the_file_lacks_is_asked_for(folder: Path) -> None:
    change_tensors(
        folder / "sae_weights.safetensors",
        lambda t: t.pop("dataset_average_activation_norm.blocks.15.hook_resid_post"),
    )
    with pytest.raises(CorruptArtifact, match=r"norm_in is not given"):
        read(folder, {})
    record = read(folder, {"norm_in": 6.3125, "norm_out": 6.3125})
    wanted = vectors("llamascopium/jumprelu")
    assert worst(evaluate(record, wanted.x).codes, wanted.codes) <= 1e-5
    assert record.how["normalisation"] == "user"


def test_a_batch_rule_needs_a_threshold(tmp_path: Path) -> None:
    folder = copy("llamascopium/topk", tmp_path) / "L15R"
    change_json(folder / "config.json", lambda c: c.update(act_fn="batchtopk"))
    with pytest.raises(CorruptArtifact, match="threshold is not given"):
        read(folder, {})
    record = read(folder, {"threshold": 0.5, "sparsity_include_decoder_norm": False})
    assert record.gate == BatchTopKGate(4, 0.5)


def test_token_norms_and_transcoders_do_not_go_together(tmp_path: Path) -> None:
    folder = copy("llamascopium/transcoder", tmp_path) / "L15R"
    change_json(folder / "config.json", lambda c: c.update(norm_activation="token-wise"))
    with pytest.raises(Incompatible, match="the target's norm is not known"):
        read(folder, {})


def test_the_export_leaves_the_threshold_where_it_was(tmp_path: Path) -> None:
    """The library's fold for inference rescales b_E, b_D and W_D and not the threshold, so that it fires elsewhere than it was trained."""
    folder = copy("llamascopium/inference", tmp_path) / "L15R"
    wanted = vectors("llamascopium/inference")
    literal = evaluate(read(folder, {"threshold_factor": 1.0}), wanted.x)
    assert worst(literal.codes, wanted.codes) <= 1e-5
    meant = read(folder, {"threshold_factor": 6.3125 / 4})
    assert worst(evaluate(meant, wanted.x).codes, wanted.codes) > 1e-2
    assert meant.how["threshold_factor"] == "user"


def test_a_row_of_zeros_never_fires(folder: Path) -> None:
    change_tensors(folder / "sae_weights.safetensors", lambda t: t["W_D"][5].zero_())
    record = read(folder, {})
    assert isinstance(record.gate, JumpReLUGate)
    assert float(record.gate.threshold[5]) == pytest.approx(torch.finfo(torch.float32).max)
    assert not evaluate(record, vectors("llamascopium/jumprelu").x).codes[:, 5].any()
