"""From the files of another tool to an SAE of ours on disk, with a certificate where asked."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from perimetry.artifact import require_replaceable
from perimetry.axes import Acts
from perimetry.errors import Incompatible, UsageError
from perimetry.sae.base import AbstractSAE
from perimetry.sae.formats.build import to_sae
from perimetry.sae.formats.certificate import Certified, certify
from perimetry.sae.formats.checks import warnings_of
from perimetry.sae.formats.disk import KIND, load_sae, save_sae
from perimetry.sae.formats.export import export_sae, is_ours
from perimetry.sae.formats.families.formula_temporal import temporal_formula
from perimetry.sae.formats.info import LoadedSAE, SAEInfo, info_of
from perimetry.sae.formats.readers import READERS, reader_of
from perimetry.sae.formats.record import Hook, Record, ReLUGate, Source
from perimetry.sae.formats.reference import Reference, saelens_reference
from perimetry.sae.formats.reference_families import FAMILY_REFERENCES
from perimetry.sae.formats.saelens_read import CONFIG, saelens_record

__all__ = ["REFERENCES", "Converted", "RealActivations", "convert", "read_foreign"]

REFERENCES: dict[str, Callable[..., Reference]] = {
    "saelens": saelens_reference,
    "temporal": temporal_formula,
    **FAMILY_REFERENCES,
}
"""Family -> its formulas in NumPy, from its files."""


class RealActivations(NamedTuple):
    """What a certificate measures on."""

    acts: Acts
    """Real activations at the place of the dictionary, at least 32 rows."""
    origin: Mapping[str, Any] = {}
    """Model, revision, tokenizer, place and token policy they are of."""


class Converted(NamedTuple):
    """What a conversion made."""

    path: Path
    """Folder of the artifact."""
    sae: AbstractSAE
    """The SAE, for raw activations."""
    info: SAEInfo
    """Where it comes from."""
    digest: str
    """Identity of the artifact."""
    certificate: dict[str, Any] | None
    """As stored; None where none was asked for."""
    warnings: tuple[str, ...]
    """What is not wrong but must not stay silent."""


def read_foreign(
    path: Path, *, family: str | None = None, overrides: Mapping[str, Any] | None = None, unsafe_pickle: bool = False
) -> tuple[Record, AbstractSAE]:
    """The record and the SAE of a dictionary of another tool.

    Errors: `MissingFile`, `UnknownName`, `UsageError` (no or several formats), `UnsafeFormat` (a pickle), `CorruptArtifact`, `NonFinite`,
    `Incompatible`, `ConfigError`.
    """
    name = reader_of(path, family)
    record = READERS[name].read(path, dict(overrides or {}), unsafe_pickle=unsafe_pickle)
    return record, to_sae(record)


def _reference(name: str, path: Path, overrides: Mapping[str, Any], unsafe_pickle: bool) -> Reference:
    if name not in REFERENCES:
        raise Incompatible(
            f"there are no independent formulas for {name!r} to hold a conversion against; known: {', '.join(sorted(REFERENCES))}; "
            "convert it without --certify, or give codes of its own library as a reference"
        )
    return REFERENCES[name](path, overrides, unsafe_pickle=unsafe_pickle)


def _again(
    path: Path,
    out: Path,
    overrides: Mapping[str, Any],
    *,
    certified: bool,
    sample: Callable[[Record], RealActivations] | None,
    native: bool,
) -> Converted:
    """An SAE of ours, written for SAELens or natively."""
    if overrides:
        raise UsageError(
            f"{path} is an SAE of ours and says all of itself; overrides are for other tools' files; leave them out"
        )
    real = None
    if sample is not None:
        real = sample(saelens_record(path, {}) if (path / CONFIG).is_file() else _place_of(load_sae(path)))
    loaded, digest = export_sae(
        path, out, certified=certified, activations=None if real is None else real.acts, native=native
    )
    certificate = None if loaded.certificate is None else dict(loaded.certificate)
    return Converted(out, loaded.sae, loaded.info, digest, certificate, ())


def _place_of(loaded: LoadedSAE) -> Record:
    """A record that says where a native SAE reads, and no more."""
    info, width = loaded.info, loaded.sae.d_model
    name = info.hook_name or (None if info.layer is None else f"blocks.{info.layer}.hook_resid_post")
    empty = torch.zeros(1, width)
    return Record(
        loaded.sae.architecture,
        empty,
        torch.zeros(1),
        empty,
        torch.zeros(width),
        ReLUGate(),
        subtract_b_dec=False,
        source=Source(family="perimetry"),
        hook=Hook(layer=info.layer, name=name, hf_name=info.hf_hook_name),
    )


def convert(
    path: Path,
    out: Path,
    *,
    family: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    unsafe_pickle: bool = False,
    certified: bool = False,
    sample: Callable[[Record], RealActivations] | None = None,
    reference: Reference | None = None,
    native: bool = False,
) -> Converted:
    """Read a dictionary of another tool and write it as an artifact, in one atomic step; one of ours is written for SAELens.

    With `certified` the SAE is held against its source's formulas, or against `reference` (its own library), on the real activations that
    `sample` gives for a record. A conversion that fails is not written. Errors: those of `read_foreign` and `certify`; `Incompatible` for a failed certificate; `StorageError`.
    """
    require_replaceable(out, KIND)
    if family is None and is_ours(path):
        return _again(path, out, overrides or {}, certified=certified, sample=sample, native=native)
    name = reader_of(path, family)
    given = dict(overrides or {})
    record, sae = read_foreign(path, family=name, overrides=given, unsafe_pickle=unsafe_pickle)
    made: Certified | None = None
    if certified:
        against = reference or _reference(name, path, given, unsafe_pickle)
        real = None if sample is None else sample(record)
        made = certify(
            sae,
            record,
            against,
            activations=None if real is None else real.acts,
            origin=None if real is None else real.origin,
        )
        if made.verdict == "failed":
            raise Incompatible(
                f"{path} was read as {name} ({record.architecture}), but the SAE is another function than its source: "
                f"{'; '.join(made.certificate['reasons'])}; nothing was written; check the format and the overrides"
            )
    info = info_of(record, sae.architecture)
    rates: Tensor | None = None if record.log_rates is None else 10.0 ** record.log_rates.double()
    digest = save_sae(
        sae,
        out,
        info,
        rates=rates,
        certificate=None if made is None else made.certificate,
        golden=None if made is None else made.golden,
        native=native,
    )
    return Converted(
        out,
        sae,
        info.model_copy(update={"digest": digest}),
        digest,
        None if made is None else made.certificate,
        tuple(warnings_of(record)),
    )
