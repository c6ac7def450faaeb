"""The formulas of the other families in NumPy float64, from their own files, written apart from their readers.

Every one of them is `gate(W (norm(x) s - c) + b)`, decoded by `D`, brought back by the scale of the output: what differs is told to `_made`.
Codes that a library divides by a decoder norm after choosing by it are given undivided, as the SAEs here have them.
"""

import json
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from perimetry.sae.formats.isolated import open_npz, open_pickle
from perimetry.sae.formats.reference import Array, Reference, load_doubles, relu, top_k

__all__ = ["FAMILY_REFERENCES"]

Gate = Callable[[Array], Array]
Tensors = dict[str, Array]


def above(threshold: Any, norms: Any = 1.0) -> Gate:
    """p where p times the norms exceeds the threshold."""
    return lambda p: relu(p) * (p * norms > threshold)


def first(k: int) -> Gate:
    """The k largest, if positive."""
    return lambda p: top_k(p, k)


def _made(
    what: str,
    W: Array,
    D: Array,
    b: Any,
    c: Any,
    gate: Gate,
    *,
    centred: bool = False,
    scales: tuple[float, float] = (1.0, 1.0),
    norm: str = "none",
    skip: Array | None = None,
    units: Any = 1.0,
) -> Reference:
    """`W` is (d_in, n), `D` (n, d_out), `skip` (d_in, d_out); `units` multiplies the codes, and is divided out before decoding."""

    def statistics(x: Array) -> tuple[Array, Array, Array]:
        if norm == "layer":
            mean = x.mean(1, keepdims=True)
            deviation = (x - mean).std(1, ddof=1, keepdims=True)
            return (x - mean) / (deviation + 1e-5), mean, deviation
        if norm == "root":
            length = np.linalg.norm(x, axis=1, keepdims=True) / math.sqrt(x.shape[1])
            return np.divide(x, length, out=np.zeros_like(x), where=length > 0), np.zeros_like(length), length
        return x, np.zeros((len(x), 1)), np.ones((len(x), 1))

    def codes(x: Array) -> Array:
        z = statistics(x)[0] * scales[0]
        return gate((z - c if centred else z) @ W + b) * units

    def output(x: Array, found: Array) -> Array:
        z, shift, scale = statistics(x)
        out = ((found / units) @ D + c) / scales[1] * scale + shift
        return out if skip is None else out + z @ skip

    told = f"NumPy float64 after the published formula of {what}, from its files, written apart from the reader"
    return Reference(told, codes, output, None if skip is None else lambda x: x @ skip)


def _json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def _pickle(path: Path, unsafe_pickle: bool) -> tuple[Tensors, Any]:
    found = open_pickle(path, unsafe_pickle=unsafe_pickle)
    return {name: tensor.double().numpy() for name, tensor in found.tensors.items()}, found.plain


def _only(path: Path, *patterns: str) -> Path:
    """The file itself, or the one file of a folder that has one of the names."""
    if path.is_file():
        return path
    return next(file for pattern in patterns for file in sorted(path.rglob(pattern)))


def sparsify(path: Path, overrides: Mapping[str, Any], *, unsafe_pickle: bool = False) -> Reference:  # noqa: ARG001
    """eai-sparsify: `SparseCoder.encode` and `forward`."""
    c, t = {**_json(path / "cfg.json"), **overrides}, load_doubles(path / "sae.safetensors")
    skip = t["W_skip"].T if "W_skip" in t else None
    centred = not c.get("transcode", False)
    return _made(
        "sparsify",
        t["encoder.weight"].T,
        t["W_dec"],
        t["encoder.bias"],
        t["b_dec"],
        first(int(c["k"])),
        centred=centred,
        skip=skip,
    )


def _gated(t: Tensors) -> Reference:
    gates = t["gate_bias"], np.exp(t["r_mag"]), t["mag_bias"]
    return _made(
        "dictionary_learning",
        t["encoder.weight"].T,
        t["decoder.weight"].T,
        0.0,
        t["decoder_bias"],
        lambda q: (q + gates[0] > 0) * relu(gates[1] * q + gates[2]),
        centred=True,
    )


