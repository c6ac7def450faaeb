"""The published formula of temporal feature analysis in NumPy float64, from its own files; written apart from the reader."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from perimetry.sae.formats.isolated import open_yaml
from perimetry.sae.formats.reference import Reference, relu, top_k

__all__ = ["temporal_formula"]

Array = NDArray[np.float64]


def temporal_formula(path: Path, given: Mapping[str, Any], *, unsafe_pickle: bool = False) -> Reference:  # noqa: ARG001
    """Attention over the codes of a sequence predicts; TopK codes what is left. Rows are consecutive tokens."""
    c = {**open_yaml(path / "conf.yaml")["sae"], **given}
    t = {k: v.to(torch.float64).numpy() for k, v in load_file(path / "latest_ckpt.safetensors").items()}
    D, a = t["D"], {name.removeprefix("attn_layers.0."): value for name, value in t.items()}
    slope, scale, heads, context = 1 / (4 * D.shape[1]), c["scaling_factor"], c["n_heads"], c["context"]

    def attend(codes: Array) -> Array:
        before = np.vstack([np.zeros_like(codes[:1]), codes[:-1]])
        parts: list[Array] = []
        q, k, v = (
            np.split(x @ a[f"{name}.weight"].T + a[f"{name}.bias"], heads, axis=1)
            for name, x in (("q_target", codes), ("k_ctx", before), ("v_ctx", before))
        )
        for query, key, value in zip(q, k, v, strict=True):
            scores = np.where(np.tri(len(codes)) > 0, query @ key.T / math.sqrt(query.shape[1]), -np.inf)
            weights = np.exp(scores - scores.max(1, keepdims=True))
            parts.append(weights / weights.sum(1, keepdims=True) @ value)
        return relu(np.hstack(parts) @ a["c_proj.weight"].T + a["c_proj.bias"])

    def both(x: Array) -> tuple[Array, Array]:
        """Novel codes and predicted vectors in scaled units, sequence by sequence."""
        novel, predicted = np.zeros((len(x), len(D))), np.zeros_like(x)
        for start in range(0, len(x), context):
            rows = slice(start, start + context)
            z = x[rows] * scale - t["b"]
            towards = attend(relu(slope * z @ D.T)) @ D
            size = (np.sqrt((towards**2).sum(1, keepdims=True)) + 1e-6) ** 2
            predicted[rows] = (towards * z).sum(1, keepdims=True) / size * towards
            novel[rows] = top_k(slope * (z - predicted[rows]) @ D.T, int(c.get("k", c["kval_topk"])))
        return novel, predicted

    return Reference(
        "NumPy float64 after the published formula of temporal feature analysis, from its files, written apart from the reader",
        lambda x: both(x)[0],
        lambda x, codes: (codes @ D + both(x)[1] + t["b"]) / scale,
    )
