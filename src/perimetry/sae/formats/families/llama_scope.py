"""Llama Scope: `hyperparams.json` and `checkpoints/final.safetensors`; its R1-distill kind: `config.json` and `sae_weights.safetensors`.

JumpReLU on activations of mean norm sqrt(d). The one threshold is multiplied by the scale of the input, as the authors corrected it
(SAELens pull request 483); a literal reading would not, so that the mean active count must be held against the declared one.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from perimetry.errors import Incompatible
from perimetry.sae.formats.checks import UNIT
from perimetry.sae.formats.families.common import (
    Parts,
    describe,
    latent_major,
    make_record,
    per_latent,
    read_object,
    tensor_names,
    unweighted,
)
from perimetry.sae.formats.fold import fold_scale
from perimetry.sae.formats.record import JumpReLUGate, Record
from perimetry.sae.formats.safety import read_tensors

__all__ = ["read", "recognises"]

OLD, NEW = ("hyperparams.json", "checkpoints/final.safetensors"), ("config.json", "sae_weights.safetensors")
NAMES = {"encoder.weight", "encoder.bias", "decoder.weight", "decoder.bias"}
LOGARITHM = "log_jumprelu_threshold"


def recognises(path: Path) -> bool:
    """A folder with both files of either kind, its tensors called encoder and decoder."""
    if (path / OLD[0]).is_file():
        return (path / OLD[1]).is_file()
    return (path / NEW[0]).is_file() and LOGARITHM in tensor_names(path / NEW[1])


def _fields(config: Path, overrides: Mapping[str, Any]) -> Parts:
    """The configuration, with both norms as fields of their own."""
    document = read_object(config)
    norms = document.pop("dataset_average_activation_norm", None)
    fields = Parts(document, overrides, str(config))
    if isinstance(norms, dict):
        fields.take("file", norm_in=norms.get("in"), norm_out=norms.get("out"))
    return fields


def _check(fields: Parts) -> None:
    for name, wanted in (
        ("act_fn", "jumprelu"),
        ("norm_activation", "dataset-wise"),
        ("use_glu_encoder", False),
        ("apply_decoder_bias_to_pre_encoder", False),
        ("use_decoder_bias", True),
    ):
        value = fields.may(name, (str, bool))
        if value is not None and (value.lower() if isinstance(value, str) else value) != wanted:
            raise Incompatible(
                f"{fields.where}: {name} is {value!r}, {wanted!r} is what this family has; use another dictionary"
            )


def _threshold(fields: Parts, stored: Mapping[str, Tensor], W_dec: Tensor, scale: float) -> JumpReLUGate:
    """In units of the scaled input, for p itself."""
    where = fields.where
    if LOGARITHM in stored:
        threshold = per_latent(where, stored[LOGARITHM].float().exp(), W_dec.shape[0])
    else:
        fields.take("family", threshold_units="raw")
        units = fields.need("threshold_units", str)
        if units not in ("raw", "scaled"):
            raise Incompatible(f"{where}: threshold_units {units!r}; 'raw' (times the scale) or 'scaled' (as it is)")
        value = float(fields.need("jump_relu_threshold", (int, float)))
        threshold = per_latent(where, value * (scale if units == "raw" else 1.0), W_dec.shape[0])
    if bool(((W_dec.float().norm(dim=1) - 1).abs() <= UNIT).all()):
        fields.take("family", sparsity_include_decoder_norm=False)  # of no consequence with unit rows
    weighted = fields.need("sparsity_include_decoder_norm", bool)
    return JumpReLUGate(unweighted(threshold, W_dec) if weighted else threshold)


def read(path: Path, overrides: Mapping[str, Any], *, unsafe_pickle: bool = False) -> Record:  # noqa: ARG001
    """A folder of Llama Scope as a record for raw activations.

    Errors: `MissingFile`, `CorruptArtifact` (a scale that nobody gives among them), `NonFinite`, `Incompatible`.
    """
    old = (path / OLD[0]).is_file()
    config, file = (path / name for name in (OLD if old else NEW))
    fields = _fields(config, overrides)
    _check(fields)
    stored = read_tensors(file, NAMES if old else NAMES | {LOGARITHM})
    tensors = {
        "W_enc": latent_major(str(file), stored, "encoder.weight"),
        "W_dec": latent_major(str(file), stored, "decoder.weight", transposed=True),
        "b_enc": stored["encoder.bias"],
        "b_dec": stored["decoder.bias"],
    }
    d_in = fields.need("d_model", int)
    root = math.sqrt(d_in)
    first, last = fields.need("hook_name", str, "hook_point_in"), fields.need("hook_name_out", str, "hook_point_out")
    scale = root / float(fields.need("norm_in", (int, float)))
    transcoder = first != last
    # An autoencoder has one scale; a transcoder's target has its own, and the input's would inflate the output.
    scale_out = root / float(fields.need("norm_out", (int, float))) if transcoder else scale
    gate = _threshold(fields, stored, tensors["W_dec"], scale)
    record = make_record("llama_scope", "jumprelu", tensors, gate, files=(file, config), transcoder=transcoder)
    if record.d_in != d_in:
        raise Incompatible(f"{config} says d_model {d_in}, the weights read {record.d_in}; fetch both from one place")
    record = fold_scale(record, scale, scale_out).note(f"the scale {scale:.6g} of the input was folded")
    if transcoder:
        record = record.note(f"the scale {scale_out:.6g} of the output was folded")
    fields.take(
        "file", hook_name=first, hook_name_out=last if transcoder else None, l0=fields.may("top_k", (int, float))
    )
    fields.take("family", model_name="meta-llama/Llama-3.1-8B", context_size=1024)
    return describe(record, fields, normalisation=fields.sources()["norm_in"])