def dictionary_learning(path: Path, overrides: Mapping[str, Any], *, unsafe_pickle: bool = False) -> Reference:
    """dictionary_learning: `encode` and `decode` of each class, as `load_dictionary` gives it."""
    file = path if path.is_file() else path / "ae.pt"
    t, _ = _pickle(file, unsafe_pickle)
    root = next(place for place in (file.parent, file.parent.parent) if (place / "config.json").is_file())
    c = {**_json(root / "config.json")["trainer"], **overrides}
    name = c["dict_class"]
    if name == "GatedAutoEncoder":
        return _gated(t)
    if name in ("JumpReluAutoEncoder", "MatryoshkaBatchTopKSAE"):
        matryoshka = name.startswith("Matryoshka")
        cut = overrides.get("threshold", t["threshold"])
        return _made(
            "dictionary_learning", t["W_enc"], t["W_dec"], t["b_enc"], t["b_dec"], above(cut), centred=matryoshka
        )
    W, D, b = t["encoder.weight"].T, t["decoder.weight"].T, t["encoder.bias"]
    if name == "AutoEncoder":
        norms = np.linalg.norm(D, axis=1) if c.get("fold_decoder_norms", True) else 1.0
        return _made("dictionary_learning", W, D, b, t["bias"], relu, centred=True, units=norms)
    if name == "AutoEncoderNew":
        return _made("dictionary_learning", W, D, b, t["decoder.bias"], relu)
    by_cut = name == "BatchTopKSAE" or c.get("use_threshold", False)
    gate = above(overrides.get("threshold", t["threshold"])) if by_cut else first(int(overrides.get("k", t["k"])))
    return _made("dictionary_learning", W, D, b, t["b_dec"], gate, centred=True)


def gemma_scope(path: Path, overrides: Mapping[str, Any], *, unsafe_pickle: bool = False) -> Reference:  # noqa: ARG001
    """Gemma Scope 1: JumpReLU; those of the embedding read and write it times the root of its width."""
    file = path if path.is_file() else path / "params.npz"
    names = {"W_enc", "W_dec", "b_enc", "b_dec", "threshold"}
    t = {name.lower(): tensor.double().numpy() for name, tensor in open_npz(file, names).items()}
    root = math.sqrt(t["w_enc"].shape[0]) if "embedding" in file.absolute().parts else 1.0
    c = t["b_dec"] if overrides.get("scale_b_dec", True) else t["b_dec"] / root
    return _made(
        "Gemma Scope", t["w_enc"], t["w_dec"], t["b_enc"], c, above(t["threshold"]), scales=(1 / root, 1 / root)
    )


def gemma_scope_2(path: Path, overrides: Mapping[str, Any], *, unsafe_pickle: bool = False) -> Reference:  # noqa: ARG001
    """Gemma Scope 2: JumpReLU; cross-layer decoders are summed over layers, for codes only."""
    t = {name.lower(): array for name, array in load_doubles(_only(path, "params.safetensors")).items()}
    D = t["w_dec"].sum(1) if t["w_dec"].ndim == 3 else t["w_dec"]
    c = t["b_dec"].sum(0) if t["b_dec"].ndim == 2 else t["b_dec"]
    skip = t.get("affine_skip_connection")
    return _made("Gemma Scope 2", t["w_enc"], D, t["b_enc"], c, above(t["threshold"]), skip=skip)


def llama_scope(path: Path, overrides: Mapping[str, Any], *, unsafe_pickle: bool = False) -> Reference:  # noqa: ARG001
    """Llama Scope: JumpReLU on inputs of norm root d on average; the scalar threshold is in units of raw activations."""
    old = (path / "hyperparams.json").is_file()
    c = {**_json(path / ("hyperparams.json" if old else "config.json")), **overrides}
    t = load_doubles(path / ("checkpoints/final.safetensors" if old else "sae_weights.safetensors"))
    D, root = t["decoder.weight"].T, math.sqrt(c["d_model"])
    average = c.get("dataset_average_activation_norm") or {}
    scale = root / c.get("norm_in", average.get("in", math.nan))
    cross = c.get("hook_name", c["hook_point_in"]) != c.get("hook_name_out", c["hook_point_out"])
    scale_out = root / c.get("norm_out", average.get("out", math.nan)) if cross else scale
    raw = c.get("threshold_units", "raw") == "raw"
    cut = np.exp(t["log_jumprelu_threshold"]) if not old else c["jump_relu_threshold"] * (scale if raw else 1.0)
    norms = np.linalg.norm(D, axis=1) if c.get("sparsity_include_decoder_norm") else 1.0
    return _made(
        "Llama Scope",
        t["encoder.weight"].T,
        D,
        t["encoder.bias"],
        t["decoder.bias"],
        above(cut, norms),
        scales=(scale, scale_out),
    )


