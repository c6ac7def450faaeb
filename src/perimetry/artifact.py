"""Artifacts: folders of safetensors and strict JSON, with a manifest of hashes that is written last.

An artifact is believed only when every file is there, hashes as the manifest says and holds finite numbers. Nothing
but safetensors and JSON is ever parsed, and of these only what `perimetry.strict` lets pass.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes
from torch import Tensor

from perimetry.errors import BadPath, CorruptArtifact, Incompatible, MissingFile, NonFinite, StorageError, UnsafeFormat
from perimetry.storage import atomic_directory, fault_point, hash_file, hash_json, read_json, write_json
from perimetry.strict import CONTROL, LIMITS, OWN, Limits, check_header, require_size

__all__ = [
    "MANIFEST",
    "Artifact",
    "read_artifact",
    "read_safetensors",
    "require_replaceable",
    "write_artifact",
]

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
        if tensor.is_floating_point() and not bool(
            torch.isfinite(tensor.float() if tensor.itemsize < 2 else tensor).all()
        ):
            raise NonFinite(f"{path} holds NaN or infinity in {name!r}; finite numbers are wanted; make it again")


def read_safetensors(path: Path, limits: Limits = LIMITS) -> dict[str, Tensor]:
    """The tensors of a file whose header holds together; every number finite.

    Errors: those of `check_header`, `NonFinite`.
    """
    if not path.exists():
        raise MissingFile(f"no {path.name} in {path.parent}; check the path")
    check_header(path, limits)
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise CorruptArtifact(f"{path} is not safetensors: {error}; fetch or make it again") from error
    _check_finite(path, tensors)
    return tensors


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
        fault_point("after-manifest", folder)
    return digest


class _Identity(NamedTuple):
    device: int
    inode: int
    size: int
    changed: int


def _identity(file: Path) -> _Identity:
    about = file.stat()
    return _Identity(about.st_dev, about.st_ino, about.st_size, about.st_ctime_ns)


def read_artifact(path: Path, kind: str) -> Artifact:
    """Read an artifact and verify it whole.

    Errors: `MissingFile` (no such folder), `CorruptArtifact` and its kinds (a hash, a header, a shape, JSON, a link),
    `Incompatible` (another kind or a newer schema), `NonFinite`.
    """
    if not path.is_dir():
        raise MissingFile(f"no {kind} at {path}; give the folder that holds {MANIFEST}")
    if not (path / MANIFEST).exists():
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
        if CONTROL.search(name) or file.parent != path or file.is_symlink() or not file.is_file():
            error = CorruptArtifact if CONTROL.search(name) is None and not os.path.lexists(file) else BadPath
            raise error(f"{path} lacks {name!r} as a file of its own, which its manifest lists; make the {kind} again")
        before = _identity(file)
        require_size(file, OWN)
        if hash_file(file) != expected:
            raise CorruptArtifact(
                f"{file} does not hash as its manifest says; it was changed or damaged; make it again"
            )
        if file.suffix == ".safetensors":
            tensors[file.stem] = read_safetensors(file, OWN)
        elif file.suffix == ".json":
            documents[file.stem] = read_json(file)
        else:
            raise UnsafeFormat(f"{file} is neither safetensors nor JSON; a {kind} holds nothing else")
        if _identity(file) != before:
            raise BadPath(f"{file} changed while it was read; keep other writers away and read it again")
    if hash_json(manifest["files"]) != manifest.get("digest"):
        raise CorruptArtifact(f"{path / MANIFEST} has a digest that its files do not give; make the {kind} again")
    return Artifact(path, kind, manifest["digest"], tensors, documents)
