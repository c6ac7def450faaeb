"""A model folder of unknown origin, looked at before transformers opens it."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

from perimetry.errors import BadHeader, BadPath, Incompatible, UnsafeFormat
from perimetry.storage import read_json
from perimetry.strict import OWN, check_header

__all__ = ["require_safe_folder"]

CODE = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".h5", ".msgpack")
"""Endings of weights whose readers can run code, or that are of other libraries."""
CONFIG, INDEX, ADAPTER = "config.json", "model.safetensors.index.json", "adapter_config.json"
MOST = 16 * 2**20


def _object(file: Path) -> dict[str, Any]:
    found = read_json(file, most=MOST)
    if not isinstance(found, dict):
        raise BadHeader(f"{file} is no object; fetch the model again")
    return found


def require_safe_folder(folder: Path, families: Collection[str]) -> None:
    """Refuse a folder that wants its own code run, whose weights are no safetensors, or that names files elsewhere.

    `families` are the model types that need no code of a folder. Files that are absent are for the loader to miss. Errors:
    `UnsafeFormat`, `BadHeader`, `BadLayout`, `BadShape`, `BadPath`, `TooLarge`, `Incompatible` for an adapter.
    """
    if (folder / CONFIG).exists():
        config = _object(folder / CONFIG)
        if "auto_map" in config and config.get("model_type") not in families:
            raise UnsafeFormat(
                f"{folder / CONFIG} asks to run code of the folder (auto_map), which is never done; wanted one of the families "
                f"{', '.join(sorted(families))}; choose such a model"
            )
    if (folder / ADAPTER).exists():
        raise Incompatible(
            f"{folder} holds an adapter ({ADAPTER}), not a model; give the model, and this with --adapter"
        )
    weights = sorted(folder.glob("*.safetensors"))
    unsafe = sorted(file.name for file in folder.glob("*") if file.suffix in CODE)
    if unsafe and not weights:
        raise UnsafeFormat(
            f"{folder} holds weights only as {unsafe[0]}, a format that can run code when it is opened; wanted safetensors; save "
            "the model as such where you trust it"
        )
    if (folder / INDEX).exists():
        named = _object(folder / INDEX).get("weight_map")
        if not isinstance(named, dict) or not all(isinstance(name, str) for name in named.values()):
            raise BadHeader(f"{folder / INDEX} says of no weight where it lies; fetch the model again")
        for name in sorted(set(named.values())):
            if Path(name).name != name or "\\" in name or "\0" in name:
                raise BadPath(f"{folder / INDEX} names {name!r}, which is no file of the folder; fetch the model again")
            if not name.endswith(".safetensors"):
                raise UnsafeFormat(f"{folder / INDEX} names {name!r}, wanted safetensors; save the model as such")
    for file in weights:
        check_header(file, OWN)