def llamascopium(path: Path, overrides: Mapping[str, Any], *, unsafe_pickle: bool = False) -> Reference:  # noqa: ARG001
    """Llamascopium 2: choice by p times decoder norm where the configuration says so."""
    c, t = {**_json(path / "config.json"), **overrides}, load_doubles(_only(path, "sae_weights.safetensors"))
    D, bias = t["W_D"], t["b_D"] if c["use_decoder_bias"] else np.zeros(t["W_D"].shape[1])
    norms = np.linalg.norm(D, axis=1) if c["sparsity_include_decoder_norm"] else np.ones(len(D))
    function, units, gate = c["act_fn"].lower(), 1.0, relu
    scales = (1.0, 1.0)
    if c["norm_activation"] == "dataset-wise":
        stored = {
            name: float(value) for name, value in t.items() if name.startswith("dataset_average_activation_norm.")
        }
        ins, outs = (f"dataset_average_activation_norm.{c[f'hook_point_{end}']}" for end in ("in", "out"))
        scales = (
            math.sqrt(t["W_E"].shape[0]) / overrides.get("norm_in", stored.get(ins, math.nan)),
            math.sqrt(D.shape[1]) / overrides.get("norm_out", stored.get(outs, math.nan)),
        )
    if function == "jumprelu":
        cut = np.exp(t["activation_function.log_jumprelu_threshold"]) * overrides.get("threshold_factor", 1.0)
        gate = above(cut, norms)
    elif function == "topk":
        k = int(c.get("k", c["top_k"]))
        gate, units = (lambda p: top_k(p * norms, k) / norms), norms
    elif function == "batchtopk":
        gate, units = above(float(c["threshold"]), norms), norms
    by_token = "root" if c["norm_activation"] == "token-wise" else "none"
    return _made("Llamascopium", t["W_E"], D, t["b_E"], bias, gate, scales=scales, norm=by_token, units=units)


def openai(path: Path, overrides: Mapping[str, Any], *, unsafe_pickle: bool = False) -> Reference:
    """OpenAI's GPT-2 autoencoders; those with TopK normalise each token, which `forward` undoes."""
    t, plain = _pickle(path, unsafe_pickle)
    c = {**plain, **overrides}
    top = c["activation"] == "TopK"
    k = overrides.get("k", (plain.get("activation_state_dict") or {}).get("k", t.get("activation_state_dict.k", 0)))
    gate = first(int(k)) if top else relu
    W, D = t["encoder.weight"].T, t["decoder.weight"].T
    norm = "layer" if top else "none"
    return _made("OpenAI's sparse_autoencoder", W, D, t["latent_bias"], t["pre_bias"], gate, centred=True, norm=norm)


def linear_pickle(path: Path, overrides: Mapping[str, Any], *, unsafe_pickle: bool = False) -> Reference:  # noqa: ARG001
    """Goodfire and DeepSeek R1: two linear layers and a ReLU between."""
    t, _ = _pickle(_only(path, "*.pth", "*.pt"), unsafe_pickle)
    end = "_linear" if "encoder_linear.weight" in t else ""
    W, D = t[f"encoder{end}.weight"].T, t[f"decoder{end}.weight"].T
    return _made("a linear encoder with ReLU", W, D, t[f"encoder{end}.bias"], t[f"decoder{end}.bias"], relu)


def qwen_scope(path: Path, overrides: Mapping[str, Any], *, unsafe_pickle: bool = False) -> Reference:
    """Qwen-Scope: TopK, with k in the name of the folder."""
    t, _ = _pickle(path, unsafe_pickle)
    named = re.search(r"L0_(\d+)", str(path.absolute()))
    k = int(overrides["k"]) if "k" in overrides else int(named.group(1) if named else 0)
    return _made("Qwen-Scope", t["W_enc"].T, t["W_dec"].T, t["b_enc"], t["b_dec"], first(k))


def mwhanna(path: Path, overrides: Mapping[str, Any], *, unsafe_pickle: bool = False) -> Reference:  # noqa: ARG001
    """Transcoders for circuit tracing: ReLU. Of cross-layer ones only the codes are meant; their decoder is left out."""
    t = load_doubles(path)
    cross = re.fullmatch(r"W_enc_(\d+)\.safetensors", path.name)
    if cross:
        W, b = (t[f"{name}_{cross.group(1)}"] for name in ("W_enc", "b_enc"))
        return _made("cross-layer transcoders", W.T, np.zeros(W.shape), b, np.zeros(W.shape[1]), relu)
    skip = t["W_skip"].T if "W_skip" in t else None
    return _made("circuit-tracing transcoders", t["W_enc"].T, t["W_dec"], t["b_enc"], t["b_dec"], relu, skip=skip)


FAMILY_REFERENCES: dict[str, Callable[..., Reference]] = {
    "deepseek": linear_pickle,
    "dictionary_learning": dictionary_learning,
    "gemma_scope": gemma_scope,
    "gemma_scope_2": gemma_scope_2,
    "goodfire": linear_pickle,
    "llama_scope": llama_scope,
    "llamascopium": llamascopium,
    "mwhanna": mwhanna,
    "openai": openai,
    "qwen_scope": qwen_scope,
    "sparsify": sparsify,
}
"""Family -> its formulas."""
