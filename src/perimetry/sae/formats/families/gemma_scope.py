"""Gemma Scope 1: `gemma-scope-SIZE-KIND-SITE/layer_L/width_W/average_l0_N/params.npz`.

JumpReLU without a subtraction of `b_dec`; tokens at BOS were left out. Where the vectors are read stands in the path only.
"""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from perimetry.errors import CorruptArtifact, Incompatible, UnknownName
from perimetry.sae.formats.families.common import Parts, describe, in_path, latent_major, make_record, per_latent
from perimetry.sae.formats.fold import fold_scale
from perimetry.sae.formats.isolated import open_npz
from perimetry.sae.formats.record import JumpReLUGate, Record
from perimetry.sae.formats.safety import require_names

__all__ = ["read", "recognises"]

WEIGHTS = "params.npz"
RELEASE = r"gemma-scope-(2b|9b|27b)-(pt|it)-(res|mlp|att|transcoders)"
NAMES = {"W_enc", "W_dec", "b_enc", "b_dec", "threshold"}
HOOKS = {
    "res": ("blocks.{}.hook_resid_post", None),
    "mlp": ("blocks.{}.hook_mlp_out", None),
    "att": ("blocks.{}.attn.hook_z", None),
    "transcoders": ("blocks.{}.ln2.hook_normalized", "blocks.{}.hook_mlp_out"),
}
"""Site -> TransformerLens names of input and output."""


def _file(path: Path) -> Path:
    return path / WEIGHTS if path.is_dir() else path


def recognises(path: Path) -> bool:
    """A `params.npz`, or its folder."""
    file = _file(path)
    return file.name == WEIGHTS and file.is_file()


def _stored(file: Path) -> tuple[dict[str, Tensor], list[str]]:
    found = open_npz(file, {*NAMES, "scaling_factor"})
    renamed = {re.sub(r"^w_", "W_", name.lower()): tensor for name, tensor in found.items()}
    if len(renamed) != len(found):
        raise CorruptArtifact(f"{file} holds {sorted(found)}: the same name twice; fetch it again")
    scaling = renamed.pop("scaling_factor", None)
    if scaling is not None and not bool((scaling == 1).all()):
        raise Incompatible(
            f"{file}: a scaling_factor that is not 1 everywhere, which this family never had; use the published file"
        )
    notes = [] if scaling is None else ["a scaling_factor of ones was dropped"]
    return require_names(file, renamed, NAMES), notes


def _place(file: Path, fields: Parts) -> str:
    """Site of the vectors; the fields get hook, model and declared count from the path."""
    release = in_path(file.parent, RELEASE)
    embedding = in_path(file.parent, r"^embedding$") is not None
    layer, count = in_path(file.parent, r"^layer_(\d+)$"), in_path(file.parent, r"^average_l0_(\d+)$")
    if release:
        size, kind, site = release.groups()
        fields.take("path", site="embedding" if embedding and site == "res" else site)
        fields.take("path", model_name=f"google/gemma-2-{size}{'-it' if kind == 'it' else ''}")
    site = fields.need("site", str)
    if site not in (*HOOKS, "embedding"):
        raise UnknownName("site of Gemma Scope", site, {*HOOKS, "embedding"})
    fields.take("path", l0=int(count.group(1)) if count else None)
    if site == "embedding":
        fields.take("path", hook_name="hook_embed")
        return site
    fields.take("path", layer=int(layer.group(1)) if layer else None)
    number = fields.need("layer", int)
    name, out = HOOKS[site]
    fields.take("path", hook_name=name.format(number), hook_name_out=out and out.format(number))
    if site == "att":
        fields.take("path", hf_hook_name=f"model.layers.{number}.self_attn.o_proj.input")
    return site


def _embedded(record: Record, fields: Parts) -> Record:
    """For the embedding as the model uses it, which is sqrt(d) times what the dictionary was trained on."""
    fields.take("family", scale_b_dec=True)
    root = math.sqrt(record.d_in)
    scaled = fold_scale(record, 1 / root).note(f"the scale {root:g} of the embedding was folded")
    if not fields.need("scale_b_dec", bool):
        return scaled._replace(b_dec=record.b_dec)
    if bool(record.b_dec.any()):
        return scaled.note("b_dec was scaled with the decoder; SAELens leaves it as it is (--set scale_b_dec=false)")
    return scaled


def read(path: Path, overrides: Mapping[str, Any], *, unsafe_pickle: bool = False) -> Record:  # noqa: ARG001
    """A `params.npz`, or its folder, as a record. The file is opened in a process of its own.

    Errors: `CorruptArtifact` (also for a path that does not say the site or layer), `NonFinite`, `Incompatible`, `UnknownName`.
    """
    file = _file(path)
    fields = Parts({}, overrides, str(file))
    site = _place(file, fields)
    stored, notes = _stored(file)
    tensors = {
        "W_enc": latent_major(str(file), stored, "W_enc", transposed=True),
        "W_dec": latent_major(str(file), stored, "W_dec"),
        "b_enc": stored["b_enc"],
        "b_dec": stored["b_dec"],
    }
    gate = JumpReLUGate(per_latent(str(file), stored["threshold"], tensors["W_enc"].shape[0]))
    transcoder = site == "transcoders"
    record = make_record("gemma_scope", "jumprelu", tensors, gate, files=(file,), transcoder=transcoder).note(*notes)
    if site == "embedding":
        record = _embedded(record, fields)
    if transcoder:
        record = record.note("whether the input is taken before or after the norm's weight is not published")
    fields.take("family", prepend_bos=True, exclude_special_tokens=True, context_size=1024)
    return describe(record, fields)
