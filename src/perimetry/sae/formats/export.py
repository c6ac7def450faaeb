"""SAEs of ours for SAELens: those that its layout cannot hold as they are get an equivalent twin, or are refused.

A twin has the same reconstructions. Its codes are the same too, or in other units where the table says so.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from perimetry.artifact import require_replaceable
from perimetry.errors import Incompatible
from perimetry.sae import ARCHITECTURES
from perimetry.sae.base import AbstractSAE, SAEState
from perimetry.sae.formats.certificate import Certified, certify
from perimetry.sae.formats.disk import KIND, load_sae, save_sae
from perimetry.sae.formats.info import LoadedSAE, SAEInfo
from perimetry.sae.formats.native import DICTIONARY
from perimetry.sae.formats.record import Source
from perimetry.sae.formats.reference import saelens_reference
from perimetry.sae.formats.saelens_read import CONFIG, saelens_record
from perimetry.sae.formats.saelens_write import export_saelens
from perimetry.sae.formats.safety import read_strict_json

__all__ = ["TWINS", "Export", "certify_export", "export_sae", "is_ours", "twin_of"]

Export = tuple[AbstractSAE, SAEInfo]
"""What is written, and what it says of itself."""


def _archetypal(state: SAEState, sae: AbstractSAE) -> AbstractSAE:
    """The decoder as it came to be, without the points it was made of."""
    tensors = {name: state.tensors[name] for name in ("W_enc", "b_enc", "b_dec")} | {
        "W_dec": sae.W_dec.detach().clone()
    }
    name = "standard" if state.settings["gate"] == "relu" else "topk"
    settings = {"subtract_b_dec": state.settings["subtract_b_dec"], "k": state.settings["k"]}
    return ARCHITECTURES[name].restore(SAEState(tensors, settings))


def _matching_pursuit(state: SAEState, sae: AbstractSAE) -> AbstractSAE:  # noqa: ARG001
    """Atoms of norm 1; codes are in units of those."""
    tensors = dict(state.tensors)
    norm: Tensor = tensors.pop("atom_norm", torch.ones(()))
    return ARCHITECTURES["matching_pursuit"].restore(
        SAEState({**tensors, "W_dec": tensors["W_dec"] / norm}, state.settings)
    )


def _batchtopk(state: SAEState, sae: AbstractSAE) -> AbstractSAE:  # noqa: ARG001
    """Rows of norm 1, so that the cut is of p itself; codes are in units of those."""
    norms = state.tensors["W_dec"].norm(dim=1)
    scaled = {name: state.tensors[name] * (norms[:, None] if name == "W_enc" else norms) for name in ("W_enc", "b_enc")}
    rows = state.tensors["W_dec"] / torch.where(norms > 0, norms, 1.0)[:, None]
    settings = {key: value for key, value in state.settings.items() if key != "select_by_norm"}
    return ARCHITECTURES["batchtopk"].restore(SAEState({**state.tensors, **scaled, "W_dec": rows}, settings))


TWINS: dict[str, Callable[[SAEState, AbstractSAE], AbstractSAE]] = {
    "archetypal": _archetypal,
    "batchtopk": _batchtopk,
    "matching_pursuit": _matching_pursuit,
}
"""Architecture -> how it becomes one that SAELens' layout holds."""


def twin_of(sae: AbstractSAE, info: SAEInfo) -> Export:
    """The SAE itself where SAELens' layout holds it, or its twin. Errors: `Incompatible` where neither can be."""
    if export_saelens(sae, info) is not None:
        return sae, info
    if sae.architecture in TWINS:
        twin = TWINS[sae.architecture](sae.state(), sae).requires_grad_(False).eval()  # noqa: FBT003
        renamed = info.model_copy(update={"architecture": twin.architecture})
        if export_saelens(twin, renamed) is not None:
            return twin, renamed
    raise Incompatible(
        f"SAELens has no kind for this {sae.architecture} dictionary; only the native format holds it; convert it with --native, "
        "or choose another architecture"
    )


def is_ours(path: Path) -> bool:
    """Whether a folder holds an SAE of ours, natively or in SAELens' layout."""
    if (path / f"{DICTIONARY}.json").is_file():
        return True
    if not (path / CONFIG).is_file():
        return False
    config = read_strict_json(path / CONFIG)
    metadata = config.get("metadata") if isinstance(config, dict) else None
    return isinstance(metadata, dict) and isinstance(metadata.get("perimetry"), dict)


def certify_export(sae: AbstractSAE, info: SAEInfo, activations: Tensor | None = None) -> Certified:
    """Hold what SAELens' formulas make of the written files against the SAE. Errors: those of `certify`."""
    with tempfile.TemporaryDirectory(prefix="perimetry-") as folder:
        place = Path(folder) / "sae"
        save_sae(sae, place, info)
        record = saelens_record(place, {})
        record = record._replace(source=Source(family="perimetry", files=record.source.files))
        return certify(sae, record, saelens_reference(place, {}), activations=activations)


def export_sae(
    path: Path, out: Path, *, certified: bool = False, activations: Tensor | None = None, native: bool = False
) -> tuple[LoadedSAE, str]:
    """Write an SAE of ours again, in SAELens' layout or natively; gives what lies there now, and its digest.

    Errors: those of `load_sae`; `Incompatible` where SAELens has no kind for it, or where the certificate fails.
    """
    require_replaceable(out, KIND)
    loaded = load_sae(path)
    info = loaded.info.model_copy(update={"digest": None})
    sae, info = (loaded.sae, info) if native else twin_of(loaded.sae, info)
    made = None
    if certified:
        if native:
            raise Incompatible("a native copy has no formulas of another tool to be held against; leave out --certify")
        made = certify_export(sae, info, activations)
        if made.verdict == "failed":
            raise Incompatible(
                f"SAELens would read {path} as another function: {'; '.join(made.certificate['reasons'])}; nothing was written; "
                "convert it with --native"
            )
    rates = None if loaded.log_sparsity is None else 10.0 ** loaded.log_sparsity.double()
    digest = save_sae(
        sae,
        out,
        info,
        rates=rates,
        certificate=None if made is None else made.certificate,
        golden=None if made is None else made.golden,
        native=native,
    )
    return load_sae(out), digest
