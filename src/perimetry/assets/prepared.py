"""Prepared assets: made once under a lock, put in place in one step, with a manifest of hashes written last."""

import contextlib
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from perimetry.assets.cache import offline, prepared_folder, raw_folder, waiting_lock
from perimetry.assets.fetch import fetch, part_path
from perimetry.assets.index import find_on_index
from perimetry.assets.mirror import find_copy
from perimetry.assets.npm import find_on_npm
from perimetry.assets.pipconfig import read_pip_settings
from perimetry.assets.spec import AssetSpec, Inputs, RawFile
from perimetry.assets.transport import open_client
from perimetry.errors import CorruptArtifact, DownloadFailed, MissingFile, PerimetryError
from perimetry.storage import (
    TEMPORARY,
    atomic_directory,
    hash_file,
    hash_json,
    read_json,
    remove_stale,
    require_space,
    write_json,
)

__all__ = ["MANIFEST", "Obtained", "Verification", "is_pulled", "make", "obtain", "read_manifest", "verify_prepared"]

MANIFEST = "manifest.json"
SCHEMA = 1


class Verification(NamedTuple):
    """What a check of one asset found."""

    name: str
    """The asset."""
    path: Path
    """Its prepared folder."""
    digest: str
    """SHA-256 over the file hashes that its manifest lists: the identity of the prepared asset."""
    files: int
    """How many prepared files were hashed."""
    raw: str
    """`whole`, `damaged`, or `not kept` (the usual case: the download is removed after preparation)."""
    problems: tuple[str, ...]
    """What is wrong, one sentence each; empty when all is well."""


class Obtained(NamedTuple):
    """A verified file of the outside world, on this disk."""

    path: Path
    """Where it lies."""
    ours: bool
    """True in the cache, where it may be removed; False for a copy of the mirror."""


def obtain(raw: RawFile, *, progress: bool = False) -> Obtained:
    """The pinned file: from the cache, from the mirror, else from the network.

    Errors: `DownloadFailed`, `HashMismatch`, `StorageFull`, `MissingFile` (a mirror that is no folder).
    """
    kept = raw_folder(raw.sha256) / raw.filename
    if kept.is_file() and hash_file(kept) == raw.sha256:
        return Obtained(kept, ours=True)
    copy = find_copy(raw.filename, raw.sha256, raw.size)
    if copy is not None:
        return Obtained(copy, ours=False)
    if offline():
        raise DownloadFailed(
            f"{raw.filename} is neither in the cache nor in PERIMETRY_MIRROR, and PERIMETRY_OFFLINE forbids the "
            "network; unset PERIMETRY_OFFLINE, or put a copy in a folder named by PERIMETRY_MIRROR"
        )
    cert, proxy = None, None
    urls: tuple[str, ...] = (raw.project,)
    if raw.origin != "url":
        settings = read_pip_settings()
        cert, proxy = settings.cert, settings.proxy
        with open_client(cert=cert, proxy=proxy) as client:
            if raw.origin == "index":
                urls = find_on_index(client, settings, raw.project, raw.filename, raw.sha256)
            else:
                urls = find_on_npm(client, raw.project, raw.version)
    return Obtained(fetch(urls, raw.sha256, raw.size, kept, progress=progress, cert=cert, proxy=proxy), ours=True)


def _files(folder: Path) -> dict[str, Path]:
    found = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file() or p.is_symlink()}
    found.pop(MANIFEST, None)
    return dict(sorted(found.items()))


def _write_manifest(spec: AssetSpec, folder: Path) -> None:
    files = {name: {"sha256": hash_file(p), "size": p.stat().st_size} for name, p in _files(folder).items()}
    content: dict[str, Any] = {
        "schema": SCHEMA,
        "kind": "asset",
        "name": spec.name,
        "version": spec.version,
        "raw": spec.raw.sha256 if spec.raw else None,
        "files": files,
        "digest": hash_json({name: entry["sha256"] for name, entry in files.items()}),
    }
    write_json(folder / MANIFEST, content)


