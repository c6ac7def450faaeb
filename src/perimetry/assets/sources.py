"""What a user may name as a model or as a text: an asset, a path, an address with a hash, a hub id."""

import os
import re
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Literal, NamedTuple
from urllib.parse import unquote, urldefrag, urlsplit

from perimetry.assets.cache import known_hash
from perimetry.assets.documents import TEXT_SUFFIXES, Document, read_path
from perimetry.assets.prepared import MANIFEST, make, obtain, read_manifest
from perimetry.assets.spec import AssetSpec, Inputs, RawFile
from perimetry.errors import CorruptArtifact, MissingFile, UnknownName, UsageError
from perimetry.storage import hash_json
from perimetry.strict import require_size

__all__ = ["ModelSource", "find_model", "find_texts", "pinned_url", "unpack_model"]

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+(@[\w./-]+)?")
ARCHIVES = (".tar.gz", ".tgz", ".zip")
UNSAFE = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".msgpack", ".h5", ".py", ".pyc", ".so")
LARGEST = 200 * 2**30


class ModelSource(NamedTuple):
    """Where the weights and the tokenizer of a language model come from."""

    location: str
    """A folder, or a hub id `owner/name`; what `from_pretrained` takes."""
    kind: Literal["asset", "folder", "url", "hub"]
    """How it was named."""
    revision: str
    """Identity of the content: SHA-256 over the files of a folder; the branch, tag or commit of a hub id."""


def pinned_url(text: str) -> RawFile | None:
    """The file that `https://.../x.jsonl#sha256=<hex>` names; None for what is no web address.

    Errors: `UsageError` for an address without a hash.
    """
    if not text.startswith(("http://", "https://")):
        return None
    url, fragment = urldefrag(text)
    digest = fragment.removeprefix("sha256=").lower()
    if not fragment.startswith("sha256=") or not re.fullmatch("[0-9a-f]{64}", digest):
        raise UsageError(
            f"{url} has no hash; an address is taken only with the SHA-256 of its bytes: {url}#sha256=<64 hex digits>"
        )
    return RawFile(unquote(urlsplit(url).path).rsplit("/", 1)[-1] or "file", digest, None, "url", url)


def _looks_like_path(text: str) -> bool:
    return text.startswith((".", "~", os.sep)) or text.endswith(TEXT_SUFFIXES) or Path(text).exists()


def _members(archive: Path) -> Iterator[tuple[str, int, IO[bytes]]]:
    """Regular files of a zip or gzipped tar: name, size, content; links and devices are passed over."""
    if archive.name.endswith(".zip"):
        with zipfile.ZipFile(archive) as box:
            for entry in box.infolist():
                if not entry.is_dir():
                    with box.open(entry) as handle:
                        yield entry.filename, entry.file_size, handle
        return
    with tarfile.open(archive, "r:gz") as box:
        for entry in box:
            handle = box.extractfile(entry) if entry.isreg() else None
            if handle is not None:
                yield entry.name, entry.size, handle


def unpack_model(inputs: Inputs, out: Path) -> None:
    """Write the files beside the `config.json` of an archive into `out`, flat; code and pickles are left out.

    Errors: `CorruptArtifact` when the archive is none, holds no single `config.json`, or no safetensors.
    """
    archive = inputs.raw
    assert archive is not None
    try:
        configs = [name for name, _, _ in _members(archive) if name.rsplit("/", 1)[-1] == "config.json"]
        if len(configs) != 1:
            raise CorruptArtifact(
                f"{archive.name} holds {len(configs)} files named config.json, one model folder is wanted; pack one"
            )
        parent = configs[0].removesuffix("config.json")
        total = 0
        for name, size, handle in _members(archive):
            inner = name.removeprefix(parent)
            if not name.startswith(parent) or "/" in inner or inner in ("", MANIFEST) or inner.endswith(UNSAFE):
                continue
            total += size
            if total > LARGEST or inner == ".." or "\\" in inner:
                raise CorruptArtifact(f"{archive.name} holds {name!r} of {size} bytes, which is no file of a model")
            with open(out / inner, "wb") as target:
                while block := handle.read(1 << 20):
                    target.write(block)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error) as error:
        raise CorruptArtifact(
            f"{archive.name} is no archive of a model: {error}; pack it as .tar.gz or .zip"
        ) from error
    if not any(out.glob("*.safetensors")):
        raise CorruptArtifact(f"{archive.name} holds no safetensors beside its config.json; save the model as such")


