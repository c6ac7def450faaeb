"""No release of the library can be installed; the formulas are those of its model.py, in NumPy float64."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.sae.formats.families.evaluate import Array, evaluate, number, top_k, worst

from perimetry.errors import CorruptArtifact, Incompatible, UnsafeFormat
from perimetry.runtime import generator
from perimetry.sae.formats.build import to_sae
from perimetry.sae.formats.families.openai import read, recognises

pytestmark = pytest.mark.usefixtures("here")
D, N, K = 16, 48, 4


def state(seed: int, *, topk: bool) -> dict[str, Any]:
    source = generator(seed)
    value: dict[str, Any] = {
        "pre_bias": torch.randn(D, generator=source),
        "latent_bias": 0.3 * torch.randn(N, generator=source),
        "encoder.weight": torch.randn(N, D, generator=source),
        "decoder.weight": torch.randn(D, N, generator=source),
        "stats_last_nonzero": torch.zeros(N, dtype=torch.int64),
        "latents_activation_frequency": torch.ones(N),
        "latents_mean_square": torch.zeros(N),
    }
    if topk:
        value |= {"activation": "TopK", "activation_state_dict": {"k": K, "postact_fn": "ReLU"}}
    return value


def put(root: Path, folder: str, value: dict[str, Any], layer: int = 6) -> Path:
    file = root / folder / "autoencoders" / f"{layer}.pt"
    file.parent.mkdir(parents=True)
    torch.save(value, file)
    return file


def formula(value: dict[str, Any], x: Array, *, topk: bool, ddof: int = 1) -> tuple[Array, Array]:
    t = {k: number(v) for k, v in value.items() if isinstance(v, torch.Tensor)}
    mean, deviation = 0.0, 1.0
    z = x
    if topk:
        mean = x.mean(1, keepdims=True)
        deviation = (x - mean).std(1, ddof=ddof, keepdims=True)
        z = (x - mean) / (deviation + 1e-5)
    pre = (z - t["pre_bias"]) @ t["encoder.weight"].T + t["latent_bias"]
    codes = top_k(pre, K) if topk else np.maximum(pre, 0)
    return codes, (codes @ t["decoder.weight"].T + t["pre_bias"]) * deviation + mean


def rows() -> Array:
    return number(3 * torch.randn(64, D, generator=generator(9)) + 1)


@pytest.mark.parametrize("topk", [True, False])
def test_the_published_formula(topk: bool, tmp_path: Path) -> None:
    value = state(1, topk=topk)
    folder = "resid_post_mlp_v5_32k" if topk else "resid_delta_mlp_v4"
    record = read(put(tmp_path, folder, value), {}, unsafe_pickle=True)
    codes, out = formula(value, rows(), topk=topk)
    found = evaluate(record, rows())
    assert worst(found.codes, codes) <= 1e-5
    assert worst(found.reconstruction, out) <= 1e-5
    built_codes, built = to_sae(record)(torch.from_numpy(rows()).float())
    assert worst(number(built_codes.dense()), codes) <= 1e-5
    assert worst(number(built), out) <= 1e-5
    if topk:  # the control: the other denominator of the variance is another dictionary
        assert worst(formula(value, rows(), topk=True, ddof=0)[1], out) > 1e-3


@pytest.mark.parametrize(
    ("folder", "hook"),
    [
        ("resid_delta_attn_v5_32k", "hook_attn_out"),
        ("resid_delta_mlp_v5_128k", "hook_mlp_out"),
        ("resid_post_attn_v5_128k", "hook_resid_mid"),
        ("resid_post_mlp_v5_32k", "hook_resid_post"),
        ("mlp_post_act", "mlp.hook_post"),
        ("resid_delta_mlp_v4", "hook_mlp_out"),
    ],
)
def test_the_path_says_where(folder: str, hook: str, tmp_path: Path) -> None:
    topk = "v5" in folder
    file = put(tmp_path, folder, state(2, topk=topk), layer=11)
    assert recognises(file)
    record = read(file, {}, unsafe_pickle=True)
    assert record.hook.name == f"blocks.11.{hook}"
    assert record.hook.layer == 11
    assert record.model == "gpt2"
    assert record.input_norm == ("layer_norm" if topk else "none")
    assert record.how["activation"] == ("file" if topk else "family")


def test_other_paths_are_not_theirs(tmp_path: Path) -> None:
    file = put(tmp_path, "resid_post", state(2, topk=True))
    assert not recognises(file)
    with pytest.raises(CorruptArtifact, match="the path does not say the location and layer"):
        read(file, {}, unsafe_pickle=True)


def test_what_is_missing_or_strange_is_refused(tmp_path: Path) -> None:
    value = state(3, topk=True)
    folder = "resid_post_mlp_v5_32k"
    with pytest.raises(UnsafeFormat, match=r"is a pickle.*--unsafe-pickle"):
        read(put(tmp_path / "a", folder, value), {})
    bare = {k: v for k, v in value.items() if not k.startswith("activation")}
    with pytest.raises(CorruptArtifact, match="activation is not given"):
        read(put(tmp_path / "b", folder, bare), {}, unsafe_pickle=True)
    odd = value | {"activation_state_dict": {"k": K, "postact_fn": "Identity"}}
    with pytest.raises(Incompatible, match="postact_fn 'Identity' lets negative codes through"):
        read(put(tmp_path / "c", folder, odd), {}, unsafe_pickle=True)
    less = value | {"activation_state_dict": {"postact_fn": "ReLU"}}
    file = put(tmp_path / "d", folder, less)
    with pytest.raises(CorruptArtifact, match="k is not given"):
        read(file, {}, unsafe_pickle=True)
    assert read(file, {"k": 3}, unsafe_pickle=True).gate == (3,)
    other = value | {"activation": "Sigmoid"}
    with pytest.raises(Incompatible, match="activation 'Sigmoid'"):
        read(put(tmp_path / "e", folder, other), {}, unsafe_pickle=True)
    tied = {k: v for k, v in value.items() if k != "decoder.weight"}
    with pytest.raises(CorruptArtifact, match=r"missing \['decoder.weight'\]"):
        read(put(tmp_path / "f", folder, tied), {}, unsafe_pickle=True)
