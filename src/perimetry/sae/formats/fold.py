"""Folding: what is affine and global goes into the weights; reconstructions stay what they were.

With z = s x the input that the encoder was trained on: `W_enc` times s, `W_dec` and `b_dec` over the scale of the output, `b_enc`
and the thresholds as they are. Codes keep their numbers, save where a function says otherwise.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from perimetry.errors import Incompatible
from perimetry.sae.formats.record import (
    BatchTopKGate,
    Gate,
    GatedGate,
    JumpReLUGate,
    MatchingPursuitGate,
    Record,
    ReLUGate,
    TopKGate,
)

__all__ = ["fold_decoder_norms", "fold_scale", "fold_selection_norms", "fold_whitening"]


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise Incompatible(message)


def _positive(value: float, what: str) -> None:
    _require(math.isfinite(value) and value > 0, f"{what} of {value}; a positive finite number is wanted; give it")


def fold_scale(record: Record, scale: float, scale_out: float | None = None) -> Record:
    """A record for x from one for `scale * x`, whose output is `scale_out` times the wanted one.

    `scale_out` None is `scale`, right for autoencoders; a transcoder's target has a scale of its own, which must be given. The
    codes of matching pursuit, whose decoder rows choose, become 1 / scale of what they were. Errors: `Incompatible`.
    """
    _positive(scale, "an input scale")
    if scale_out is None:
        _require(
            not record.transcoder,
            "a transcoder whose output scale is not given; input and target are scaled apart; give both",
        )
        scale_out = scale
    _positive(scale_out, "an output scale")
    _require(
        record.input_norm == "none" or scale == scale_out == 1,
        f"a scale beside {record.input_norm}; only one of them can be meant; say which",
    )
    if isinstance(record.gate, MatchingPursuitGate):
        gate = record.gate._replace(residual_threshold=record.gate.residual_threshold / scale)
        return record._replace(gate=gate, b_dec=record.b_dec / scale)
    return record._replace(
        W_enc=None if record.W_enc is None else record.W_enc * scale,
        W_dec=record.W_dec / scale_out,
        b_dec=record.b_dec / scale_out,
        W_skip=None if record.W_skip is None else record.W_skip * (scale / scale_out),
    )


def _shifted(record: Record, shift: Tensor) -> tuple[Gate, Tensor | None]:
    """Gate and `b_enc` when the encoder product loses `shift` in each latent."""
    gate = record.gate
    if isinstance(gate, GatedGate):
        magnitude = (gate.b_mag.double() - gate.r_mag.double().exp() * shift).float()
        return gate._replace(b_gate=(gate.b_gate.double() - shift).float(), b_mag=magnitude), record.b_enc
    assert record.b_enc is not None, "every gate but gated has a bias"
    return gate, (record.b_enc.double() - shift).float()


def fold_whitening(
    record: Record,
    mean: Float[Tensor, " d_in"],
    matrix: Float[Tensor, "d_in d_in"],
    inverse: Float[Tensor, "d_in d_in"],
) -> Record:
    """A record for x from one for z = (x - mean) matrix, whose output is taken back by `inverse`; computed in float64.

    Errors: `Incompatible` for transcoders, matching pursuit, and matrices that are not each other's inverse.
    """
    m, back, mu = matrix.double(), inverse.double(), mean.double()
    eye = torch.eye(m.shape[0], dtype=torch.float64)
    _require(
        record.W_enc is not None and not record.transcoder and record.input_norm == "none",
        "a whitening beside a transcoder, matching pursuit or another normalisation; it can go into the weights of an autoencoder "
        "only; whiten the activations before instead",
    )
    assert record.W_enc is not None, "just required"
    _require(
        bool(((m @ back - eye).abs() < 1e-3).all()),
        "the whitening and its inverse are not each other's inverse; fetch both from the same run",
    )
    encoder = record.W_enc.double() @ m.T
    # Where b_dec is subtracted, x less the new b_dec is exactly (z - b_dec) inverse: the mean cancels.
    gate, bias = (record.gate, record.b_enc) if record.subtract_b_dec else _shifted(record, encoder @ mu)
    return record._replace(
        W_enc=encoder.float(),
        b_enc=bias,
        gate=gate,
        W_dec=(record.W_dec.double() @ back).float(),
        b_dec=(record.b_dec.double() @ back + mu).float(),
    )


def _norms(record: Record) -> Tensor:
    norms = record.W_dec.double().norm(dim=1)
    return torch.where(norms > 0, norms, torch.ones_like(norms))


def _times(tensor: Tensor, norms: Tensor) -> Tensor:
    return (tensor.double() * (norms[:, None] if tensor.ndim == 2 else norms)).float()


def _scaled_gate(gate: Gate, norms: Tensor) -> Gate:
    if isinstance(gate, ReLUGate):
        return gate
    if isinstance(gate, JumpReLUGate):
        return JumpReLUGate(_times(gate.threshold, norms))
    if isinstance(gate, BatchTopKGate):
        return JumpReLUGate((norms * gate.threshold).float())
    if isinstance(gate, GatedGate):
        return gate._replace(b_gate=_times(gate.b_gate, norms), b_mag=_times(gate.b_mag, norms))
    raise Incompatible(
        f"the gate {type(gate).__name__} chooses latents by their size, which another decoder norm would change; keep the "
        "norms as they are"
    )


def _folded(record: Record, gate: Gate) -> Record:
    norms = _norms(record)
    assert record.W_enc is not None, "only matching pursuit has no encoder"
    return record._replace(
        W_enc=_times(record.W_enc, norms),
        b_enc=None if record.b_enc is None else _times(record.b_enc, norms),
        W_dec=(record.W_dec.double() / norms[:, None]).float(),
        gate=gate,
    )


def fold_decoder_norms(record: Record) -> Record:
    """Unit decoder rows; codes are multiplied by the norms that the rows had. Rows of norm 0 stay.

    Exact for ReLU, gated and thresholds. Errors: `Incompatible` for TopK, matching pursuit and gates unknown here, whose choice
    of latents would change.
    """
    gate = _scaled_gate(record.gate, _norms(record))
    return _folded(record, gate).note("decoder norms folded into the encoder; codes are in units of unit rows")


def fold_selection_norms(record: Record) -> Record:
    """Unit decoder rows for a TopK or a threshold whose comparison is of p times the decoder norm, not of p itself.

    The threshold of the record, of a gate that compares p times the norm, is in those units and stays. Codes become p times the norm.
    Errors: `Incompatible` for other gates.
    """
    gate = record.gate
    _require(
        isinstance(gate, TopKGate | JumpReLUGate | BatchTopKGate),
        f"a selection by decoder norm with the gate {type(gate).__name__}; TopK or a threshold is wanted; check the file",
    )
    return _folded(record, gate).note(
        "latents are compared by p times decoder norm; the norms were folded into the encoder"
    )
