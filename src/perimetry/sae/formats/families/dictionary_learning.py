"""dictionary_learning: `trainer_i/ae.pt` (a pickle) and `trainer_i/config.json`, or `trainer_i/checkpoints/ae_STEP.pt`.

Each class has its own names, its own rule on `b_dec` and its own gate. The scale of the activations is in the biases and thresholds
already when a training has ended; the backup of an interrupted one is refused.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from perimetry.errors import CorruptArtifact, Incompatible, UnknownName
from perimetry.sae.formats.families.common import Parts, describe, in_path, latent_major, make_record, read_object
from perimetry.sae.formats.fold import fold_decoder_norms
from perimetry.sae.formats.isolated import open_pickle
from perimetry.sae.formats.record import BatchTopKGate, Gate, GatedGate, JumpReLUGate, Record, ReLUGate, TopKGate
from perimetry.sae.formats.safety import require_names

__all__ = ["read", "recognises"]

WEIGHTS, CONFIG = "ae.pt", "config.json"
Tensors = Mapping[str, Tensor]


class Kind(NamedTuple):
    """One class of the library."""

    tensors: frozenset[str]
    """Exactly the tensors that it has."""
    b_dec: str
    """Name of the decoder's bias."""
    subtract: bool
    """Whether that is taken off the input."""
    gate: Callable[[Parts, Tensors], Gate]
    """The rule at inference."""
    linear: bool = True
    """`encoder.weight` (n, d) and `decoder.weight` (d, n); otherwise `W_enc` (d, n) and `W_dec` (n, d)."""


def _relu(fields: Parts, tensors: Tensors) -> Gate:  # noqa: ARG001
    return ReLUGate()


def _gated(fields: Parts, tensors: Tensors) -> Gate:  # noqa: ARG001
    names = ("gate_bias", "mag_bias", "r_mag")
    return GatedGate(*(tensors[name].float() for name in names))


def _jumprelu(fields: Parts, tensors: Tensors) -> Gate:  # noqa: ARG001
    return JumpReLUGate(tensors["threshold"].float())


def _k(fields: Parts, tensors: Tensors) -> int:
    stored, k = int(tensors["k"]), fields.need("k", int)
    if k != stored and "k" not in fields.overrides:
        raise CorruptArtifact(
            f"{fields.where}: k is {k}, the weights say {stored}; one of them is wrong; give the right one with --set k="
        )
    return k


def _threshold(fields: Parts, tensors: Tensors) -> Gate:
    k = _k(fields, tensors)
    fields.take("file", threshold=float(tensors["threshold"]))
    threshold = float(fields.need("threshold", (int, float)))
    if threshold == -1:
        raise Incompatible(
            f"{fields.where}: the threshold is -1, which means that it was never tracked; without it the active count of a token "
            "depends on the batch; train past its threshold_start_step, or give it with --set threshold="
        )
    if threshold < 0:
        raise CorruptArtifact(
            f"{fields.where}: the threshold is {threshold}; it is a mean of activations, at least 0 is wanted; fetch it again, or "
            "give it with --set threshold="
        )
    return BatchTopKGate(k, threshold)


def _topk(fields: Parts, tensors: Tensors) -> Gate:
    fields.take("family", use_threshold=False)  # the library's own default
    return _threshold(fields, tensors) if fields.need("use_threshold", bool) else TopKGate(_k(fields, tensors))


ENCODER = frozenset({"encoder.weight", "encoder.bias", "decoder.weight"})
TOPK = ENCODER | {"b_dec", "k", "threshold"}
MATRICES = frozenset({"W_enc", "b_enc", "W_dec", "b_dec", "threshold"})
CLASSES: dict[str, Kind] = {
    "AutoEncoder": Kind(ENCODER | {"bias"}, "bias", subtract=True, gate=_relu),
    "AutoEncoderNew": Kind(ENCODER | {"decoder.bias"}, "decoder.bias", subtract=False, gate=_relu),
    "AutoEncoderTopK": Kind(TOPK, "b_dec", subtract=True, gate=_topk),
    "BatchTopKSAE": Kind(TOPK, "b_dec", subtract=True, gate=_threshold),
    "GatedAutoEncoder": Kind(
        frozenset({"encoder.weight", "decoder.weight", "decoder_bias", "r_mag", "gate_bias", "mag_bias"}),
        "decoder_bias",
        subtract=True,
        gate=_gated,
    ),
    "JumpReluAutoEncoder": Kind(MATRICES, "b_dec", subtract=False, gate=_jumprelu, linear=False),
    "MatryoshkaBatchTopKSAE": Kind(
        MATRICES | {"k", "group_sizes"}, "b_dec", subtract=True, gate=_threshold, linear=False
    ),
}


def _files(path: Path) -> tuple[Path, Path]:
    """Weights and configuration of a folder, of its `ae.pt`, or of a checkpoint of it."""
    if path.is_dir():
        return path / WEIGHTS, path / CONFIG
    folder = path.parent.parent if path.parent.name == "checkpoints" else path.parent
    return path, folder / CONFIG


