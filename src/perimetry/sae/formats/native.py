"""The native format: every architecture of ours as it is, for what no other format can hold.

`dictionary.safetensors` has the tensors of `AbstractSAE.state()`, latent-major; `dictionary.json` the architecture, its settings, and
what is known of it. Readers refuse another major version and keep fields of a newer minor one.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from perimetry import __version__
from perimetry.config import build
from perimetry.errors import CorruptArtifact, Incompatible, UnknownName
from perimetry.sae import ARCHITECTURES
from perimetry.sae.base import AbstractSAE, SAEState
from perimetry.sae.formats.checks import check_sizes
from perimetry.sae.formats.info import SAEInfo
from perimetry.sae.formats.wrapped import WRAPPERS

__all__ = ["DICTIONARY", "NATIVE_SCHEMA", "native_document", "restore_native"]

DICTIONARY = "dictionary"
NATIVE_SCHEMA = "1.0"
KNOWN = {"schema", "perimetry_version", "architecture", "settings", "count_mode", "units", "info"}
UNITS = {
    "threshold": "pre-activations of raw activations",
    "b_gate": "pre-activations of raw activations",
    "residual_threshold": "norm of raw activations less b_dec",
}


class NativeParts(NamedTuple):
    """What a native document and its tensors make."""

    sae: AbstractSAE
    """Not yet in evaluation mode."""
    info: SAEInfo
    """Where it comes from."""


def native_document(sae: AbstractSAE, state: SAEState, info: SAEInfo) -> dict[str, Any]:
    """`dictionary.json` of an SAE."""
    used = [name for name in UNITS if name in state.tensors or name in state.settings]
    return {
        "schema": NATIVE_SCHEMA,
        "perimetry_version": __version__,
        "architecture": sae.architecture,
        "settings": state.settings,
        "count_mode": sae.count_mode,
        "units": {name: UNITS[name] for name in used},
        "info": info.model_dump(mode="json", exclude={"digest", "unknown"}),
        **info.unknown,
    }


def restore_native(where: Path, document: Any, tensors: Mapping[str, Tensor]) -> NativeParts:
    """The SAE of a native document. Errors: `CorruptArtifact`, `Incompatible`, `UnknownName`, `WidthMismatch`."""
    if not isinstance(document, dict) or not isinstance(document.get("schema"), str):
        raise CorruptArtifact(f"{where} is no object with a schema; make the SAE again")
    schema = document["schema"]
    if schema.partition(".")[0] != NATIVE_SCHEMA.partition(".")[0]:
        raise Incompatible(f"{where} has schema {schema}, this version reads {NATIVE_SCHEMA}; use a newer perimetry")
    name, settings = document.get("architecture"), document.get("settings")
    classes = {**ARCHITECTURES, **WRAPPERS}
    if not isinstance(settings, dict) or not isinstance(document.get("info"), dict):
        raise CorruptArtifact(f"{where} has no object 'settings' or no object 'info'; make the SAE again")
    if not isinstance(name, str) or name not in classes:
        raise UnknownName("SAE architecture", str(name), classes)
    info = build(SAEInfo, document["info"], f"{where}, info")
    if info.architecture != name:
        raise CorruptArtifact(f"{where} contradicts itself on the architecture; make the SAE again")
    unknown = {key: value for key, value in document.items() if key not in KNOWN}
    try:
        sae = classes[name].restore(SAEState(dict(tensors), settings))
    except (KeyError, TypeError, ValueError, RuntimeError, IndexError) as error:
        raise CorruptArtifact(
            f"{where} lacks what a {name!r} SAE is rebuilt from ({type(error).__name__}: {error}); make the SAE again"
        ) from error
    check_sizes(str(where), sae.d_model, sae.d_sae)
    return NativeParts(sae, info.model_copy(update={"unknown": unknown}))
