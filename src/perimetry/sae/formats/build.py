"""From a record to an SAE that runs: one table from gates to architectures."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from perimetry.errors import Incompatible
from perimetry.sae import ARCHITECTURES
from perimetry.sae.base import AbstractSAE, SAEState
from perimetry.sae.formats.checks import check_record
from perimetry.sae.formats.record import (
    BatchTopKGate,
    Gate,
    GatedGate,
    JumpReLUGate,
    MatchingPursuitGate,
    NativeGate,
    Record,
    ReLUGate,
    TopKGate,
)
from perimetry.sae.formats.wrapped import EncoderOnlySAE, NormalisedSAE

__all__ = ["GATES", "to_sae"]

Extra = tuple[str, dict[str, Tensor], dict[str, Any]]
"""Architecture, tensors beside the weights, settings."""


def _native(gate: Gate) -> Extra:
    assert isinstance(gate, NativeGate), "the table says so"
    return gate.architecture, dict(gate.tensors), dict(gate.settings)


def _relu(gate: Gate) -> Extra:  # noqa: ARG001
    return "standard", {}, {}


def _jumprelu(gate: Gate) -> Extra:
    assert isinstance(gate, JumpReLUGate), "the table says so"
    return "jumprelu", {"threshold": gate.threshold}, {}


def _batchtopk(gate: Gate) -> Extra:
    assert isinstance(gate, BatchTopKGate), "the table says so"
    return "batchtopk", {}, {"k": gate.k, "threshold": gate.threshold}


def _topk(gate: Gate) -> Extra:
    assert isinstance(gate, TopKGate), "the table says so"
    return "topk", {}, {"k": gate.k}


def _gated(gate: Gate) -> Extra:
    assert isinstance(gate, GatedGate), "the table says so"
    # The bias of the gate is the encoder's there.
    return "gated", {"b_enc": gate.b_gate, "b_mag": gate.b_mag, "r_mag": gate.r_mag}, {}


def _matching_pursuit(gate: Gate) -> Extra:
    assert isinstance(gate, MatchingPursuitGate), "the table says so"
    return "matching_pursuit", {}, gate._asdict()


GATES: dict[type, Callable[[Gate], Extra]] = {
    BatchTopKGate: _batchtopk,
    GatedGate: _gated,
    JumpReLUGate: _jumprelu,
    MatchingPursuitGate: _matching_pursuit,
    NativeGate: _native,
    ReLUGate: _relu,
    TopKGate: _topk,
}
"""Gate -> architecture and what it needs beside the weights."""


def _weights(record: Record) -> dict[str, Tensor]:
    found = {"W_enc": record.W_enc, "W_dec": record.W_dec, "b_enc": record.b_enc, "b_dec": record.b_dec}
    found["W_skip"] = record.W_skip
    return {name: tensor.float().contiguous() for name, tensor in found.items() if tensor is not None}


def to_sae(record: Record) -> AbstractSAE:
    """The SAE of a record, for raw activations, float32, in evaluation mode.

    Errors: those of `check_record`; `Incompatible` where no architecture of ours has this gate.
    """
    record = check_record(record)
    name, tensors, settings = GATES[type(record.gate)](record.gate)
    if record.transcoder and not isinstance(record.gate, NativeGate):
        name, settings = "transcoder", {"gate": name, **settings}
    else:
        settings["subtract_b_dec"] = record.subtract_b_dec
    if name not in ARCHITECTURES:
        raise Incompatible(
            f"a {record.source.family} dictionary of kind {record.architecture!r} wants the architecture {name!r}, which is not "
            f"here; known: {', '.join(sorted(ARCHITECTURES))}; use another dictionary"
        )
    weights = _weights(record) | {key: tensor.float().contiguous() for key, tensor in tensors.items()}
    sae: AbstractSAE = ARCHITECTURES[name].restore(SAEState(weights, settings))
    if record.input_norm != "none":
        sae = NormalisedSAE(sae, record.input_norm)
    if not record.reconstructs:
        sae = EncoderOnlySAE(sae)
    return sae.requires_grad_(False).eval()  # noqa: FBT003
