"""Qwen-Scope: `SAE-Res-MODEL-WNK-L0_K/layerL.sae.pt`, a pickle.

TopK with the k that the repository is named by; nothing is taken off the input. `W_dec` lies (width, latents).
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from perimetry.sae.formats.families.common import Parts, describe, in_path, latent_major, make_record
from perimetry.sae.formats.families.linear_pickle import state_of
from perimetry.sae.formats.record import Record, TopKGate

__all__ = ["read", "recognises"]

NAME = re.compile(r"layer(\d+)\.sae\.pt")
REPOSITORY = r"SAE-Res-(.+)-W\d+K-L0_(\d+)"


def recognises(path: Path) -> bool:
    """A file by the published name."""
    return path.is_file() and NAME.fullmatch(path.name) is not None


def read(path: Path, overrides: Mapping[str, Any], *, unsafe_pickle: bool = False) -> Record:
    """One layer of Qwen-Scope as a record.

    Errors: `UnsafeFormat` without `unsafe_pickle`, `CorruptArtifact` (also where no folder's name says k), `NonFinite`.
    """
    fields = Parts({}, overrides, str(path))
    repository, layer = in_path(path.parent, REPOSITORY), NAME.fullmatch(path.name)
    if repository:
        fields.take("path", model_name=f"Qwen/{repository.group(1)}", k=int(repository.group(2)))
        fields.take("path", l0=int(repository.group(2)))
    k = fields.need("k", int)
    stored = state_of(path, {"W_enc", "W_dec", "b_enc", "b_dec"}, unsafe_pickle=unsafe_pickle)
    tensors = {
        "W_enc": latent_major(str(path), stored, "W_enc"),
        "W_dec": latent_major(str(path), stored, "W_dec", transposed=True),
        "b_enc": stored["b_enc"],
        "b_dec": stored["b_dec"],
    }
    record = make_record("qwen_scope", "topk", tensors, TopKGate(k), files=(path,))
    if layer:
        block = int(layer.group(1))
        fields.take("path", layer=block, hook_name=f"blocks.{block}.hook_resid_post")
        fields.take("path", hf_hook_name=f"model.layers.{block}")
    return describe(record, fields)
