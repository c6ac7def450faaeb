"""DeepSeek R1 (qresearch): `DeepSeek-R1-Distill-Llama-8B-SAE-l19.pt`, a pickle of two linear maps.

ReLU, nothing is taken off the input.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from perimetry.sae.formats.families.common import Parts, describe
from perimetry.sae.formats.families.linear_pickle import read_linear
from perimetry.sae.formats.record import Record

__all__ = ["read", "recognises"]

NAME = re.compile(r"(DeepSeek-R1-Distill-[A-Za-z0-9.-]+?)-SAE-l(\d+)\.pt")


def recognises(path: Path) -> bool:
    """A file by the published name."""
    return path.is_file() and NAME.fullmatch(path.name) is not None


def read(path: Path, overrides: Mapping[str, Any], *, unsafe_pickle: bool = False) -> Record:
    """One dictionary of this family as a record. Errors: `UnsafeFormat` without `unsafe_pickle`, `CorruptArtifact`, `NonFinite`."""
    record = read_linear("deepseek", path, "encoder", "decoder", unsafe_pickle=unsafe_pickle)
    fields = Parts({}, overrides, str(path))
    found = NAME.fullmatch(path.name)
    if found:
        layer = int(found.group(2))
        fields.take("path", layer=layer, model_name=f"deepseek-ai/{found.group(1)}")
        fields.take("path", hook_name=f"blocks.{layer}.hook_resid_post", hf_hook_name=f"model.layers.{layer}")
    return describe(record, fields)
