"""The faults that converters are known for, made on purpose: each must be told from the right reading by its numbers."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tests.sae.formats.families.evaluate import Vectors, agrees, evaluate, number, top_k, vectors, worst
from tests.sae.formats.families.test_golden import read

from perimetry.runtime import generator
from perimetry.sae.formats.build import to_sae
from perimetry.sae.formats.families import READERS
from perimetry.sae.formats.fold import fold_scale
from perimetry.sae.formats.record import JumpReLUGate, Record, ReLUGate

SCALE = math.sqrt(16) / 6.3125


def _threshold_times(record: Record, factor: float) -> Record:
    assert isinstance(record.gate, JumpReLUGate)
    return record._replace(gate=JumpReLUGate(record.gate.threshold * factor))


FAULTS: dict[str, tuple[str, Callable[[Record], Record]]] = {
    "b_dec not subtracted": ("sparsify/topk", lambda r: r._replace(subtract_b_dec=False)),
    "b_dec not subtracted, threshold": (
        "dictionary_learning/BatchTopKSAE",
        lambda r: r._replace(subtract_b_dec=False),
    ),
    "b_dec subtracted where it is not": ("gemma_scope/res", lambda r: r._replace(subtract_b_dec=True)),
    "b_dec subtracted, new class": ("dictionary_learning/AutoEncoderNew", lambda r: r._replace(subtract_b_dec=True)),
    "threshold dropped": ("gemma_scope/res", lambda r: r._replace(gate=ReLUGate())),
    "scale not folded": ("llama_scope/residual", lambda r: fold_scale(r, 1 / SCALE)),
    "scale folded twice": ("llama_scope/residual", lambda r: fold_scale(r, SCALE)),
    "threshold not scaled": ("llama_scope/residual", lambda r: _threshold_times(r, 1 / SCALE)),
    "threshold scaled twice": ("llama_scope/residual", lambda r: _threshold_times(r, SCALE)),
    "embedding without sqrt(d)": ("gemma_scope/embedding", lambda r: fold_scale(r, math.sqrt(r.d_in))),
    "embedding the other way": ("gemma_scope/embedding", lambda r: fold_scale(r, float(r.d_in))),
    "skip left out": ("gemma_scope_2/transcoder_affine", lambda r: r._replace(W_skip=None)),
    "token norm left out": ("llamascopium/relu_by_token", lambda r: r._replace(input_norm="none")),
    "one scale for a transcoder": (
        "llamascopium/transcoder",
        lambda r: r._replace(W_dec=r.W_dec * 3.390625 / 6.3125),
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_known_fault_is_seen(fault: str) -> None:
    folder, spoil = FAULTS[fault]
    record, wanted = read(folder), vectors(folder)
    assert agrees(record, wanted)
    assert not agrees(spoil(record), wanted)


def test_an_unweighted_comparison_is_seen(tmp_path: Path) -> None:
    record = read("llamascopium/jumprelu")
    path = Path(__file__).parents[1] / "golden" / "llamascopium" / "jumprelu" / "L15R"
    plain = READERS["llamascopium"].read(path, {"sparsity_include_decoder_norm": False})
    wanted = vectors("llamascopium/jumprelu")
    assert agrees(record, wanted)
    assert not agrees(plain, wanted)


def _square(tmp_path: Path) -> tuple[Path, Vectors]:
    """As many latents as dimensions, so that no shape tells which way a matrix lies."""
    source, d = generator(5), 16
    tensors = {
        "encoder.weight": torch.randn(d, d, generator=source),
        "encoder.bias": 0.1 * torch.randn(d, generator=source),
        "W_dec": torch.randn(d, d, generator=source),
        "b_dec": torch.randn(d, generator=source),
    }
    folder = tmp_path / "layers.2"
    folder.mkdir()
    save_file(tensors, folder / "sae.safetensors")
    (folder / "cfg.json").write_text(json.dumps({"d_in": d, "num_latents": d, "k": 3}))
    t = {name: number(tensor) for name, tensor in tensors.items()}
    x = number(torch.randn(64, d, generator=source))
    codes = top_k((x - t["b_dec"]) @ t["encoder.weight"].T + t["encoder.bias"], 3)
    return folder, Vectors(x, codes, codes @ t["W_dec"] + t["b_dec"])


def test_a_transposed_square_is_seen(tmp_path: Path) -> None:
    folder, wanted = _square(tmp_path)
    record = READERS["sparsify"].read(folder, {})
    assert record.W_enc is not None
    assert agrees(record, wanted)
    assert not agrees(record._replace(W_dec=record.W_dec.T), wanted)
    assert not agrees(record._replace(W_enc=record.W_enc.T), wanted)


def test_a_threshold_is_passed_strictly(tmp_path: Path) -> None:
    """A pre-activation exactly at the threshold does not fire: 3 * 0.5 = 1.5 holds in every precision."""
    d = 4
    folder = tmp_path / "gemma-scope-2-1b-pt" / "resid_post" / "layer_1_width_16k_l0_small"
    folder.mkdir(parents=True)
    tensors = {"w_enc": 0.5 * torch.eye(d), "w_dec": torch.eye(d), "b_enc": torch.zeros(d), "b_dec": torch.zeros(d)}
    save_file({**tensors, "threshold": torch.full((d,), 1.5)}, folder / "params.safetensors")
    record = READERS["gemma_scope_2"].read(folder, {})
    x = torch.tensor([[3.0, 3.0000005, 2.0, 4.0]])
    codes, _ = to_sae(record)(x)
    assert (codes.dense() != 0).tolist() == [[False, True, False, True]]
    assert worst(evaluate(record, number(x)).codes, number(codes.dense())) <= 1e-6
    assert np.count_nonzero(number(x) * 0.5 >= 1.5) == 3, "not strictly, one more would fire"
