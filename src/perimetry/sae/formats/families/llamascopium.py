"""Llamascopium (Language-Model-SAEs 2): `config.json` and `sae_weights.safetensors`, or `checkpoints/final.safetensors`.

`W_E` (d, n), `W_D` (n, d). The gate may compare p times the decoder norm, and codes are divided back. Activations are scaled by the
mean norm of a dataset, by token, or not at all where an export has folded the scale.
"""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from perimetry.artifact import read_safetensors
from perimetry.errors import CorruptArtifact, Incompatible, MissingFile
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
from perimetry.sae.formats.fold import fold_scale, fold_selection_norms
from perimetry.sae.formats.record import BatchTopKGate, Gate, InputNorm, JumpReLUGate, Record, ReLUGate, TopKGate
from perimetry.sae.formats.safety import require_names

__all__ = ["read", "recognises"]

CONFIG = "config.json"
PLACES = ("sae_weights", "checkpoints/pruned", "checkpoints/final")
"""Where the library looks, in its order."""
NAMES = {"W_E", "b_E", "W_D"}
LOGARITHM = "activation_function.log_jumprelu_threshold"
NORM = "dataset_average_activation_norm."


def _weights(path: Path) -> Path:
    """The file that the library itself would take. Errors: `MissingFile`, `Incompatible` for shards and pickles."""
    for place in PLACES:
        if (path / f"{place}.safetensors").is_file():
            return path / f"{place}.safetensors"
        for suffix, why in (
            (".pt", "a pickle; save_pretrained writes safetensors"),
            (".dcp", "shards of a distributed save"),
        ):
            if (path / f"{place}{suffix}").exists():
                raise Incompatible(
                    f"{path / place}{suffix} is {why}; {place}.safetensors is read; load it with the library and save it again"
                )
    raise MissingFile(f"no {PLACES[0]}.safetensors in {path}; give the folder of a dictionary")


def recognises(path: Path) -> bool:
    """A folder whose configuration names an `sae_type`, or whose weights are called W_E."""
    if not (path / CONFIG).is_file():
        return False
    if any(tensor_names(path / f"{place}.safetensors") >= NAMES for place in PLACES):
        return True
    return "sae_type" in read_object(path / CONFIG) and any(
        (path / f"{place}{suffix}").exists() for place in PLACES for suffix in (".dcp", ".pt")
    )


def _check(fields: Parts) -> None:
    kind = fields.need("sae_type", str)
    if kind != "sae":
        raise Incompatible(
            f"{fields.where}: sae_type {kind!r} (attention, cross-layer and mixture dictionaries are others); 'sae' is read; use "
            "another dictionary"
        )
    if fields.need("use_glu_encoder", bool):
        raise Incompatible(
            f"{fields.where}: use_glu_encoder multiplies each pre-activation by a second one, which no architecture here does; use "
            "another dictionary"
        )


def _relu(fields: Parts, stored: Mapping[str, Tensor], d_sae: int) -> Gate:  # noqa: ARG001
    return ReLUGate()


def _jumprelu(fields: Parts, stored: Mapping[str, Tensor], d_sae: int) -> Gate:
    threshold = per_latent(fields.where, stored[LOGARITHM].float().exp(), d_sae)
    if fields.need("norm_activation", str) == "inference":
        # The export rescales b_E, b_D and W_D; no release says that the threshold follows.
        threshold = threshold * float(fields.need("threshold_factor", (int, float)))
    return JumpReLUGate(threshold)


def _topk(fields: Parts, stored: Mapping[str, Tensor], d_sae: int) -> Gate:  # noqa: ARG001
    return TopKGate(fields.need("k", int, "top_k"))


def _batchtopk(fields: Parts, stored: Mapping[str, Tensor], d_sae: int) -> Gate:  # noqa: ARG001
    # The library goes on choosing by batch at inference; one threshold must take its place.
    return BatchTopKGate(fields.need("k", int, "top_k"), float(fields.need("threshold", (int, float))))


GATES: dict[str, Callable[[Parts, Mapping[str, Tensor], int], Gate]] = {
    "batchtopk": _batchtopk,
    "jumprelu": _jumprelu,
    "relu": _relu,
    "topk": _topk,
}


