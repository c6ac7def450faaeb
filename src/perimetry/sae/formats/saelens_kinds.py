"""The architectures of SAELens: what each has on disk, and the gate it means."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from torch import Tensor

from perimetry.errors import CorruptArtifact
from perimetry.sae.formats.fields import Fields
from perimetry.sae.formats.record import (
    BatchTopKGate,
    Gate,
    GatedGate,
    JumpReLUGate,
    MatchingPursuitGate,
    ReLUGate,
    TopKGate,
)

__all__ = ["KINDS", "REFUSED", "Kind"]

PLAIN = frozenset({"W_enc", "W_dec", "b_enc", "b_dec"})


class Kind(NamedTuple):
    """What an architecture of SAELens has on disk."""

    tensors: frozenset[str]
    """Names of its tensors."""
    gate: Callable[[Fields, Mapping[str, Tensor]], Gate]
    """Makes the gate of its fields and tensors."""
    transcoder: bool = False
    """Writes to another place than it reads."""
    by_norm: bool = False
    """May compare p times the decoder norm."""


def _relu(fields: Fields, tensors: Mapping[str, Tensor]) -> Gate:  # noqa: ARG001
    return ReLUGate()


def _jumprelu(fields: Fields, tensors: Mapping[str, Tensor]) -> Gate:  # noqa: ARG001
    return JumpReLUGate(tensors["threshold"].float())


def _topk(fields: Fields, tensors: Mapping[str, Tensor]) -> Gate:  # noqa: ARG001
    return TopKGate(fields.need("k", int))


def _gated(fields: Fields, tensors: Mapping[str, Tensor]) -> Gate:  # noqa: ARG001
    return GatedGate(tensors["b_gate"].float(), tensors["b_mag"].float(), tensors["r_mag"].float())


def _batchtopk(fields: Fields, tensors: Mapping[str, Tensor]) -> Gate:
    if tensors["topk_threshold"].numel() != 1:
        raise CorruptArtifact(f"{fields.where}: topk_threshold is no single number; fetch the checkpoint again")
    return BatchTopKGate(max(1, round(fields.need("k", (int, float)))), float(tensors["topk_threshold"]))


def _matching_pursuit(fields: Fields, tensors: Mapping[str, Tensor]) -> Gate:  # noqa: ARG001
    iterations = fields.file.get("max_iterations", 0)
    if iterations is None and "max_iterations" in fields.file and "max_iterations" not in fields.overrides:
        # Null is a value there: as many as the input is wide.
        fields.file["max_iterations"] = fields.need("d_in", int)
    return MatchingPursuitGate(
        float(fields.need("residual_threshold", (int, float))),
        fields.need("max_iterations", int),
        fields.need("stop_on_duplicate_support", bool),
    )


def _kind(*extra: str, gate: Any, base: frozenset[str] = PLAIN, **more: Any) -> Kind:
    return Kind(base | set(extra), gate, **more)


KINDS: dict[str, Kind] = {
    "batchtopk": _kind("topk_threshold", gate=_batchtopk, by_norm=True),
    "gated": _kind("b_gate", "b_mag", "r_mag", gate=_gated, base=PLAIN - {"b_enc"}),
    "jumprelu": _kind("threshold", gate=_jumprelu),
    "jumprelu_skip_transcoder": _kind("threshold", "W_skip", gate=_jumprelu, transcoder=True),
    "jumprelu_transcoder": _kind("threshold", gate=_jumprelu, transcoder=True),
    "matching_pursuit": _kind(gate=_matching_pursuit, base=PLAIN - {"W_enc", "b_enc"}),
    "matryoshka_batchtopk": _kind("topk_threshold", gate=_batchtopk, by_norm=True),
    "skip_transcoder": _kind("W_skip", gate=_relu, transcoder=True),
    "standard": _kind(gate=_relu),
    "topk": _kind(gate=_topk, by_norm=True),
    "transcoder": _kind(gate=_relu, transcoder=True),
}
"""Architecture -> what it has. Those with `topk_threshold` exist in training checkpoints only."""
REFUSED = {
    "abstopk": "its codes are signed, which no architecture here has",
    "temporal": "its decoder gives the novel part only, which is no reconstruction",
}
