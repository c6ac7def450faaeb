"""Transcoders for circuit tracing: mwhanna's `layer_L.safetensors`, and mntss' cross-layer `W_enc_L` and `W_dec_L`, with `config.yaml`.

ReLU, `W_enc` latent-major, read at the MLP's input after the norm. The cross-layer decoders are summed: usable codes, no reconstruction.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from perimetry.errors import CorruptArtifact
from perimetry.sae.formats.families.common import Parts, describe, latent_major, make_record
from perimetry.sae.formats.isolated import open_yaml
from perimetry.sae.formats.record import Record, ReLUGate
from perimetry.sae.formats.safety import read_tensors

__all__ = ["read", "recognises"]

CONFIG, RUNS = "config.yaml", ("wandb-config.yaml", "wanb-config.yaml")
NAME = re.compile(r"(layer|W_enc)_(\d+)\.safetensors")
MODULES = {"mlp.hook_in": "model.layers.{}.mlp.input", "hook_mlp_out": "model.layers.{}.mlp"}
"""TransformerLens name within the block -> module, in models whose block adds the MLP's own output."""


def recognises(path: Path) -> bool:
    """A file by the published name, with a configuration beside it."""
    return (
        path.is_file()
        and NAME.fullmatch(path.name) is not None
        and any((path.parent / name).is_file() for name in (CONFIG, *RUNS))
    )


def _config(folder: Path) -> dict[str, Any]:
    """The configuration, and the size and text length that a run's own says."""
    found: dict[str, Any] = {}
    if (folder / CONFIG).is_file():
        value = open_yaml(folder / CONFIG)
        found = dict(value) if isinstance(value, dict) else {}
    run = next((folder / name for name in RUNS if (folder / name).is_file()), None)
    values = open_yaml(run) if run else {}
    for name in ("d_model", "d_feature"):
        entry = values.get(name) if isinstance(values, dict) else None
        if isinstance(entry, dict) and entry.get("value") is not None:
            found.setdefault(name, entry["value"])
    return found


def _plain(path: Path) -> dict[str, Tensor]:
    stored = read_tensors(path, {"W_enc", "W_dec", "b_enc", "b_dec"})
    matrices = {name: latent_major(str(path), stored, name) for name in ("W_enc", "W_dec")}
    return matrices | {"b_enc": stored["b_enc"], "b_dec": stored["b_dec"]}


def _cross_layer(path: Path, layer: int) -> tuple[dict[str, Tensor], Path]:
    decoder = path.with_name(f"W_dec_{layer}.safetensors")
    stored = read_tensors(path, {f"{name}_{layer}" for name in ("W_enc", "b_enc", "b_dec")})
    written = read_tensors(decoder, {f"W_dec_{layer}"})[f"W_dec_{layer}"]
    if written.ndim != 3:
        raise CorruptArtifact(
            f"{decoder}: shape {tuple(written.shape)}, (latents, layers, width) is wanted; fetch it again"
        )
    found = {"W_enc": latent_major(str(path), stored, f"W_enc_{layer}"), "W_dec": written.float().sum(1)}
    return found | {name: stored[f"{name}_{layer}"] for name in ("b_enc", "b_dec")}, decoder


def read(path: Path, overrides: Mapping[str, Any], *, unsafe_pickle: bool = False) -> Record:  # noqa: ARG001
    """One layer of either kind as a record. Errors: `MissingFile`, `CorruptArtifact`, `NonFinite`."""
    name = NAME.fullmatch(path.name)
    if name is None:
        raise CorruptArtifact(f"{path}: layer_L.safetensors or W_enc_L.safetensors is wanted; keep the published name")
    layer, cross = int(name.group(2)), name.group(1) == "W_enc"
    config = _config(path.parent)
    fields = Parts(config, overrides, str(path))
    tensors, extra = _cross_layer(path, layer) if cross else (_plain(path), None)
    record = make_record(
        "mwhanna",
        "clt" if cross else "transcoder",
        tensors,
        ReLUGate(),
        files=[f for f in (path, extra, path.parent / CONFIG, *(path.parent / n for n in RUNS)) if f],
        transcoder=True,
        reconstructs=not cross,
    )
    for field, size in (("d_model", record.d_in), ("d_feature", record.d_sae)):
        said = fields.may(field, int)
        if said not in (None, size):
            raise CorruptArtifact(
                f"{path}: {field} is {size}, its configuration says {said}; fetch both from one place"
            )
    first = fields.may("input_hook", str, "feature_input_hook")
    last = fields.may("output_hook", str, "feature_output_hook")
    fields.take("path", layer=layer)
    fields.take("file", hook_name=first and f"blocks.{layer}.{first}")
    fields.take("file", hook_name_out=f"blocks.{layer}.{last}" if last and not cross else None)
    gemma = "gemma" in str(fields.file.get("model_name", "")).lower()  # its blocks norm the MLP's output once more
    for field, hook in (("hf_hook_name", first), ("hf_hook_name_out", None if cross else last)):
        module = MODULES.get(hook or "")
        fields.take("family", **{field: module.format(layer) if module and not (gemma and hook == last) else None})
    notes = ["the language model is taken as it is: no norm folded into its weights (fold_ln = false)"]
    if cross:
        notes.append("the decoders of all layers were summed: codes can be used, the output cannot")
    return describe(record.note(*notes), fields)