def _url_model(raw: RawFile, progress: bool) -> ModelSource:
    if not raw.filename.endswith(ARCHIVES):
        raise UsageError(f"{raw.filename} ends in none of {', '.join(ARCHIVES)}; a model comes as such an archive")
    spec = AssetSpec(f"url-{raw.sha256}", "model", raw.project, "not stated", raw, unpack_model, 0)
    folder = make(spec, {}, progress=progress, keep_raw=False)
    return ModelSource(str(folder), "url", str(read_manifest(spec)["digest"]))


def _folder_revision(folder: Path) -> str:
    names = sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith(".") and p.suffix != ".md")
    for file in names:
        require_size(file)  # before hours go into hashing a hole
    return hash_json({p.name: known_hash(p) for p in names if p.name != MANIFEST})


def find_model(text: str, table: Mapping[str, AssetSpec], *, progress: bool = False) -> ModelSource:
    """Resolve what a user gave as a model; an asset is pulled where it is absent.

    Errors: `UnknownName` with the nearest asset, `MissingFile` for a path that is none, `UsageError` (a text asset,
    an address without a hash), and those of a pull.
    """
    models = [name for name, spec in table.items() if spec.kind == "model"]
    if text in table:
        if text not in models:
            raise UsageError(f"{text!r} is a text, a model was wanted; models: {', '.join(sorted(models))}")
        folder = make(table[text], table, progress=progress, keep_raw=False)
        return ModelSource(str(folder), "asset", str(read_manifest(table[text])["digest"]))
    raw = pinned_url(text)
    if raw is not None:
        return _url_model(raw, progress)
    folder = Path(text).expanduser().absolute()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise MissingFile(f"{folder} holds no config.json; give a folder that save_pretrained has written")
        return ModelSource(str(folder), "folder", _folder_revision(folder))
    if _looks_like_path(text) or text.partition("@")[0].count("/") > 1:
        raise MissingFile(f"no folder {text}; give the folder of a model, an asset name or a hub id owner/name")
    if HUB_ID.fullmatch(text):
        name, _, revision = text.partition("@")
        return ModelSource(name, "hub", revision or "main")
    raise UnknownName("model", text, models)


def find_texts(given: str | Path, table: Mapping[str, AssetSpec], *, progress: bool = False) -> Iterator[Document]:
    """Documents of what a user gave as texts; `asset/part` reads one file of an asset.

    Everything but the lines themselves is checked before this returns. Errors: `UnknownName` with the nearest asset or part,
    `MissingFile`, `UsageError`, those of a pull, and while reading `MalformedLine`, `EmptyText`.
    """
    text = str(given)
    texts = {name: spec for name, spec in table.items() if spec.kind == "text"}
    name, _, part = text.partition("/")
    if isinstance(given, str) and name in table:
        if name not in texts:
            raise UsageError(f"{name!r} is a model, a text was wanted; texts: {', '.join(sorted(texts))}")
        folder = make(table[name], table, progress=progress, keep_raw=False)
        if not part:
            return read_path(folder)
        parts = {p.relative_to(folder).as_posix().removesuffix(".jsonl.gz"): p for p in folder.rglob("*.jsonl.gz")}
        if part not in parts:
            raise UnknownName(f"part of {name}", part, parts)
        return read_path(parts[part])
    raw = pinned_url(text) if isinstance(given, str) else None
    if raw is not None:
        if not raw.filename.endswith(TEXT_SUFFIXES):
            raise UsageError(f"{raw.filename} ends in none of {', '.join(TEXT_SUFFIXES)}; give such a text")
        return read_path(obtain(raw, progress=progress).path)
    path = Path(given).expanduser()
    if not path.exists():
        if isinstance(given, Path) or _looks_like_path(text) or "/" in text:
            raise MissingFile(f"no file or folder {text}; check the path, or give one of: {', '.join(sorted(texts))}")
        raise UnknownName("text", text, texts)
    return read_path(path)
