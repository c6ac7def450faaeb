"""Copies of golden folders that a test may spoil."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tests.sae.formats.families.evaluate import GOLDEN
from torch import Tensor

Change = Callable[[dict[str, Any]], object]


def copy(case: str, tmp_path: Path) -> Path:
    """A golden folder at another place, `vectors.safetensors` left behind."""
    target = tmp_path / Path(case).name
    shutil.copytree(GOLDEN / case, target, ignore=shutil.ignore_patterns("vectors.safetensors"))
    return target


def change_json(file: Path, change: Change) -> None:
    document = json.loads(file.read_text())
    change(document)
    file.write_text(json.dumps(document))


def change_tensors(file: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    tensors = load_file(file)
    change(tensors)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, file)


def change_pickle(file: Path, change: Callable[[dict[str, Any]], object]) -> None:
    value = torch.load(file, weights_only=True)
    change(value)
    torch.save(value, file)
