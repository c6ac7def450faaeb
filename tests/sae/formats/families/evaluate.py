"""What a record means, in NumPy float64: the second implementation that readers and references are held to."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

from perimetry.sae.formats.record import (
    BatchTopKGate,
    GatedGate,
    JumpReLUGate,
    Record,
    ReLUGate,
    TopKGate,
)

GOLDEN = Path(__file__).parents[1] / "golden"
Array = NDArray[np.float64]


class Vectors(NamedTuple):
    """Inputs and what a reference makes of them."""

    x: Array
    codes: Array
    reconstruction: Array


def vectors(case: str) -> Vectors:
    found = load_file(GOLDEN / case / "vectors.safetensors")
    return Vectors(*(found[name].astype(np.float64) for name in Vectors._fields))


def number(tensor: Any) -> Array:
    return np.asarray(tensor, dtype=np.float64)


def top_k(pre: Array, k: int) -> Array:
    codes = np.zeros_like(pre)
    order = np.argsort(-pre, axis=1, kind="stable")[:, :k]
    np.put_along_axis(codes, order, np.maximum(np.take_along_axis(pre, order, 1), 0), 1)
    return codes


def gate(record: Record, product: Array) -> Array:
    rule = record.gate
    if isinstance(rule, GatedGate):
        magnitude = np.maximum(np.exp(number(rule.r_mag)) * product + number(rule.b_mag), 0)
        return np.where(product + number(rule.b_gate) > 0, magnitude, 0)
    pre = product + number(record.b_enc)
    if isinstance(rule, ReLUGate):
        return np.maximum(pre, 0)
    if isinstance(rule, JumpReLUGate):
        return np.where(pre > number(rule.threshold), np.maximum(pre, 0), 0)
    if isinstance(rule, BatchTopKGate):
        return pre * (pre > rule.threshold)
    assert isinstance(rule, TopKGate)
    return top_k(pre, rule.k)


def evaluate(record: Record, x: Array, *, ddof: int = 1) -> Vectors:
    """Codes and reconstruction of a record by the definition of its fields."""
    z, shift, scale = x, 0.0, 1.0
    if record.input_norm == "layer_norm":
        shift, scale = x.mean(1, keepdims=True), x.std(1, ddof=ddof, keepdims=True)
        z = (x - shift) / (scale + 1e-5)
    elif record.input_norm == "constant_norm":
        scale = np.linalg.norm(x, axis=1, keepdims=True) / np.sqrt(x.shape[1])
        z = x / scale
    b_dec = number(record.b_dec)
    codes = gate(record, (z - b_dec if record.subtract_b_dec else z) @ number(record.W_enc).T)
    out = codes @ number(record.W_dec) + b_dec
    if record.W_skip is not None:
        out = out + z @ number(record.W_skip).T
    return Vectors(x, codes, out * scale + shift)


def worst(found: Array, wanted: Array) -> float:
    """Largest difference in a row, relative to the row's largest number where that is above 1."""
    return float((np.abs(found - wanted).max(1) / np.maximum(1, np.abs(wanted).max(1))).max())


def agrees(record: Record, wanted: Vectors) -> bool:
    """Codes and reconstruction within 1e-5, as a certificate asks."""
    found = evaluate(record, wanted.x)
    return max(worst(found.codes, wanted.codes), worst(found.reconstruction, wanted.reconstruction)) <= 1e-5
