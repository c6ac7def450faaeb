"""SAEs of ours in the layout of SAELens 6, where it has a kind that is the same at inference.

Every field is emitted, for SAELens puts silent defaults in the place of missing ones; extras go into the metadata, for unknown keys
at the top are dropped; the stamp is always there, for a file without one is read by the rules of version 5.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from perimetry import __version__
from perimetry.errors import CorruptArtifact
from perimetry.sae import ARCHITECTURES
from perimetry.sae.affine import AffineSAE
from perimetry.sae.base import AbstractSAE, SAEState
from perimetry.sae.formats.info import SAEInfo
from perimetry.sae.formats.record import GatedGate, JumpReLUGate, Record
from perimetry.sae.formats.saelens_kinds import KINDS
from perimetry.sae.formats.wrapped import NormalisedSAE

__all__ = ["EXPORT_NAMES", "SAELENS_VERSION", "Exported", "export_saelens", "own_state"]

SAELENS_VERSION = "6.54.12"
"""The release whose format this is."""
EXPORT_NAMES = {
    "batchtopk": "jumprelu",
    "gated": "gated",
    "hierarchical": "topk",
    "jumprelu": "jumprelu",
    "matching_pursuit": "matching_pursuit",
    "matryoshka": "jumprelu",
    "standard": "standard",
    "topk": "topk",
}
"""Architecture -> the kind of SAELens that gives the same codes."""
TRANSCODERS = {("standard", False): "transcoder", ("standard", True): "skip_transcoder"} | {
    (gate, skip): f"jumprelu_{'skip_' * skip}transcoder" for gate in ("jumprelu", "batchtopk") for skip in (False, True)
}
"""Gate and skip -> the kind of SAELens."""


class Exported(NamedTuple):
    """An SAE in the words of SAELens."""

    tensors: dict[str, Tensor]
    """`sae_weights.safetensors`."""
    config: dict[str, Any]
    """`cfg.json`."""


def _hooks(info: SAEInfo) -> dict[str, Any]:
    found: dict[str, Any] = {
        "hook_name": info.hook_name or (None if info.layer is None else f"blocks.{info.layer}.hook_resid_post"),
        "hf_hook_name": info.hf_hook_name,
    }
    if info.hook_name_out or info.hf_hook_name_out:
        found |= {"hook_name_out": info.hook_name_out, "hf_hook_name_out": info.hf_hook_name_out}
    hook = None if info.origin is None else info.origin.hook
    if hook is not None and hook.head_index is not None:
        found["hook_head_index"] = hook.head_index
    if hook is not None and (hook.name_out or hook.hf_name_out):
        found |= {"hook_name_out": hook.name_out, "hf_hook_name_out": hook.hf_name_out}
    return found


def _metadata(sae: AbstractSAE, details: Mapping[str, Any], info: SAEInfo) -> dict[str, Any]:
    return {
        "sae_lens_version": SAELENS_VERSION,
        "sae_lens_training_version": SAELENS_VERSION,
        "perimetry_version": __version__,
        "model_name": info.model,
        "model_class_name": info.model_class,
        **_hooks(info),
        "context_size": info.context_size,
        "prepend_bos": info.policy.get("prepend_bos"),
        "exclude_special_tokens": info.policy.get("exclude_special"),
        "dataset_path": info.dataset,
        "model_from_pretrained_kwargs": {},
        "neuronpedia_id": None,
        "training_architecture": sae.architecture,
        "training_architecture_details": dict(details),
        "perimetry": info.model_dump(mode="json", exclude={"digest"}),
    }


def _kind_name(architecture: str, state: SAEState) -> str | None:
    if state.settings.get("select_by_norm"):
        # The cut is of p times the decoder norm, which no kind at inference there knows.
        return None
    if architecture == "transcoder":
        return TRANSCODERS.get((str(state.settings.get("gate")), "W_skip" in state.tensors))
    return EXPORT_NAMES.get(architecture)


def _tensors(name: str, state: SAEState) -> dict[str, Tensor] | None:
    """The tensors of a kind, or None where the state holds others, which would be lost."""
    found = {key: tensor.detach().float() for key, tensor in state.tensors.items()}
    wanted = KINDS[name].tensors
    if name == "gated":
        found["b_gate"] = found.pop("b_enc")
    if "threshold" in wanted and "threshold" not in found:
        if "threshold" not in state.settings and state.settings.get("gate") == "standard":
            return None
        found["threshold"] = torch.full((found["W_dec"].shape[0],), float(state.settings.get("threshold", 0.0)))
    if found.keys() != wanted:
        return None
    if "threshold" in found:
        found["threshold"] = found["threshold"].clamp(min=0)
    return found | ({"W_enc": found["W_enc"].T} if "W_enc" in found else {})


def _more(name: str, state: SAEState) -> dict[str, Any]:
    """The fields that only this kind has."""
    if name == "topk":
        return {"k": int(state.settings["k"]), "rescale_acts_by_decoder_norm": False}
    if name == "matching_pursuit":
        keys = ("residual_threshold", "max_iterations", "stop_on_duplicate_support")
        return {key: state.settings[key] for key in keys}
    if KINDS[name].transcoder:
        return {"d_out": state.tensors["b_dec"].shape[0]}
    return {}


def export_saelens(sae: AbstractSAE, info: SAEInfo) -> Exported | None:
    """Tensors and configuration for SAELens, or None where it has no kind that holds all of this SAE."""
    inner, norm = sae, "none"
    if isinstance(sae, NormalisedSAE):
        if sae.norm != "layer_norm" or sae.inner.architecture == "transcoder":
            return None
        inner, norm = sae.inner, "layer_norm"
    state = inner.state()
    name = _kind_name(inner.architecture, state)
    tensors = None if name is None else _tensors(name, state)
    if name is None or tensors is None:
        return None
    details = dict(sae.state().settings)
    if isinstance(sae, AffineSAE):
        details.pop("subtract_b_dec", None)
    reshape = "none" if info.origin is None else info.origin.hook.reshape
    config: dict[str, Any] = {
        "architecture": name,
        "d_in": tensors["W_enc"].shape[0] if "W_enc" in tensors else sae.d_model,
        "d_sae": sae.d_sae,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": bool(state.settings.get("subtract_b_dec", False)) and not KINDS[name].transcoder,
        "normalize_activations": norm,
        "reshape_activations": reshape,
        "metadata": _metadata(sae, details, info),
    }
    return Exported(tensors, config | _more(name, state))


def own_state(where: str, record: Record, native: str, details: Mapping[str, Any]) -> SAEState:
    """The state of an SAE of ours that SAELens' layout holds as `record`. Errors: `CorruptArtifact`."""
    if native == "normalised":
        inner = own_state(where, record, str(details.get("inner")), details.get("settings") or {})
        return SAEState(inner.tensors, {**details, "settings": inner.settings})
    weights = {"W_enc": record.W_enc, "W_dec": record.W_dec, "b_enc": record.b_enc, "b_dec": record.b_dec}
    weights["W_skip"] = record.W_skip
    tensors = {key: tensor for key, tensor in weights.items() if tensor is not None}
    settings = dict(details)
    if issubclass(ARCHITECTURES[native], AffineSAE):
        settings.setdefault("subtract_b_dec", record.subtract_b_dec)
    gate = record.gate
    if isinstance(gate, JumpReLUGate) and (native in ("batchtopk", "matryoshka") or "threshold" in details):
        if not isinstance(details.get("k"), int) or bool((gate.threshold != gate.threshold[0]).any()):
            raise CorruptArtifact(
                f"{where}: a {native} SAE has a k and one common threshold; this one does not; make it again"
            )
        settings["threshold"] = float(gate.threshold[0])
    elif isinstance(gate, JumpReLUGate):
        tensors["threshold"] = gate.threshold
    elif isinstance(gate, GatedGate):
        tensors |= {"b_enc": gate.b_gate, "b_mag": gate.b_mag, "r_mag": gate.r_mag}
    return SAEState(tensors, settings)
