"""What a record must be before anything is built from it. Every refusal says what came, what was wanted, what to do."""

import torch
from torch import Tensor

from perimetry.errors import ConfigError, CorruptArtifact, Incompatible, NonFinite
from perimetry.sae.formats.record import (
    BatchTopKGate,
    GatedGate,
    JumpReLUGate,
    MatchingPursuitGate,
    NativeGate,
    Record,
    TopKGate,
)

__all__ = ["MAX_D", "MAX_WIDTH", "check_record", "check_sizes", "check_tensor", "clean_threshold", "warnings_of"]

MAX_D, MAX_WIDTH = 2**16, 2**24
UNIT = 1e-3
DEAD_SHARE = 0.2


def check_sizes(where: str, d_in: int, d_sae: int, d_out: int | None = None) -> None:
    """Refuse sizes that no dictionary has. Errors: `CorruptArtifact`."""
    widths = [d_in] if d_out is None else [d_in, d_out]
    if not all(1 <= d <= MAX_D for d in widths) or not 1 <= d_sae <= MAX_WIDTH:
        raise CorruptArtifact(
            f"{where}: width {' to '.join(map(str, widths))} and {d_sae} latents are out of range (1 to {MAX_D} and 1 to "
            f"{MAX_WIDTH}); fetch it again"
        )


def check_tensor(where: str, name: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
    """Refuse a tensor of another shape, of integers, or with NaN or infinity. Errors: `CorruptArtifact`, `NonFinite`."""
    if tuple(tensor.shape) != shape:
        hint = (
            ", which would fit transposed, but the family does not lay it that way"
            if _transposed(tensor, shape)
            else ""
        )
        raise CorruptArtifact(
            f"{where}: {name} has shape {tuple(tensor.shape)}, wanted {shape}{hint}; weights and header do not belong "
            "together; fetch or make it again"
        )
    if not tensor.is_floating_point():
        raise CorruptArtifact(f"{where}: {name} is {tensor.dtype}, a floating-point tensor was wanted; fetch it again")
    if not bool(torch.isfinite(tensor).all()):
        raise NonFinite(f"{where} holds NaN or infinity in {name!r}; finite numbers are wanted; fetch or make it again")


def _transposed(tensor: Tensor, shape: tuple[int, ...]) -> bool:
    return tensor.ndim == 2 and tuple(tensor.shape) == shape[::-1]


def clean_threshold(record: Record) -> Record:
    """Negative thresholds stored as 0, which is the same rule, with a note of how many."""
    gate = record.gate
    if not isinstance(gate, JumpReLUGate):
        return record
    below = int((gate.threshold < 0).sum())
    if not below:
        return record
    text = f"{below} negative thresholds are stored as 0, which is the same rule"
    return record._replace(gate=JumpReLUGate(gate.threshold.clamp(min=0))).note(text)


def _gate_tensors(record: Record) -> dict[str, Tensor]:
    gate = record.gate
    if isinstance(gate, JumpReLUGate):
        return {"threshold": gate.threshold}
    if isinstance(gate, GatedGate):
        return gate._asdict()
    return {}


def _check_gate(where: str, record: Record) -> None:
    gate = record.gate
    if isinstance(gate, TopKGate | BatchTopKGate) and not 1 <= gate.k <= record.d_sae:
        raise ConfigError(
            f"{where}: k = {gate.k} for a dictionary of {record.d_sae} latents; a k between 1 and {record.d_sae} is wanted; "
            "give it with --set k="
        )
    if isinstance(gate, BatchTopKGate):
        if gate.threshold == -1:
            raise Incompatible(
                f"{where}: the threshold is -1, which means that it was never fitted; a fitted one is wanted; train on, or give "
                "it with --set threshold="
            )
        if not torch.isfinite(torch.tensor(gate.threshold)):
            raise NonFinite(f"{where}: the threshold is {gate.threshold}; a finite number is wanted; fetch it again")
    if isinstance(gate, MatchingPursuitGate) and not (gate.max_iterations >= 1 and gate.residual_threshold >= 0):
        raise ConfigError(
            f"{where}: matching pursuit with residual_threshold {gate.residual_threshold} and max_iterations "
            f"{gate.max_iterations}; at least 0 and 1 are wanted; give them with --set"
        )


def check_record(record: Record) -> Record:
    """The record, when it is whole; thresholds below 0 are stored as 0.

    Errors: `CorruptArtifact` (sizes, shapes, all-zero weights), `NonFinite`, `ConfigError` (k), `Incompatible` (contradictions).
    """
    where = f"the {record.source.family} dictionary"
    check_sizes(where, record.d_in, record.d_sae, record.d_out)
    d_sae, d_in, d_out = record.d_sae, record.d_in, record.d_out
    wanted: list[tuple[str, Tensor | None, tuple[int, ...]]] = [
        ("W_enc", record.W_enc, (d_sae, d_in)),
        ("W_dec", record.W_dec, (d_sae, d_out)),
        ("b_enc", record.b_enc, (d_sae,)),
        ("b_dec", record.b_dec, (d_out,)),
        ("W_skip", record.W_skip, (d_out, d_in)),
        *((name, tensor, (d_sae,)) for name, tensor in _gate_tensors(record).items()),
    ]
    for name, tensor, shape in wanted:
        if tensor is not None:
            check_tensor(where, name, tensor, shape)
            if name in ("W_enc", "W_dec") and not bool(tensor.any()):
                raise CorruptArtifact(f"{where}: {name} is all zero, that is no trained SAE; fetch or make it again")
    encoderless = isinstance(record.gate, MatchingPursuitGate | NativeGate)
    if record.W_enc is None and not encoderless:
        raise CorruptArtifact(f"{where} has no W_enc, which {type(record.gate).__name__} needs; fetch it again")
    if record.b_enc is None and not (encoderless or isinstance(record.gate, GatedGate)):
        raise CorruptArtifact(f"{where} has no b_enc, which {type(record.gate).__name__} needs; fetch it again")
    if not record.transcoder and (d_in != d_out or record.W_skip is not None):
        raise Incompatible(
            f"{where} reads width {d_in}, writes {d_out}{' with a skip' if record.W_skip is not None else ''} but is no "
            "transcoder; say where its output belongs"
        )
    if record.transcoder and record.subtract_b_dec:
        raise Incompatible(
            f"{where} is a transcoder that takes b_dec off its input; b_dec belongs to the output there; check the file"
        )
    _check_gate(where, record)
    return clean_threshold(record)


def warnings_of(record: Record) -> list[str]:
    """What is not wrong but must not stay silent: lossy sources, rows that are not unit, an unknown BOS policy, dead latents."""
    found: list[str] = []
    if record.source.dtype not in ("float32", "float64"):
        found.append(f"the source is {record.source.dtype}: its numbers are rounded")
    norms = record.W_dec.norm(dim=1)
    away = int(((norms - 1).abs() > UNIT).sum())
    if away:
        found.append(f"{away} of {record.d_sae} decoder rows are not of norm 1; measures that assume it mislead")
    if "prepend_bos" not in record.policy:
        found.append("the source does not say whether texts began with BOS")
    dead = record.declared.dead
    if record.log_rates is not None:
        dead = float((record.log_rates <= -10).double().mean())
    if dead is not None and dead > DEAD_SHARE:
        found.append(f"{100 * dead:.0f} % of the latents never fired")
    return found
