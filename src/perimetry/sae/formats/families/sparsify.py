"""sparsify (EleutherAI): `HOOKPOINT/cfg.json` and `HOOKPOINT/sae.safetensors`, seeds one folder deeper.

TopK after a ReLU; `b_dec` is taken off the input unless it is a transcoder; a skip acts on the raw input. A hookpoint is a module path
from the model without its head; SAEs read the module's output, transcoders its input.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from perimetry.errors import CorruptArtifact, Incompatible, MissingFile
from perimetry.sae.formats.families.common import Parts, describe, latent_major, make_record, read_object
from perimetry.sae.formats.hooks import name_of, resolve_module
from perimetry.sae.formats.record import Record, TopKGate
from perimetry.sae.formats.safety import read_tensors

__all__ = ["read", "recognises"]

CONFIG, WEIGHTS = "cfg.json", "sae.safetensors"
HARMLESS = {"normalize_decoder", "multi_topk", "expansion_factor", "num_latents"}
"""Keys of `cfg.json` that concern training, or that are read by name below."""
STATE = re.compile(r"(state|rank_\d+_state|optimizer_\d+|lr_scheduler_\d+)\.pt")


def _coders(root: Path) -> list[str]:
    folders = [file.parent for file in (*root.glob(f"*/{WEIGHTS}"), *root.glob(f"*/*/{WEIGHTS}"))]
    return sorted(str(folder.relative_to(root)) for folder in folders if (folder / CONFIG).is_file())


def recognises(path: Path) -> bool:
    """A folder with both files, or a run above such folders."""
    if not path.is_dir():
        return False
    if (path / CONFIG).is_file() and (path / WEIGHTS).is_file():
        return True
    names = [file.name for file in path.iterdir()]
    return (path / "config.json").is_file() and (bool(_coders(path)) or any(STATE.fullmatch(n) for n in names))


def _hookpoint(path: Path) -> tuple[str, Path]:
    """The hookpoint of a folder, and the folder of its run."""
    path = path.absolute()
    folder = path.parent if re.fullmatch(r"seed\d+", path.name) else path
    return folder.name, folder.parent


def _run(root: Path) -> dict[str, Any]:
    return read_object(root / "config.json") if (root / "config.json").is_file() else {}


def _kind(fields: Parts) -> tuple[bool, bool]:
    """Whether it is a transcoder, and whether it has a skip. Refuses what has no counterpart here."""
    fields.take("family", activation="topk", signed=False)  # the only rule of releases that had no such field
    activation, signed = fields.need("activation", str), fields.need("signed", bool)
    if activation != "topk":
        raise Incompatible(
            f"{fields.where}: activation {activation!r} keeps one latent of each group, a rule that nothing here has; TopK is read; "
            "use another dictionary"
        )
    if signed:
        raise Incompatible(
            f"{fields.where}: signed = true chooses latents by |p|; no reference confirms how their sign was meant; use another "
            "dictionary"
        )
    fields.take("family", skip_connection=False)
    skip = fields.need("skip_connection", bool)
    if not skip:
        fields.take("family", transcode=False)  # releases without the field had autoencoders only, save with a skip
    transcode = fields.need("transcode", bool)
    known = HARMLESS | {"activation", "signed", "skip_connection", "transcode", "k", "d_in"}
    strange = {k: v for k, v in fields.file.items() if k not in known and k not in fields.said and v}
    if strange:
        raise Incompatible(
            f"{fields.where}: options {strange} of a release that is not known here; they may change the numbers; use a dictionary "
            "without them"
        )
    return transcode, skip


def _hooks(fields: Parts, hookpoint: str, transcode: bool) -> str | None:
    """Give the fields the hook of a hookpoint; a note where the model's kind is needed to name it."""
    model_type = fields.may("model_type", str)
    block = re.fullmatch(r"(?:layers|h)\.(\d+)", hookpoint)
    inside = re.match(r"(?:layers|h)\.(\d+)", hookpoint)
    fields.take("path", layer=int(inside.group(1)) if inside else None)
    if model_type is None:
        if block:
            blocks = f"blocks.{block.group(1)}"
            fields.take("path", hook_name=f"{blocks}.hook_resid_{'pre' if transcode else 'post'}")
            fields.take("path", hook_name_out=f"{blocks}.hook_resid_post" if transcode else None)
            return None
        return (
            f"the hookpoint {hookpoint!r} is a module path whose meaning depends on the kind of model; give --set model_type= "
            "(gpt2, llama, ...) to resolve it"
        )
    out = resolve_module(hookpoint, model_type)
    place = resolve_module(hookpoint, model_type, "input") if transcode else out
    fields.take("path", hook_name=name_of(place, model_type))
    fields.take("path", hf_hook_name=place.module + (".input" if transcode else ""))
    if transcode:
        fields.take("path", hook_name_out=name_of(out, model_type), hf_hook_name_out=out.module)
    return None


def read(path: Path, overrides: Mapping[str, Any], *, unsafe_pickle: bool = False) -> Record:  # noqa: ARG001
    """A folder of sparsify as a record. Errors: `MissingFile`, `CorruptArtifact`, `NonFinite`, `Incompatible`, `ConfigError`."""
    if not (path / WEIGHTS).is_file():
        found = _coders(path)
        if found:
            raise MissingFile(f"{path} is a run of {len(found)} dictionaries ({', '.join(found[:5])}); give one folder")
        raise MissingFile(f"{path} holds the state of an optimiser and no {WEIGHTS}; give the folder of a hookpoint")
    fields = Parts(read_object(path / CONFIG), overrides, str(path / CONFIG))
    transcode, skip = _kind(fields)
    d_in, k = fields.need("d_in", int), fields.need("k", int)
    latents = fields.may("num_latents", int) or d_in * fields.need("expansion_factor", int)
    names = {"encoder.weight", "encoder.bias", "W_dec", "b_dec"} | ({"W_skip"} if skip else set())
    stored = read_tensors(path / WEIGHTS, names)
    where = str(path / WEIGHTS)
    tensors = {
        "W_enc": latent_major(where, stored, "encoder.weight"),
        "b_enc": stored["encoder.bias"],
        "W_dec": latent_major(where, stored, "W_dec"),
        "b_dec": stored["b_dec"],
    } | ({"W_skip": stored["W_skip"]} if skip else {})
    if tuple(tensors["W_enc"].shape) != (latents, d_in):
        raise CorruptArtifact(
            f"{where}: encoder.weight has shape {tuple(tensors['W_enc'].shape)}, {CONFIG} says {(latents, d_in)}; weights and "
            "configuration do not belong together; fetch them again"
        )
    record = make_record(
        "sparsify",
        "transcoder" if transcode else "topk",
        tensors,
        TopKGate(k),
        files=(path / WEIGHTS, path / CONFIG),
        subtract=not transcode,
        transcoder=transcode,
    )
    hookpoint, root = _hookpoint(path)
    note = _hooks(fields, hookpoint, transcode)
    run = _run(root)
    fields.take("file", model_name=run.get("model"), context_size=run.get("ctx_len"), dataset_path=run.get("dataset"))
    record = record._replace(extra={"hookpoint": hookpoint})
    return describe(record.note(*([note] if note else [])), fields)