def _gated_by_norm(record: Record) -> Record:
    """The same choice for a record whose gate is of p times the decoder norm."""
    if isinstance(record.gate, JumpReLUGate):
        return record._replace(gate=JumpReLUGate(unweighted(record.gate.threshold, record.W_dec)))
    if isinstance(record.gate, TopKGate | BatchTopKGate):
        return fold_selection_norms(record).note("codes are p times the decoder norm; the library divides them back")
    return record


def _norms(fields: Parts, stored: Mapping[str, Tensor], hooks: tuple[str, str]) -> None:
    for name, hook in zip(("norm_in", "norm_out"), hooks, strict=True):
        value = stored.get(NORM + hook)
        fields.take("file", **{name: None if value is None else float(value)})


def _for_raw(record: Record, fields: Parts) -> Record:
    """The record for raw activations, by the normalisation that the configuration names."""
    norm = fields.need("norm_activation", str)
    if norm == "inference":
        return record
    if norm == "token-wise":
        if record.transcoder:
            raise Incompatible(
                f"{fields.where}: a transcoder with token-wise norms: the target's norm is not known at inference; use another"
            )
        kind: InputNorm = "constant_norm"
        return record._replace(input_norm=kind)
    if norm != "dataset-wise":
        raise Incompatible(
            f"{fields.where}: norm_activation {norm!r} depends on the other tokens of a batch; dataset-wise, token-wise or inference "
            "is read; use another dictionary"
        )
    scale = math.sqrt(record.d_in) / float(fields.need("norm_in", (int, float)))
    scale_out = math.sqrt(record.d_out) / float(fields.need("norm_out", (int, float)))
    return fold_scale(record, scale, scale_out).note(f"the scales {scale:.6g} and {scale_out:.6g} were folded")


def read(path: Path, overrides: Mapping[str, Any], *, unsafe_pickle: bool = False) -> Record:  # noqa: ARG001
    """A folder of Llamascopium as a record for raw activations.

    `threshold_factor` (JumpReLU in inference mode) multiplies the stored thresholds into the units of the exported weights; 1 takes them
    as they are, as the library does. Errors: `MissingFile`, `CorruptArtifact`, `NonFinite`, `Incompatible`.
    """
    fields = Parts(read_object(path / CONFIG), overrides, str(path / CONFIG))
    _check(fields)
    file = _weights(path)
    function = fields.need("act_fn", str).lower()
    if function not in GATES:
        raise Incompatible(
            f"{fields.where}: act_fn {function!r}; {', '.join(sorted(GATES))} are read; use another dictionary"
        )
    stored = read_safetensors(file)
    weights = {name: tensor for name, tensor in stored.items() if not name.startswith(NORM)}
    bias = fields.need("use_decoder_bias", bool)
    extra = ({"b_D"} if bias else set()) | ({LOGARITHM} if function == "jumprelu" else set())
    require_names(file, weights, NAMES | extra)
    tensors = {
        "W_enc": latent_major(str(file), weights, "W_E", transposed=True),
        "W_dec": latent_major(str(file), weights, "W_D"),
        "b_enc": weights["b_E"],
    }
    tensors["b_dec"] = weights["b_D"] if bias else torch.zeros(tensors["W_dec"].shape[1])
    wanted = fields.need("d_model", int)
    if tensors["W_enc"].shape[1] != wanted:
        raise CorruptArtifact(
            f"{file}: W_E reads width {tensors['W_enc'].shape[1]}, {CONFIG} says {wanted}; fetch both from one place"
        )
    first, last = fields.need("hook_name", str, "hook_point_in"), fields.need("hook_name_out", str, "hook_point_out")
    gate = GATES[function](fields, weights, tensors["W_enc"].shape[0])
    record = make_record("llamascopium", function, tensors, gate, files=(file, path / CONFIG), transcoder=first != last)
    if fields.need("sparsity_include_decoder_norm", bool):
        record = _gated_by_norm(record)
    _norms(fields, stored, (first, last))
    record = _for_raw(record, fields)
    fields.take("file", hook_name=first, hook_name_out=last if first != last else None)
    sources = fields.sources()
    return describe(record, fields, normalisation=sources.get("norm_in", sources["norm_activation"]))
