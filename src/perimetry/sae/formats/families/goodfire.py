"""Goodfire: `Llama-3.1-8B-Instruct-SAE-l19.pth` and `Llama-3.3-70B-Instruct-SAE-l50.pt`, pickles of two linear maps.

ReLU, nothing is taken off the input; trained on chats (LMSYS-Chat-1M).
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from perimetry.sae.formats.families.common import Parts, describe
from perimetry.sae.formats.families.linear_pickle import read_linear
from perimetry.sae.formats.record import Record

__all__ = ["read", "recognises"]

NAME = re.compile(r"(Llama-3\.\d-\d+B-Instruct)-SAE-l(\d+)\.pth?")


def recognises(path: Path) -> bool:
    """A file by the published name."""
    return path.is_file() and NAME.fullmatch(path.name) is not None


def read(path: Path, overrides: Mapping[str, Any], *, unsafe_pickle: bool = False) -> Record:
    """One dictionary of Goodfire as a record. Errors: `UnsafeFormat` without `unsafe_pickle`, `CorruptArtifact`, `NonFinite`."""
    record = read_linear("goodfire", path, "encoder_linear", "decoder_linear", unsafe_pickle=unsafe_pickle)
    fields = Parts({}, overrides, str(path))
    found = NAME.fullmatch(path.name)
    if found:
        layer = int(found.group(2))
        fields.take("path", layer=layer, model_name=f"meta-llama/{found.group(1)}")
        fields.take("path", hook_name=f"blocks.{layer}.hook_resid_post", hf_hook_name=f"model.layers.{layer}")
    fields.take("family", dataset_path="lmsys/lmsys-chat-1m")
    return describe(record, fields)
