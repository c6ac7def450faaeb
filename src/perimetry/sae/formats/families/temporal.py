"""Temporal feature analysis (canrager): `conf.yaml` and `latest_ckpt.safetensors` with `D`, `b` and one layer of attention.

Tied weights; rows are consecutive tokens. No file says how long a sequence is, so that the user must. The reference divides by
(norm + 1e-6) where it fits a prediction, ours by the norm.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from perimetry.errors import CorruptArtifact, Incompatible
from perimetry.sae.formats.checks import check_record, check_tensor
from perimetry.sae.formats.families.common import Parts, describe, in_path, latent_major
from perimetry.sae.formats.isolated import open_yaml
from perimetry.sae.formats.record import NativeGate, Record, Source
from perimetry.sae.formats.safety import hash_files, read_tensors

__all__ = ["read", "recognises"]

CONFIG, WEIGHTS = "conf.yaml", "latest_ckpt.safetensors"
LAYERS = {"q_target": "query", "k_ctx": "key", "v_ctx": "value", "c_proj": "mix"}
"""Their name of a linear map -> ours."""


def recognises(path: Path) -> bool:
    """A folder with both files."""
    return (path / CONFIG).is_file() and (path / WEIGHTS).is_file()


def _fields(file: Path, overrides: Mapping[str, Any]) -> Parts:
    """The sections of the configuration as one; the language model's name and width beside."""
    value = open_yaml(file)
    sections = value if isinstance(value, dict) else {}
    sae, llm = (sections.get(name) for name in ("sae", "llm"))
    fields = Parts(sae if isinstance(sae, dict) else {}, overrides, str(file))
    if isinstance(llm, dict):
        fields.take("file", model_name=llm.get("name"), d_in=llm.get("dimin"))
    return fields


def _check(fields: Parts) -> None:
    for name, kind, wanted, why in (
        ("n_attn_layers", int, 1, "one layer of attention is read"),
        ("tied_weights", bool, True, "an encoder of its own has no counterpart here"),
        ("sae_diff_type", str, "topk", "the novel part is TopK here"),
    ):
        value = fields.need(name, kind)
        if value != wanted:
            raise Incompatible(f"{fields.where}: {name} is {value!r}; {why}; use another dictionary")


def _attention(where: str, stored: Mapping[str, Tensor], d_sae: int, queries: int) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for theirs, ours in LAYERS.items():
        rows = queries if ours in ("query", "key") else d_sae
        for part, shape in (("weight", (rows, d_sae)), ("bias", (rows,))):
            name = f"attn_layers.0.{theirs}.{part}"
            check_tensor(where, name, stored[name], shape)
            found[f"{ours}.{part}"] = stored[name].float()
    # A bias of the keys moves all scores of a query alike, and so nothing.
    del found["key.bias"]
    return found


def read(path: Path, overrides: Mapping[str, Any], *, unsafe_pickle: bool = False) -> Record:  # noqa: ARG001
    """A folder of temporal feature analysis as a record for raw activations; `context` is the length of a sequence, in tokens.

    Errors: `MissingFile`, `CorruptArtifact` (also without a `context`), `NonFinite`, `Incompatible`.
    """
    fields = _fields(path / CONFIG, overrides)
    _check(fields)
    file, where = path / WEIGHTS, str(path / WEIGHTS)
    names = {f"attn_layers.0.{part}.{kind}" for part in LAYERS for kind in ("weight", "bias")}
    stored = read_tensors(file, {"D", "b", *names})
    decoder = latent_major(where, stored, "D").float()
    d_sae, d_in = decoder.shape
    if d_in != fields.need("d_in", int) or d_sae != int(d_in * fields.need("exp_factor", (int, float))):
        raise CorruptArtifact(
            f"{where}: D has shape {(d_sae, d_in)}, {CONFIG} says another width or expansion; fetch both from one place"
        )
    scale = float(fields.need("scaling_factor", (int, float)))
    if not scale > 0:
        raise CorruptArtifact(f"{path / CONFIG}: scaling_factor is {scale}; a positive number is wanted; mend it")
    queries = d_sae // fields.need("bottleneck_factor", int)
    settings = {
        "k": fields.need("k", int, "kval_topk"),
        "context": fields.need("context", int),
        "heads": fields.need("n_heads", int),
        # Products of tokens and rows shrink by the square of the scale that is folded into the rows.
        "slope": scale**2 / (4 * d_in),
    }
    record = Record(
        architecture="temporal",
        W_enc=None,
        b_enc=None,
        W_dec=decoder / scale,
        b_dec=stored["b"].float() / scale,
        gate=NativeGate("temporal", _attention(where, stored, d_sae, queries), settings),
        subtract_b_dec=True,
        source=Source(
            family="temporal",
            files=hash_files(file, path / CONFIG),
            dtype=str(stored["D"].dtype).removeprefix("torch."),
        ),
    )
    layer = in_path(path, r"^layer_(\d+)$")
    number = int(layer.group(1)) if layer else None
    fields.take("path", layer=number, hook_name=None if number is None else f"blocks.{number}.hook_resid_post")
    record = check_record(record).note(f"the scale {scale:.6g} of the activations was folded")
    return describe(record, fields, normalisation="file")