def recognises(path: Path) -> bool:
    """Weights called `ae*.pt` whose configuration names a trainer."""
    weights, config = _files(path)
    if not (weights.is_file() and config.is_file() and weights.name.startswith("ae") and weights.suffix == ".pt"):
        return False
    trainer = read_object(config).get("trainer")
    return isinstance(trainer, dict) and "dict_class" in trainer


def _state(weights: Path, kind: Kind, *, unsafe_pickle: bool) -> dict[str, Tensor]:
    found = open_pickle(weights, unsafe_pickle=unsafe_pickle)
    if any(name.startswith(("ae.", "optimizer.")) for name in found.tensors):
        step = found.plain.get("step") if isinstance(found.plain, dict) else None
        raise Incompatible(
            f"{weights} is the backup of an interrupted training (step {step}), with biases in scaled units and the state of an "
            "optimiser; a finished ae.pt or a checkpoints/ae_STEP.pt is wanted; end the training"
        )
    return require_names(weights, found.tensors, kind.tensors)


def _tensors(where: str, kind: Kind, stored: Tensors) -> dict[str, Tensor]:
    if kind.linear:
        found = {
            "W_enc": latent_major(where, stored, "encoder.weight"),
            "W_dec": latent_major(where, stored, "decoder.weight", transposed=True),
        } | ({"b_enc": stored["encoder.bias"]} if "encoder.bias" in stored else {})
    else:
        found = {
            "W_enc": latent_major(where, stored, "W_enc", transposed=True),
            "W_dec": latent_major(where, stored, "W_dec"),
            "b_enc": stored["b_enc"],
        }
    return found | {"b_dec": stored[kind.b_dec]}


def _sizes(fields: Parts, tensors: Tensors) -> None:
    wanted = (fields.need("dict_size", int), fields.need("activation_dim", int))
    if tuple(tensors["W_enc"].shape) != wanted:
        raise CorruptArtifact(
            f"{fields.where}: the encoder has shape {tuple(tensors['W_enc'].shape)} (latents, width), the configuration says "
            f"{wanted}; weights and configuration do not belong together; fetch them again"
        )


def _hook(fields: Parts, buffer: Mapping[str, Any]) -> str | None:
    """Give the fields the hook of a residual stream; a note where the configuration names another place."""
    layer, name = fields.file.get("layer"), fields.may("submodule_name", str)
    if name == f"resid_post_layer_{layer}" and buffer.get("io", "out") == "out":
        fields.take("file", hook_name=f"blocks.{layer}.hook_resid_post")
        return None
    return f"submodule {name!r} of layer {layer}, io {buffer.get('io')!r}: no rule says which module that is; give --set hook_name="


def _groups(stored: Tensors, d_sae: int) -> dict[str, Any]:
    if "group_sizes" not in stored:
        return {}
    sizes = stored["group_sizes"].tolist()
    if sum(sizes) != d_sae or min(sizes) < 1:
        raise CorruptArtifact(f"group_sizes {sizes} are not the parts of {d_sae} latents; fetch it again")
    return {"architecture": "matryoshka", "details": {"widths": torch.tensor(sizes).cumsum(0).tolist()}}


def read(path: Path, overrides: Mapping[str, Any], *, unsafe_pickle: bool = False) -> Record:
    """A trainer's folder, its `ae.pt` or a checkpoint, as a record.

    An `AutoEncoder` comes with unit decoder rows, as its own loader makes it; `fold_decoder_norms = false` keeps the norms. Errors:
    `UnsafeFormat` without `unsafe_pickle`, `CorruptArtifact`, `NonFinite`, `Incompatible`, `UnknownName`, `ConfigError`.
    """
    weights, config = _files(path)
    document = read_object(config)
    trainer, buffer = document.get("trainer"), document.get("buffer")
    buffer = buffer if isinstance(buffer, dict) else {}
    fields = Parts(trainer if isinstance(trainer, dict) else {}, overrides, f"{config}, trainer")
    name = fields.need("dict_class", str)
    if name not in CLASSES:
        raise UnknownName("class of dictionary_learning", name, CLASSES)
    kind = CLASSES[name]
    stored = _state(weights, kind, unsafe_pickle=unsafe_pickle)
    tensors = _tensors(str(weights), kind, stored)
    _sizes(fields, tensors)
    record = make_record(
        "dictionary_learning",
        name,
        tensors,
        kind.gate(fields, stored),
        files=(weights, config),
        subtract=kind.subtract,
    )
    record = record._replace(training=_groups(stored, record.d_sae))
    if name == "AutoEncoder":
        fields.take("family", fold_decoder_norms=True)
        if fields.need("fold_decoder_norms", bool):
            record = fold_decoder_norms(record)
    note = _hook(fields, buffer)
    step = in_path(weights, r"^ae_(\d+)\.pt$") if weights.parent.name == "checkpoints" else None
    notes = [n for n in (note, f"a checkpoint of step {step.group(1)}" if step else None) if n]
    fields.take("file", model_name=fields.file.get("lm_name"), context_size=buffer.get("ctx_len"))
    return describe(record.note(*notes), fields)
