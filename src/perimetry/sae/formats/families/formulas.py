"""The published formulas of the families in NumPy float64, from their own files: what a conversion is held against.

Written apart from the readers: no record, no folding. Scales and norms are applied where the source applies them, at run time. A name
that a user may override is looked up here again, by its own hand.
"""

import json
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor

from perimetry.sae.formats.families.formula_temporal import temporal_formula
from perimetry.sae.formats.isolated import open_npz, open_pickle
from perimetry.sae.formats.reference import Reference, relu, top_k

__all__ = ["FORMULAS"]

Array = NDArray[np.float64]
Given = Mapping[str, Any]
Rule = Callable[[Array], Array]


def _numbers(tensors: Mapping[str, Tensor]) -> dict[str, Array]:
    return {name: tensor.to(torch.float64).numpy() for name, tensor in tensors.items()}


def _safe(path: Path) -> dict[str, Array]:
    return _numbers(load_file(path))


def _json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def _above(threshold: Array | float, weight: Array | float = 1.0) -> Rule:
    """ReLU(p) where p times `weight` exceeds the threshold, strictly."""
    return lambda p: relu(p) * (p * weight > threshold)


class _Affine(NamedTuple):
    """A dictionary as its family writes it, turned so that encoder and decoder are used from the right."""

    into: Array
    b_enc: Array
    out: Array
    b_dec: Array
    rule: Rule
    subtract: bool = False
    scale: float = 1.0
    scale_out: float = 1.0
    norm: str = ""
    skip: Array | None = None

    def before(self, x: Array) -> tuple[Array, Array | float, Array | float]:
        """What the encoder reads, and shift and scale that undo it."""
        if self.norm == "layer":
            mean = x.mean(1, keepdims=True)
            deviation = np.sqrt(((x - mean) ** 2).sum(1, keepdims=True) / (x.shape[1] - 1))
            return (x - mean) / (deviation + 1e-5), mean, deviation
        if self.norm == "token":
            length = np.sqrt((x**2).sum(1, keepdims=True)) / math.sqrt(x.shape[1])
            return np.divide(x, length, out=np.zeros_like(x), where=length > 0), 0.0, length
        return x * self.scale, 0.0, 1.0 / self.scale_out

    def codes(self, x: Array) -> Array:
        z = self.before(x)[0]
        return self.rule((z - self.b_dec if self.subtract else z) @ self.into + self.b_enc)

    def output(self, x: Array, codes: Array) -> Array:
        _, shift, scale = self.before(x)
        made = (codes @ self.out + self.b_dec) * scale + shift
        return made if self.skip is None else made + x @ self.skip

    def reference(self, formula: str) -> Reference:
        skip = self.skip
        return Reference(
            f"NumPy float64 after the published formula of {formula}, from its files, written apart from the reader",
            self.codes,
            self.output,
            None if skip is None else lambda x: x @ skip,
        )


def _sparsify(path: Path, given: Given, *, unsafe_pickle: bool = False) -> Reference:  # noqa: ARG001
    c = {**_json(path / "cfg.json"), **given}
    t = _safe(path / "sae.safetensors")
    made = _Affine(
        t["encoder.weight"].T,
        t["encoder.bias"],
        t["W_dec"],
        t["b_dec"],
        lambda p: top_k(p, int(c["k"])),
        subtract=not c.get("transcode", False),
        skip=t["W_skip"].T if "W_skip" in t else None,
    )
    return made.reference("eai-sparsify 1.3.3")


def _dictionary_learning(path: Path, given: Given, *, unsafe_pickle: bool = False) -> Reference:
    weights = path / "ae.pt" if path.is_dir() else path
    folder = weights.parent.parent if weights.parent.name == "checkpoints" else weights.parent
    c = {**_json(folder / "config.json")["trainer"], **given}
    t, kind = _numbers(open_pickle(weights, unsafe_pickle=unsafe_pickle).tensors), str(c["dict_class"])
    into = t["encoder.weight"].T if "encoder.weight" in t else t["W_enc"]
    out = t["decoder.weight"].T if "decoder.weight" in t else t["W_dec"]
    b_dec = next(t[name] for name in ("b_dec", "bias", "decoder.bias", "decoder_bias") if name in t)
    b_enc = t.get("encoder.bias", t.get("b_enc", np.zeros(into.shape[1])))
    rule: Rule = relu
    if kind == "GatedAutoEncoder":
        rule = lambda p: (p + t["gate_bias"] > 0) * relu(np.exp(t["r_mag"]) * p + t["mag_bias"])  # noqa: E731
    elif kind == "AutoEncoderTopK" and not c.get("use_threshold", False):
        rule = lambda p: top_k(p, int(c["k"]))  # noqa: E731
    elif "threshold" in t:
        rule = _above(c.get("threshold", t["threshold"]))
    elif kind == "AutoEncoder" and c.get("fold_decoder_norms", True):
        norms = np.sqrt((out**2).sum(1))
        rule = lambda p: relu(p) * norms  # noqa: E731
        out = out / norms[:, None]
    subtract = kind not in ("AutoEncoderNew", "JumpReluAutoEncoder")
    return _Affine(into, b_enc, out, b_dec, rule, subtract).reference(f"dictionary_learning 0.1.0, {kind}")


