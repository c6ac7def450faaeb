"""Gemma Scope 2: `gemma-scope-2-SIZE-KIND/SITE/layer_L_width_W_l0_SIZE/params.safetensors`, `config.json` perhaps beside it.

JumpReLU without a subtraction of `b_dec`; transcoders may have an affine skip, stored (d_in, d_out). Cross-layer transcoders write to
several layers: their decoders are summed, which gives usable codes and no reconstruction.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from perimetry.errors import CorruptArtifact, Incompatible, UnknownName
from perimetry.sae.formats.families.common import (
    Parts,
    describe,
    in_path,
    latent_major,
    make_record,
    per_latent,
    read_object,
    tensor_names,
)
from perimetry.sae.formats.record import JumpReLUGate, Record
from perimetry.sae.formats.safety import read_tensors

__all__ = ["read", "recognises"]

WEIGHTS, CONFIG = "params.safetensors", "config.json"
NAMES = {"w_enc", "w_dec", "b_enc", "b_dec", "threshold"}
SKIP = "affine_skip_connection"
SITE = r"^(resid_post|attn_out|mlp_out|transcoder|clt|crosscoder)(?:_all)?$"
IN_BLOCK = {
    "resid_post": ("blocks.{}.hook_resid_post", "model.layers.{}", None, None),
    "attn_out": ("blocks.{}.attn.hook_z", "model.layers.{}.self_attn.o_proj.input", None, None),
    "mlp_out": ("blocks.{}.hook_mlp_out", "model.layers.{}.post_feedforward_layernorm", None, None),
    "transcoder": (
        None,
        "model.layers.{}.pre_feedforward_layernorm",
        "blocks.{}.hook_mlp_out",
        "model.layers.{}.post_feedforward_layernorm",
    ),
}
"""Site -> TransformerLens name and module of the input, the same of the output. The transcoders' input has no TransformerLens name:
`hook_mlp_in` is taken before the norm there."""


def _file(path: Path) -> Path:
    return path / WEIGHTS if path.is_dir() else path


def recognises(path: Path) -> bool:
    """Safetensors with the lower-case names of this family, or their folder."""
    file = _file(path)
    return file.is_file() and file.suffix == ".safetensors" and tensor_names(file) >= NAMES


def _config(file: Path) -> dict[str, Any]:
    config = file.parent / CONFIG
    return read_object(config) if config.is_file() else {}


def _module(name: Any) -> str | None:
    """A module path as it is written here: its output without a suffix."""
    return name.removesuffix(".output") if isinstance(name, str) else None


def _model(config: Mapping[str, Any], file: Path) -> str | None:
    """The model on the hub; the smallest one has no suffix there."""
    name = config.get("model_name")
    if not isinstance(name, str):
        found = in_path(file.parent, r"gemma-scope-2-((?:270m|1b|4b|12b|27b)-(?:pt|it))")
        name = f"gemma-3-{found.group(1)}" if found else None
    if name is None:
        return None
    full = name if name.startswith("google/") else f"google/{name}"
    full = full.replace("gemma-v3", "gemma-3")
    return full.replace("270m-pt", "270m")


def _place(file: Path, config: Mapping[str, Any], fields: Parts) -> str:
    """Site of the vectors; the fields get hook, model and declared count from path and configuration."""
    found = in_path(file.parent, SITE)
    fields.take("path", site=found.group(1) if found else None)
    site = fields.need("site", str)
    if site == "crosscoder":
        raise Incompatible(f"{file}: the layout of the crosscoders is not confirmed; use a dictionary of one layer")
    if site not in (*IN_BLOCK, "clt"):
        raise UnknownName("site of Gemma Scope 2", site, {*IN_BLOCK, "clt"})
    layer = in_path(file.with_suffix(""), r"layer_(\d+)")
    fields.take("path", layer=int(layer.group(1)) if layer else None)
    number = fields.need("layer", int)
    names = [n and n.format(number) for n in IN_BLOCK["transcoder" if site == "clt" else site]]
    fields.take("file", hf_hook_name=_module(config.get("hf_hook_point_in")))
    fields.take("file", hf_hook_name_out=_module(config.get("hf_hook_point_out")))
    fields.take("path", hook_name=names[0], hf_hook_name=names[1])
    if site != "clt":
        fields.take("path", hook_name_out=names[2], hf_hook_name_out=names[3])
    fields.take("file" if "model_name" in config else "path", model_name=_model(config, file))
    declared = config.get("l0")
    fields.take("file", l0=declared if isinstance(declared, int | float) and not isinstance(declared, bool) else None)
    return site


def _check(file: Path, config: Mapping[str, Any], *, transcoder: bool, skip: bool) -> None:
    kind = config.get("architecture", "jump_relu")
    if kind != "jump_relu":
        raise Incompatible(
            f"{file.parent / CONFIG}: architecture {kind!r}, 'jump_relu' is read; use another dictionary"
        )
    said = config.get("affine_connection", in_path(file.parent, r"_affine(_|$)") is not None)
    if skip != said:
        raise CorruptArtifact(
            f"{file}: it {'has' if skip else 'has no'} {SKIP}, path or {CONFIG} say {said}; they do not belong together; fetch them "
            "again"
        )
    if skip and not transcoder:
        raise CorruptArtifact(f"{file}: {SKIP} beside an autoencoder; only transcoders have one; fetch it again")


def read(path: Path, overrides: Mapping[str, Any], *, unsafe_pickle: bool = False) -> Record:  # noqa: ARG001
    """Safetensors of Gemma Scope 2, or their folder, as a record.

    Errors: `MissingFile`, `CorruptArtifact` (also where path and configuration speak of different blocks), `NonFinite`, `Incompatible`,
    `UnknownName`.
    """
    file = _file(path)
    config = _config(file)
    fields = Parts({}, overrides, str(file))
    site = _place(file, config, fields)
    transcoder = site in ("transcoder", "clt")
    stored = read_tensors(file, NAMES, {SKIP})
    _check(file, config, transcoder=transcoder, skip=SKIP in stored)
    if site == "clt":
        if stored["w_dec"].ndim != 3:
            raise CorruptArtifact(
                f"{file}: w_dec has shape {tuple(stored['w_dec'].shape)}, (latents, layers, width) is wanted; fetch it again"
            )
        stored["w_dec"] = stored["w_dec"].float().sum(1)
        stored.pop(SKIP, None)
    tensors = {
        "W_enc": latent_major(str(file), stored, "w_enc", transposed=True),
        "W_dec": latent_major(str(file), stored, "w_dec"),
        "b_enc": stored["b_enc"],
        "b_dec": stored["b_dec"],
    } | ({"W_skip": stored[SKIP].T.contiguous()} if SKIP in stored else {})
    record = make_record(
        "gemma_scope_2",
        "clt" if site == "clt" else "jumprelu_transcoder" if transcoder else "jumprelu",
        tensors,
        JumpReLUGate(per_latent(str(file), stored["threshold"], tensors["W_enc"].shape[0])),
        files=(file, file.parent / CONFIG),
        transcoder=transcoder,
        reconstructs=site != "clt",
    )
    if site == "clt":
        record = record.note("the decoders of all layers were summed: codes can be used, the output cannot")
    fields.take("family", prepend_bos=True, exclude_special_tokens=True, context_size=1024)
    known = {"architecture", "model_name", "hf_hook_point_in", "hf_hook_point_out", "affine_connection", "l0"}
    record = record._replace(extra={"source": {k: v for k, v in config.items() if k not in known}})
    return describe(record, fields)