def read_manifest(spec: AssetSpec) -> dict[str, Any]:
    """The manifest of a prepared asset. Errors: `MissingFile` when it is not pulled, `CorruptArtifact`."""
    folder = prepared_folder(spec.name, spec.version)
    if not (folder / MANIFEST).is_file():
        raise MissingFile(f"{spec.name} is not in the cache ({folder}); run `perimetry assets pull {spec.name}`")
    manifest = read_json(folder / MANIFEST)
    if not isinstance(manifest, dict) or not isinstance(manifest.get("files"), dict):
        raise CorruptArtifact(f"{folder / MANIFEST} is no manifest; run `perimetry assets pull {spec.name}`")
    return manifest


def _problems(spec: AssetSpec, *, hashes: bool) -> list[str]:
    """What is wrong with a prepared folder; by sizes alone, or by the hash of every byte."""
    folder = prepared_folder(spec.name, spec.version)
    listed = read_manifest(spec)["files"]
    problems = [f"{name} is in no manifest" for name in _files(folder) if name not in listed]
    for name, entry in listed.items():
        file = folder / name
        if file.is_symlink() or not file.is_file():
            problems.append(f"{name} is missing")
        elif file.stat().st_size != entry["size"]:
            problems.append(f"{name} has {file.stat().st_size} bytes, {entry['size']} wanted")
        elif hashes and hash_file(file) != entry["sha256"]:
            problems.append(f"{name} does not hash as its manifest says")
    return problems


def is_pulled(spec: AssetSpec, *, hashes: bool = False) -> bool:
    """True when the prepared folder is there and whole."""
    try:
        return not _problems(spec, hashes=hashes)
    except PerimetryError:
        return False


def verify_prepared(spec: AssetSpec) -> Verification:
    """Hash the raw file (where it is kept) and every prepared file against what is pinned.

    Errors: `MissingFile` when the asset is not pulled, `CorruptArtifact` when its manifest cannot be read.
    """
    manifest = read_manifest(spec)
    problems = _problems(spec, hashes=True)
    if hash_json({name: entry["sha256"] for name, entry in manifest["files"].items()}) != manifest.get("digest"):
        problems.append("the digest is not that of the files")
    raw = "not kept"
    kept = raw_folder(spec.raw.sha256) / spec.raw.filename if spec.raw else None
    if spec.raw and kept and kept.is_file():
        raw = "whole" if hash_file(kept) == spec.raw.sha256 else "damaged"
        problems += [f"{kept} does not hash as pinned"] if raw == "damaged" else []
    folder = prepared_folder(spec.name, spec.version)
    return Verification(spec.name, folder, str(manifest.get("digest")), len(manifest["files"]), raw, tuple(problems))


@contextlib.contextmanager
def _scratch(parent: Path) -> Iterator[Path]:
    folder = parent / f"{TEMPORARY}scratch"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def make(
    spec: AssetSpec, table: Mapping[str, AssetSpec], *, progress: bool, keep_raw: bool, hashes: bool = False
) -> Path:
    """The prepared folder of an asset, made first where it is absent or damaged.

    With `hashes` every byte of a folder that is there is checked, else sizes alone. Errors: those of `obtain`.
    """
    folder = prepared_folder(spec.name, spec.version)
    if is_pulled(spec, hashes=hashes):
        return folder
    with waiting_lock(folder.parent):
        remove_stale(folder.parent)
        if is_pulled(spec, hashes=hashes):
            return folder
        needs = {name: make(table[name], table, progress=progress, keep_raw=keep_raw) for name in spec.needs}
        got = obtain(spec.raw, progress=progress) if spec.raw else None
        require_space(folder, spec.prepared_bytes, f"preparing {spec.name}")
        # the folder first: a full disk or a refusal inside the scratch folder is then told as one of the disk
        with atomic_directory(folder) as out, _scratch(folder.parent) as scratch:
            spec.prepare(Inputs(got.path if got else None, needs, scratch, progress), out)
            _write_manifest(spec, out)
        if spec.raw and got and got.ours and not keep_raw:
            got.path.unlink(missing_ok=True)
            part_path(got.path, spec.raw.sha256).unlink(missing_ok=True)
    return folder