def _gemma_scope(path: Path, given: Given, *, unsafe_pickle: bool = False) -> Reference:  # noqa: ARG001
    file = path / "params.npz" if path.is_dir() else path
    found = open_npz(file, ("W_enc", "W_dec", "b_enc", "b_dec", "threshold", "scaling_factor"))
    t = _numbers({name.lower(): tensor for name, tensor in found.items()})
    embedding = given.get("site", "embedding" if "embedding" in file.absolute().parts else "") == "embedding"
    scale = 1 / math.sqrt(t["w_enc"].shape[0]) if embedding else 1.0
    b_dec = t["b_dec"] * (scale if embedding and not given.get("scale_b_dec", True) else 1.0)
    made = _Affine(t["w_enc"], t["b_enc"], t["w_dec"], b_dec, _above(t["threshold"]), scale=scale, scale_out=scale)
    return made.reference("Gemma Scope 1")


def _gemma_scope_2(path: Path, given: Given, *, unsafe_pickle: bool = False) -> Reference:  # noqa: ARG001
    t = _safe(path / "params.safetensors" if path.is_dir() else path)
    decoder = t["w_dec"].sum(1) if t["w_dec"].ndim == 3 else t["w_dec"]
    skip = t.get("affine_skip_connection") if t["w_dec"].ndim == 2 else None
    made = _Affine(t["w_enc"], t["b_enc"], decoder, t["b_dec"], _above(t["threshold"]), skip=skip)
    return made.reference("Gemma Scope 2")


def _llama_scope(path: Path, given: Given, *, unsafe_pickle: bool = False) -> Reference:  # noqa: ARG001
    old = (path / "hyperparams.json").is_file()
    c = _json(path / ("hyperparams.json" if old else "config.json"))
    t = _safe(path / ("checkpoints/final.safetensors" if old else "sae_weights.safetensors"))
    norms = c.get("dataset_average_activation_norm", {})
    root = math.sqrt(c["d_model"])
    scale = root / given.get("norm_in", norms.get("in"))
    same = given.get("hook_name", c["hook_point_in"]) == given.get("hook_name_out", c["hook_point_out"])
    scale_out = scale if same else root / given.get("norm_out", norms.get("out"))
    if old:
        units = scale if given.get("threshold_units", "raw") == "raw" else 1.0
        threshold = given.get("jump_relu_threshold", c["jump_relu_threshold"]) * units
    else:
        threshold = np.exp(t["log_jumprelu_threshold"])
    lengths = np.sqrt((t["decoder.weight"] ** 2).sum(0))
    weighted = given.get("sparsity_include_decoder_norm", c.get("sparsity_include_decoder_norm", False))
    made = _Affine(
        t["encoder.weight"].T,
        t["encoder.bias"],
        t["decoder.weight"].T,
        t["decoder.bias"],
        _above(threshold, lengths if weighted else 1.0),
        scale=scale,
        scale_out=scale_out,
    )
    return made.reference("Llama Scope, the threshold as its authors corrected it")


