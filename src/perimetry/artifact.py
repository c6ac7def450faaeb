"""Artifacts: folders of safetensors and strict JSON, with a manifest of hashes that is written last.

An artifact is believed only when every file is there, hashes as the manifest says and holds finite numbers. Nothing
but safetensors and JSON is ever parsed.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes
from torch import Tensor

from perimetry.errors import CorruptArtifact, Incompatible, MissingFile, NonFinite, StorageError
from perimetry.storage import atomic_directory, hash_file, hash_json, read_json, write_json

__all__ = ["MANIFEST", "Artifact", "read_artifact", "require_replaceable", "write_artifact"]

MANIFEST = "manifest.json"
SCHEMA = 1


class Artifact(NamedTuple):
    """A folder that was read and found whole."""

    path: Path
    """Where it lies."""
    kind: str
    """What it is: `sae`, `meter`, `store` ..."""
    digest: str
    """SHA-256 over the file hashes: the identity of the artifact."""
    tensors: dict[str, dict[str, Tensor]]
    """File name without suffix -> tensors by name."""
    documents: dict[str, Any]
    """File name without suffix -> JSON value (the manifest not included)."""


def _check_finite(path: Path, tensors: Mapping[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise NonFinite(f"{path} holds NaN or infinity in {name!r}; finite numbers are wanted; make it again")


def require_replaceable(path: Path, kind: str) -> None:
    """Refuse to put an artifact in the place of anything but an empty folder or an artifact of its kind.

    `write_artifact` asks this too; ask it before hours of work. Errors: `StorageError`.
    """
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    found: Any = None
    if (path / MANIFEST).is_file():
        try:
            found = read_json(path / MANIFEST)
        except CorruptArtifact:
            if all(entry.suffix in (".json", ".safetensors") for entry in path.iterdir()):
                return
    if not isinstance(found, dict) or found.get("kind") != kind:
        raise StorageError(
            f"{path} exists and is no {kind}; nothing there was touched; choose another folder, or remove it first"
        )


def write_artifact(
    path: Path, kind: str, tensors: Mapping[str, Mapping[str, Tensor]], documents: Mapping[str, Any]
) -> str:
    """Write an artifact atomically (an older one at `path` is replaced in one step) and return its digest.

    Errors: `NonFinite` before anything is written, `StorageFull`, `StorageError`, which is also raised where something
    else than an artifact of this kind is in the place.
    """
    require_replaceable(path, kind)
    for name, group in tensors.items():
        _check_finite(path / f"{name}.safetensors", group)
    with atomic_directory(path) as folder:
        for name, group in tensors.items():
            # Plain bytes, so that a full disk is an OSError, which the library would wrap in an error of its own.
            data = to_bytes({k: v.detach().cpu().contiguous() for k, v in group.items()})
            (folder / f"{name}.safetensors").write_bytes(data)
        for name, document in documents.items():
            write_json(folder / f"{name}.json", document)
        files = {f.name: hash_file(f) for f in sorted(folder.iterdir())}
        digest = hash_json(files)
        write_json(folder / MANIFEST, {"schema": SCHEMA, "kind": kind, "digest": digest, "files": files})
    return digest


def read_artifact(path: Path, kind: str) -> Artifact:
    """Read an artifact and verify it whole.

    Errors: `MissingFile` (no such folder), `CorruptArtifact` (a hash, a shape, JSON), `Incompatible` (another kind or
    a newer schema), `NonFinite`.
    """
    if not path.is_dir():
        raise MissingFile(f"no {kind} at {path}; give the folder that holds {MANIFEST}")
    if not (path / MANIFEST).is_file():
        raise CorruptArtifact(
            f"{path} has no {MANIFEST}: it was not written to the end, or is no {kind}; make it again"
        )
    manifest = read_json(path / MANIFEST)
    if not isinstance(manifest, dict) or not isinstance(manifest.get("files"), dict):
        raise CorruptArtifact(f"{path / MANIFEST} is no manifest; make the {kind} again")
    if manifest.get("schema") != SCHEMA:
        raise Incompatible(f"{path} has schema {manifest.get('schema')}, this version reads {SCHEMA}; make it again")
    if manifest.get("kind") != kind:
        raise Incompatible(f"{path} is a {manifest.get('kind')!r}, a {kind!r} was wanted; give the right folder")
    tensors: dict[str, dict[str, Tensor]] = {}
    documents: dict[str, Any] = {}
    for name, expected in manifest["files"].items():
        file = path / name
        if file.parent != path or file.is_symlink() or not file.is_file():
            raise CorruptArtifact(f"{path} lacks {name!r}, which its manifest lists; make the {kind} again")
        if hash_file(file) != expected:
            raise CorruptArtifact(
                f"{file} does not hash as its manifest says; it was changed or damaged; make it again"
            )
        if file.suffix == ".safetensors":
            try:
                tensors[file.stem] = load_file(file)
            except (SafetensorError, OSError) as error:
                raise CorruptArtifact(f"{file} is not safetensors: {error}; make the {kind} again") from error
            _check_finite(file, tensors[file.stem])
        elif file.suffix == ".json":
            documents[file.stem] = read_json(file)
        else:
            raise CorruptArtifact(f"{file} is neither safetensors nor JSON; a {kind} holds nothing else")
    if hash_json(manifest["files"]) != manifest.get("digest"):
        raise CorruptArtifact(f"{path / MANIFEST} has a digest that its files do not give; make the {kind} again")
    return Artifact(path, kind, manifest["digest"], tensors, documents)
