"""SAEs on disk: saved in the layout of SAELens 6 where it holds all of them, natively otherwise; loaded from either.

Ours carry a manifest of hashes; a folder of SAELens without one is read too, and marked as not verified.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from perimetry.artifact import MANIFEST, read_artifact, read_safetensors, write_artifact
from perimetry.config import build
from perimetry.errors import BadShape, BadValue, CorruptArtifact, Incompatible, MissingFile, WidthMismatch
from perimetry.sae import ARCHITECTURES
from perimetry.sae.base import AbstractSAE
from perimetry.sae.formats.build import to_sae
from perimetry.sae.formats.hashing import tensor_hash
from perimetry.sae.formats.info import LoadedSAE, SAEInfo, info_of
from perimetry.sae.formats.native import DICTIONARY, native_document, restore_native
from perimetry.sae.formats.record import Record
from perimetry.sae.formats.saelens_read import CONFIG, WEIGHTS, saelens_record
from perimetry.sae.formats.saelens_write import EXPORT_NAMES, export_saelens, own_state
from perimetry.sae.formats.safety import read_strict_json
from perimetry.sae.formats.wrapped import WRAPPERS
from perimetry.strict import check_header

__all__ = ["KIND", "load_sae", "sae_folder", "save_sae"]

KIND = "sae"
LOG_FLOOR = 1e-10
ABOVE = 1e-6
CERTIFICATE, GOLDEN = "certificate", "golden"


class _Files(NamedTuple):
    """What lies in a folder."""

    tensors: dict[str, dict[str, Tensor]]
    """File name without suffix -> tensors."""
    documents: dict[str, Any]
    """File name without suffix -> JSON."""
    digest: str | None
    """Of the manifest, where there is one."""


def save_sae(
    sae: AbstractSAE,
    path: Path,
    info: SAEInfo,
    *,
    rates: Tensor | None = None,
    certificate: Mapping[str, Any] | None = None,
    golden: Mapping[str, Tensor] | None = None,
    native: bool = False,
) -> str:
    """Write the SAE and what is known of it to a folder, atomically, and return the digest of the artifact.

    `rates` are the firing rates of the latents on clean text, stored as `sparsity.safetensors`; `certificate` and `golden` come from
    `certify`; `native` writes the native format even where SAELens' layout would do. Errors: `NonFinite` (nothing is written then),
    `StorageFull`, `Incompatible` when `info` names another architecture.
    """
    if sae.architecture != info.architecture:
        raise Incompatible(
            f"the SAE is a {sae.architecture!r} but its info says {info.architecture!r}; give the info of this SAE"
        )
    exported = None if native else export_saelens(sae, info)
    documents: dict[str, Any] = {}
    tensors: dict[str, Mapping[str, Tensor]] = {}
    if exported is not None:
        documents["cfg"], tensors["sae_weights"] = exported.config, exported.tensors
    else:
        state = sae.state()
        documents[DICTIONARY], tensors[DICTIONARY] = native_document(sae, state, info), state.tensors
    if rates is not None:
        tensors["sparsity"] = {"sparsity": (rates.double() + LOG_FLOOR).log10().float()}
    if certificate is not None:
        documents[CERTIFICATE] = dict(certificate)
    if golden is not None:
        tensors[GOLDEN] = dict(golden)
    return write_artifact(path, KIND, tensors, documents)


def sae_folder(path: Path) -> Path:
    """The folder of an SAE, given that or the one that a training wrote it to. Errors: `MissingFile`."""
    names = (CONFIG, f"{DICTIONARY}.json")
    inner = path / "sae"
    if not any((path / name).is_file() for name in names) and any((inner / name).is_file() for name in names):
        path = inner
    if not path.is_dir():
        raise MissingFile(f"no SAE at {path}; give the folder that holds {WEIGHTS} and {CONFIG}")
    return path


def _read(path: Path) -> _Files:
    if (path / MANIFEST).exists():
        for file in path.glob("*.safetensors"):
            check_header(file)
        artifact = read_artifact(path, KIND)
        for document, weights in (("cfg", "sae_weights"), (DICTIONARY, DICTIONARY)):
            if document in artifact.documents and weights in artifact.tensors:
                return _Files(artifact.tensors, artifact.documents, artifact.digest)
        raise CorruptArtifact(f"{path} lists no {WEIGHTS} or no {CONFIG}; make the SAE again")
    name = DICTIONARY if (path / f"{DICTIONARY}.json").is_file() else "sae_weights"
    config = f"{DICTIONARY}.json" if name == DICTIONARY else CONFIG
    for file in (config, f"{name}.safetensors"):
        if not (path / file).is_file():
            raise MissingFile(f"no {file} in {path}; give the folder of an SAE (it holds both weights and {config})")
    files = {stem: path / f"{stem}.safetensors" for stem in (name, "sparsity", GOLDEN)}
    documents = {stem: path / f"{stem}.json" for stem in (Path(config).stem, CERTIFICATE)}
    return _Files(
        {stem: read_safetensors(file) for stem, file in files.items() if file.is_file()},
        {stem: read_strict_json(file) for stem, file in documents.items() if file.is_file()},
        None,
    )


def _own(where: str, record: Record, digest: str | None) -> tuple[AbstractSAE, SAEInfo]:
    """An SAE of ours from SAELens' layout."""
    native, details = record.training["architecture"], record.training["details"]
    names = {**EXPORT_NAMES, "normalised": record.architecture, "transcoder": record.architecture}
    if not isinstance(native, str) or names.get(native) != record.architecture:
        raise CorruptArtifact(
            f"{where}: training_architecture {native!r} is not stored as {record.architecture!r}; make the SAE again"
        )
    classes = {**ARCHITECTURES, **WRAPPERS}
    if native not in classes:
        raise Incompatible(f"{where}: the architecture {native!r} is not known here; use a newer perimetry")
    info = build(SAEInfo, {**record.training["own"], "digest": digest}, f"{where}, metadata.perimetry")
    if info.architecture != native:
        raise CorruptArtifact(f"{where} contradicts itself on the architecture; make the SAE again")
    return classes[native].restore(own_state(where, record, native, details)), info


