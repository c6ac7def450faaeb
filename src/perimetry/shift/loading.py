"""A meter from its folder: verified, and married only to the language model it was made with."""

from pathlib import Path
from typing import Any

from torch import Tensor

from perimetry.activations.adapters import load_adapter
from perimetry.activations.model import LanguageModel, load_language_model
from perimetry.activations.policy import TokenPolicy
from perimetry.artifact import Artifact, read_artifact
from perimetry.config import build
from perimetry.errors import (
    BadValue,
    CorruptArtifact,
    DtypeMismatch,
    Incompatible,
    ModelMismatch,
    PolicyMismatch,
    UnknownName,
)
from perimetry.runtime import DTYPES, Runtime, dtype_name, start
from perimetry.sae import ARCHITECTURES
from perimetry.sae.base import AbstractSAE, SAEState
from perimetry.sae.formats.info import SAEInfo
from perimetry.shift import DETECTORS
from perimetry.shift.base import AbstractDetector
from perimetry.shift.conformal import Calibration
from perimetry.shift.evidence import Extractor
from perimetry.shift.explain import ContextBook
from perimetry.shift.meter import KIND, Meter, Normal
from perimetry.shift.pooling import Reference
from perimetry.shift.summaries import Summaries

__all__ = ["load_meter"]


def load_meter(
    path: Path,
    *,
    runtime: Runtime | None = None,
    model: str | None = None,
    dtype: str = "auto",
    lm: LanguageModel | None = None,
    policy: TokenPolicy | None = None,
    adapter: Path | None = None,
) -> Meter:
    """Read a meter and the language model it belongs to.

    `model` says where the model lies now, `lm` hands over one that is loaded already, with an adapter on it or not; `adapter` is
    the folder of one to put on the model that is loaded. `dtype` and `policy`, where given, must be those that the meter was made with. Errors: `MissingFile`, `CorruptArtifact`, `Incompatible`,
    `ModelMismatch`, `DtypeMismatch`, `PolicyMismatch`, `WidthMismatch`.
    """
    if (path / "multi.json").is_file():
        raise Incompatible(
            f"{path} is a meter over several layers, a meter of one was wanted; give the folder of one of its taps, such as "
            f"{next(iter(sorted((path / 'taps').glob('*'))), path / 'taps')}"
        )
    artifact = read_artifact(path, KIND)
    document = artifact.documents.get("meter")
    if not isinstance(document, dict):
        raise CorruptArtifact(f"{path} lacks meter.json; make the meter again")
    try:
        return _assemble(artifact, document, runtime or start(), model, dtype, lm, policy, adapter)
    except (KeyError, TypeError, IndexError, ValueError, AttributeError, RuntimeError) as error:
        raise CorruptArtifact(f"{path} is no meter of this version ({error!r}); make it again") from error


def _assemble(
    artifact: Artifact,
    document: dict[str, Any],
    runtime: Runtime,
    model: str | None,
    dtype: str,
    lm: LanguageModel | None,
    policy: TokenPolicy | None,
    adapter: Path | None,
) -> Meter:
    wanted = document["dtype"]
    if wanted not in DTYPES:
        raise CorruptArtifact(f"{artifact.path} was made in dtype {wanted!r}, which is none; make it again")
    if dtype not in ("auto", wanted):
        raise DtypeMismatch(
            f"--dtype {dtype} was asked for, but the meter was made with {wanted}; leave --dtype away, or calibrate a "
            f"meter for {dtype}"
        )
    stored = build(TokenPolicy, document["policy"], f"{artifact.path}: policy")
    if policy is not None:
        stored.require_same(policy, "this call")
    if stored.max_norm is None:
        raise PolicyMismatch(f"{artifact.path} holds a token policy without max_norm; make the meter again")
    if lm is None:
        lm = load_language_model(model or document["model"], Runtime(runtime.device, DTYPES[wanted]))
        lm = lm if adapter is None else load_adapter(lm, adapter)
    _require_model(lm, document, dtype_name(lm.dtype))
    tensors = artifact.tensors
    rate = tensors["normal"]["clean_rate"]
    if not bool(((rate >= 0) & (rate <= 1)).all()):
        raise BadValue(f"{artifact.path} holds firing rates outside 0 to 1; make the meter again")
    return Meter(
        Extractor(lm, int(document["layer"]), stored),
        _sae(tensors["sae"], document),
        build(SAEInfo, document["info"], f"{artifact.path}: info"),
        Normal(
            detectors=_detectors(tensors["detectors"], document["detectors"]),
            references={
                k.partition("|")[2]: Reference(*v.tolist())
                for k, v in tensors["normal"].items()
                if k.startswith("reference|")
            },
            calibration=Calibration.from_state(tensors["calibration"]),
            clean_rate=rate,
            book=ContextBook(tensors["normal"]["context_offsets"], tuple(artifact.documents["contexts"])),
            summaries=Summaries.from_state(document["summary_terms"], tensors["summaries"])
            if "summaries" in tensors
            else None,
        ),
        main=document["main"],
        details=document["details"],
        digest=artifact.digest,
    )


def _require_model(lm: LanguageModel, made_with: dict[str, Any], dtype: str) -> None:
    """Refuse a model that is not the one the meter was made with. Errors: `ModelMismatch`, `DtypeMismatch`."""
    revision = lm.base_revision or lm.revision
    if revision != made_with["revision"]:
        raise ModelMismatch(
            f"the model {lm.name!r} has revision {revision[:12]}, but the meter was made with {made_with['model']!r} of "
            f"revision {str(made_with['revision'])[:12]}; give that model, or calibrate a meter for this one"
        )
    if dtype != made_with["dtype"]:
        raise DtypeMismatch(
            f"the model computes in {dtype}, but the meter was made with {made_with['dtype']}; use --dtype "
            f"{made_with['dtype']}, or calibrate a meter for {dtype}"
        )


def _sae(tensors: dict[str, Tensor], document: dict[str, Any]) -> AbstractSAE:
    name = document["info"]["architecture"]
    cls = ARCHITECTURES.get(name)
    if cls is None:
        raise UnknownName("architecture of the meter's SAE", str(name), ARCHITECTURES)
    # Meters of version 0.1.0 keep that one setting beside the others.
    older = {"subtract_b_dec": document["subtract_b_dec"]} if "subtract_b_dec" in document else {}
    sae = cls.restore(SAEState(tensors, document["settings"] | older))
    sae.requires_grad_(requires_grad=False).eval()
    return sae


def _detectors(state: dict[str, Tensor], names: list[str]) -> dict[str, AbstractDetector]:
    parts: dict[str, dict[str, Tensor]] = {name: {} for name in names}
    for key, value in state.items():
        name, _, field = key.partition("|")
        parts[name][field] = value
    return {name: DETECTORS[name].from_state(part) for name, part in parts.items()}
