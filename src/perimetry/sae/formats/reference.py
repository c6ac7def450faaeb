"""The formulas of published dictionaries in NumPy float64, from their own files: what a conversion is held against.

Written apart from the readers: nothing of a reader, of a record or of its folding is used, only the published rule at run time, with
scales and norms applied where the source applies them. Speed does not matter here.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from safetensors.torch import load_file

__all__ = ["Array", "Reference", "load_doubles", "pursuit", "relu", "saelens_reference", "top_k"]

Array = NDArray[np.float64]


class Reference(NamedTuple):
    """What the source gives for an input (row, d_in), raw activations."""

    statement: str
    """What it is: a library with its version, or a formula of which files."""
    codes: Callable[[Array], Array]
    """Dense codes (row, d_sae)."""
    output: Callable[[Array, Array], Array]
    """The whole output of an input and its codes, skip and normalisation included."""
    skip: Callable[[Array], Array] | None = None
    """The skip part of the output, where there is one."""


def relu(p: Array) -> Array:
    """The positive part."""
    return np.maximum(p, 0.0)


def top_k(p: Array, k: int) -> Array:
    """The k largest of each row, negative ones as 0; ties to the lowest latent."""
    order = np.argsort(-p, axis=1, kind="stable")[:, :k]
    out = np.zeros_like(p)
    np.put_along_axis(out, order, np.take_along_axis(p, order, 1), 1)
    return relu(out)


def pursuit(x: Array, rows: Array, threshold: float, most: int, stop_on_duplicate: bool) -> Array:
    """Greedy pursuit, one row at a time."""
    codes = np.zeros((x.shape[0], rows.shape[0]))
    for t in range(x.shape[0]):
        residual, support = x[t].copy(), frozenset[int]()
        for _ in range(most):
            inner = relu(rows @ residual)
            best = int(inner.argmax())
            codes[t, best] += inner[best]
            residual = residual - inner[best] * rows[best]
            now = frozenset(np.flatnonzero(codes[t]).tolist())
            if (stop_on_duplicate and now == support) or (threshold > 0 and np.linalg.norm(residual) < threshold):
                break
            support = now
    return codes


def load_doubles(path: Path) -> dict[str, Array]:
    """The tensors of a safetensors file in float64."""
    return {name: tensor.double().numpy() for name, tensor in load_file(path).items()}


def _flat(config: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Keys of all ages in one dictionary; the user's come last."""
    flat = {**config, **config.get("metadata", {}), **overrides}
    kwargs = config.get("activation_fn_kwargs") or {}
    if (config.get("activation_fn_str") or config.get("activation_fn")) == "topk":
        flat |= {"architecture": "topk", "k": overrides.get("k", kwargs.get("k", config.get("k")))}
    flat.setdefault("architecture", "standard")
    if flat.get("normalize_activations") in (None, False):
        flat["normalize_activations"] = "none"
    return flat


class _SAELens:
    """One folder of SAELens, by the rules of its own `encode`, `decode` and `forward`."""

    def __init__(self, folder: Path, overrides: Mapping[str, Any]) -> None:
        self.c = _flat(json.loads((folder / "cfg.json").read_text(encoding="utf-8")), overrides)
        self.t = load_doubles(folder / "sae_weights.safetensors")
        self.kind: str = self.c["architecture"]
        self.norm = self.c["normalize_activations"]
        self.by_norm = bool(self.c.get("rescale_acts_by_decoder_norm")) and "topk" in self.kind
        self.shift: Array = np.zeros(self.t["b_dec"].shape[0])
        self.into: Array = np.eye(1)
        self.out: Array = np.eye(1)
        self.scale = 1.0
        scaler = folder / "activation_scaler.json"
        if self.norm in (True, "expected_average_only_in"):
            stored = json.loads(scaler.read_text(encoding="utf-8")) if scaler.is_file() else {}
            self.scale = float({"norm_scaling_factor": stored.get("scaling_factor"), **self.c}["norm_scaling_factor"])
        if self.norm == "covariance_whitening":
            stats = load_doubles(folder / "activation_whitening.safetensors")
            self.shift, self.into, self.out = stats["mean"], stats["matrix"], stats["inverse_matrix"]

    def before(self, x: Array) -> tuple[Array, Array, Array]:
        """What the encoder reads, and shift and scale that undo it."""
        zero, one = np.zeros((x.shape[0], 1)), np.ones((x.shape[0], 1))
        if self.norm == "layer_norm":
            mean = x.mean(1, keepdims=True)
            deviation = (x - mean).std(1, ddof=1, keepdims=True)
            return (x - mean) / (deviation + 1e-5), mean, deviation
        if self.norm == "constant_norm_rescale":
            length = np.linalg.norm(x, axis=1, keepdims=True) / np.sqrt(x.shape[1])
            return np.divide(x, length, out=np.zeros_like(x), where=length > 0), zero, length
        if self.norm == "covariance_whitening":
            return (x - self.shift) @ self.into, zero, one
        return x * self.scale, zero, one

    def codes(self, x: Array) -> Array:
        z, _, _ = self.before(x)
        t, c = self.t, self.c
        if c["apply_b_dec_to_input"]:
            z = z - t["b_dec"]
        if self.kind == "matching_pursuit":
            most = c["max_iterations"] if c.get("max_iterations") is not None else z.shape[1]
            found = pursuit(z, t["W_dec"], c["residual_threshold"], most, c["stop_on_duplicate_support"])
            return found / self.scale
        product = z @ t["W_enc"]
        if self.kind == "gated":
            return (product + t["b_gate"] > 0) * relu(z @ (t["W_enc"] * np.exp(t["r_mag"])) + t["b_mag"])
        p = product + t["b_enc"]
        if self.by_norm:
            p = p * np.linalg.norm(t["W_dec"], axis=1)
        if self.kind == "topk":
            found = top_k(p, int(c["k"]))
        elif self.kind in ("batchtopk", "matryoshka_batchtopk"):
            found = relu(p) * (p > float(t["topk_threshold"]))
        elif "jumprelu" in self.kind:
            threshold = np.exp(t["log_threshold"]) if "log_threshold" in t else t["threshold"]
            found = relu(p) * (p > threshold)
        else:
            found = relu(p)
        # SAELens folds the scale before the norms, so that codes of unit rows come out over the scale.
        return found / self.scale if self.by_norm else found

    def output(self, x: Array, codes: Array) -> Array:
        t = self.t
        _, shift, scale = self.before(x)
        if self.by_norm:
            codes = codes * self.scale / np.linalg.norm(t["W_dec"], axis=1)
        if self.kind == "matching_pursuit":
            codes = codes * self.scale
            out = codes @ t["W_dec"] + (t["b_dec"] if self.c["apply_b_dec_to_input"] else 0.0)
        else:
            out = codes @ t["W_dec"] + t["b_dec"]
        if self.norm == "covariance_whitening":
            return out @ self.out + self.shift
        if "transcoder" in self.kind:
            return out + (self.skip(x) if "W_skip" in t else 0.0)
        return out / self.scale * scale + shift

    def skip(self, x: Array) -> Array:
        return x @ self.t["W_skip"].T


def saelens_reference(path: Path, overrides: Mapping[str, Any], *, unsafe_pickle: bool = False) -> Reference:  # noqa: ARG001
    """The formulas of SAELens 6.54 on a folder. The files were read and checked by the reader before."""
    made = _SAELens(path, overrides)
    return Reference(
        "NumPy float64 after the formulas of SAELens 6.54.12, from its files, written apart from the reader",
        made.codes,
        made.output,
        made.skip if "W_skip" in made.t else None,
    )