def _certificate(path: Path, sae: AbstractSAE, files: _Files) -> dict[str, Any] | None:
    """The certificate of a folder, for these very tensors; one of others says no more than that there was one."""
    found = files.documents.get(CERTIFICATE)
    if found is None:
        return None
    if not isinstance(found, dict):
        raise CorruptArtifact(f"{path / 'certificate.json'} is no object; convert the SAE again")
    if found.get("tensors") == tensor_hash(sae):
        return found
    reasons = [*found.get("reasons", []), "the tensors are not those that were certified"]
    return {**found, "verdict": "structural", "reasons": reasons}


def _sparsity(path: Path, files: _Files, d_sae: int) -> Tensor | None:
    """Logarithms of firing rates. Errors: `BadShape`, `BadValue`."""
    found = files.tensors.get("sparsity", {}).get("sparsity")
    if found is None:
        return None
    if found.shape != (d_sae,) or not found.is_floating_point():
        raise BadShape(f"{path / 'sparsity.safetensors'} holds no {d_sae} rates; remove it, or make the SAE again")
    if bool((found > ABOVE).any()):
        raise BadValue(f"{path / 'sparsity.safetensors'} holds firing rates above 1; remove it, or make the SAE again")
    return found


def load_sae(path: Path, *, d_model: int | None = None) -> LoadedSAE:
    """Read an SAE: ours, or one that SAELens wrote.

    A folder of `perimetry train` may be given too: its `sae` folder is read. `d_model` is the width that is wanted. Formats of other
    tools go through `perimetry convert` first. Errors: `MissingFile`, `CorruptArtifact` (hash, JSON, missing or unknown tensors, shapes
    that contradict the header), `NonFinite`, `Incompatible`, `UnknownName`, `WidthMismatch`.
    """
    path = sae_folder(path)
    files = _read(path)
    if DICTIONARY in files.documents:
        where = path / f"{DICTIONARY}.json"
        sae, info = restore_native(where, files.documents[DICTIONARY], files.tensors[DICTIONARY])
        info = info.model_copy(update={"digest": files.digest})
    else:
        where = path / CONFIG
        record = saelens_record(path, {}, files.tensors)
        if isinstance(record.training["own"], dict):
            sae, info = _own(str(where), record, files.digest)
        else:
            sae = to_sae(record)
            info = info_of(record, sae.architecture).model_copy(update={"digest": files.digest})
    if d_model is not None and sae.d_model != d_model:
        raise WidthMismatch(
            f"the SAE at {path} reads width {sae.d_model} but {d_model} was wanted; pick another layer, another model, or "
            "another SAE"
        )
    sparsity = _sparsity(path, files, sae.d_sae)
    sae.requires_grad_(False).eval()  # noqa: FBT003
    return LoadedSAE(sae, info, files.digest is not None, sparsity, _certificate(path, sae, files))