def _llamascopium(path: Path, given: Given, *, unsafe_pickle: bool = False) -> Reference:  # noqa: ARG001
    c = {**_json(path / "config.json"), **given}
    places = (path / f"{p}.safetensors" for p in ("sae_weights", "checkpoints/pruned", "checkpoints/final"))
    t = _safe(next(place for place in places if place.is_file()))
    lengths = np.sqrt((t["W_D"] ** 2).sum(1)) if c["sparsity_include_decoder_norm"] else np.ones(t["W_D"].shape[0])
    kind, out, mode = c["act_fn"].lower(), t["W_D"], c["norm_activation"]
    rule: Rule = relu
    if kind == "jumprelu":
        factor = c["threshold_factor"] if mode == "inference" else 1.0
        rule = _above(np.exp(t["activation_function.log_jumprelu_threshold"]) * factor, lengths)
    elif kind in ("topk", "batchtopk"):  # codes of the SAE are p times the norm, with rows of norm 1
        out = out / lengths[:, None] if c["sparsity_include_decoder_norm"] else out
        if kind == "topk":
            rule = lambda p: top_k(p * lengths, int(c.get("k", c["top_k"])))  # noqa: E731
        else:
            rule = lambda p: relu(p * lengths) * (p * lengths > c["threshold"])  # noqa: E731
    scales = [1.0, 1.0]
    if mode == "dataset-wise":
        for i, (name, hook) in enumerate((("norm_in", c["hook_point_in"]), ("norm_out", c["hook_point_out"]))):
            norm = c.get(name, t.get(f"dataset_average_activation_norm.{hook}"))
            scales[i] = math.sqrt(c["d_model"]) / float(np.asarray(norm))
    b_dec = t.get("b_D", np.zeros(out.shape[1]))
    token = "token" if mode == "token-wise" else ""
    made = _Affine(t["W_E"], t["b_E"], out, b_dec, rule, scale=scales[0], scale_out=scales[1], norm=token)
    return made.reference("llamascopium 2.0.0b34")


def _openai(path: Path, given: Given, *, unsafe_pickle: bool = False) -> Reference:
    found = open_pickle(path, unsafe_pickle=unsafe_pickle)
    t = _numbers({name: tensor for name, tensor in found.tensors.items() if tensor.is_floating_point()})
    plain = found.plain if isinstance(found.plain, dict) else {}
    activation = given.get("activation", plain.get("activation", "ReLU"))
    k = given.get(
        "k", (plain.get("activation_state_dict") or {}).get("k", found.tensors.get("activation_state_dict.k"))
    )
    made = _Affine(
        t["encoder.weight"].T,
        t["latent_bias"],
        t["decoder.weight"].T,
        t["pre_bias"],
        (lambda p: top_k(p, int(k))) if activation == "TopK" else relu,
        subtract=True,
        norm="layer" if activation == "TopK" else "",
    )
    return made.reference("openai/sparse_autoencoder")


def _linear(encoder: str, decoder: str, formula: str) -> Callable[..., Reference]:
    def made(path: Path, given: Given, *, unsafe_pickle: bool = False) -> Reference:  # noqa: ARG001
        t = _numbers(open_pickle(path, unsafe_pickle=unsafe_pickle).tensors)
        into, out = t[f"{encoder}.weight"].T, t[f"{decoder}.weight"].T
        return _Affine(into, t[f"{encoder}.bias"], out, t[f"{decoder}.bias"], relu).reference(formula)

    return made


def _qwen_scope(path: Path, given: Given, *, unsafe_pickle: bool = False) -> Reference:
    t = _numbers(open_pickle(path, unsafe_pickle=unsafe_pickle).tensors)
    named = [found.group(1) for found in re.finditer(r"-L0_(\d+)", str(path.absolute().parent))]
    k = int(given.get("k", named[-1] if named else 0))
    made = _Affine(t["W_enc"].T, t["b_enc"], t["W_dec"].T, t["b_dec"], lambda p: top_k(p, k))
    return made.reference("Qwen-Scope")


def _mwhanna(path: Path, given: Given, *, unsafe_pickle: bool = False) -> Reference:  # noqa: ARG001
    t = _safe(path)
    layer = path.stem.rpartition("_")[2]
    if path.name.startswith("W_enc_"):
        t = {name.removesuffix(f"_{layer}"): value for name, value in t.items()}
        t["W_dec"] = _safe(path.with_name(f"W_dec_{layer}.safetensors"))[f"W_dec_{layer}"].sum(1)
    return _Affine(t["W_enc"].T, t["b_enc"], t["W_dec"], t["b_dec"], relu).reference("circuit-tracing transcoders")


FORMULAS: dict[str, Callable[..., Reference]] = {
    "deepseek": _linear("encoder", "decoder", "qresearch's dictionaries"),
    "dictionary_learning": _dictionary_learning,
    "gemma_scope": _gemma_scope,
    "gemma_scope_2": _gemma_scope_2,
    "goodfire": _linear("encoder_linear", "decoder_linear", "Goodfire's dictionaries"),
    "llama_scope": _llama_scope,
    "llamascopium": _llamascopium,
    "mwhanna": _mwhanna,
    "openai": _openai,
    "qwen_scope": _qwen_scope,
    "sparsify": _sparsify,
    "temporal": temporal_formula,
}
"""Family -> its formulas, from its files; called as a reader is."""
