"""OpenAI's GPT-2 small: `LOCATION[_v4|_v5_32k|_v5_128k]/autoencoders/LAYER.pt`, a pickle.

`pre_bias` is taken off the input and added to the output. TopK models layer-norm their input and undo that on the output; ReLU models do
not.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from perimetry.errors import CorruptArtifact, Incompatible
from perimetry.sae.formats.families.common import Parts, describe, latent_major, make_record
from perimetry.sae.formats.isolated import open_pickle
from perimetry.sae.formats.record import Record, ReLUGate, TopKGate
from perimetry.sae.formats.safety import require_names

__all__ = ["read", "recognises"]

NAMES = {"encoder.weight", "decoder.weight", "pre_bias", "latent_bias"}
STATISTICS = {"stats_last_nonzero", "latents_activation_frequency", "latents_mean_square"}
HOOKS = {
    "mlp_post_act": "mlp.hook_post",
    "resid_delta_attn": "hook_attn_out",
    "resid_delta_mlp": "hook_mlp_out",
    "resid_post_attn": "hook_resid_mid",
    "resid_post_mlp": "hook_resid_post",
}
"""Location -> TransformerLens name within the block."""
FOLDER = re.compile(rf"({'|'.join(HOOKS)})(?:_(v4|v5_32k|v5_128k))?")


def _parts(path: Path) -> tuple[str, str, int] | None:
    """Location, version and layer of a path, or None."""
    path = path.absolute()
    folder = FOLDER.fullmatch(path.parent.parent.name)
    if not folder or path.parent.name != "autoencoders" or not re.fullmatch(r"\d+\.pt", path.name):
        return None
    return folder.group(1), folder.group(2) or "v1", int(path.stem)


def recognises(path: Path) -> bool:
    """A file `LAYER.pt` where they publish it."""
    return path.is_file() and _parts(path) is not None


def read(path: Path, overrides: Mapping[str, Any], *, unsafe_pickle: bool = False) -> Record:
    """One autoencoder of OpenAI as a record. Errors: `UnsafeFormat` without `unsafe_pickle`, `CorruptArtifact`, `Incompatible`."""
    parts = _parts(path)
    if parts is None:
        raise CorruptArtifact(
            f"{path}: the path does not say the location and layer; LOCATION_VERSION/autoencoders/LAYER.pt is wanted; keep the names"
        )
    location, version, layer = parts
    found = open_pickle(path, unsafe_pickle=unsafe_pickle)
    plain = found.plain if isinstance(found.plain, dict) else {}
    state = plain.get("activation_state_dict")
    state = dict(state) if isinstance(state, dict) else {}
    if "activation_state_dict.k" in found.tensors:
        state["k"] = int(found.tensors.pop("activation_state_dict.k"))
    fields = Parts({"activation": plain.get("activation"), **state}, overrides, str(path))
    fields.take("family", activation=None if version.startswith("v5") else "ReLU")
    activation = fields.need("activation", str)
    if activation not in ("ReLU", "TopK"):
        raise Incompatible(f"{path}: activation {activation!r}; ReLU or TopK is read; use another autoencoder")
    if activation == "TopK" and fields.need("postact_fn", str) != "ReLU":
        raise Incompatible(
            f"{path}: postact_fn {fields.need('postact_fn', str)!r} lets negative codes through; ReLU is read; use another"
        )
    stored = require_names(path, found.tensors, NAMES, STATISTICS)
    tensors = {
        "W_enc": latent_major(str(path), stored, "encoder.weight"),
        "W_dec": latent_major(str(path), stored, "decoder.weight", transposed=True),
        "b_enc": stored["latent_bias"],
        "b_dec": stored["pre_bias"],
    }
    record = make_record(
        "openai",
        activation,
        tensors,
        TopKGate(fields.need("k", int)) if activation == "TopK" else ReLUGate(),
        files=(path,),
        subtract=True,
        input_norm="layer_norm" if activation == "TopK" else "none",
        version=version,
    )
    fields.take("path", layer=layer, hook_name=f"blocks.{layer}.{HOOKS[location]}")
    fields.take("family", model_name="gpt2")
    return describe(record, fields)
