"""A meter over several layers from its folder, and any meter by what its folder says it is."""

from pathlib import Path
from typing import Any

from perimetry.activations.model import LanguageModel
from perimetry.activations.policy import TokenPolicy
from perimetry.artifact import MANIFEST, Artifact, read_artifact
from perimetry.errors import CorruptArtifact, PerimetryError
from perimetry.runtime import Runtime
from perimetry.shift import loading
from perimetry.shift.joint import JointCalibration
from perimetry.shift.meter import Meter
from perimetry.shift.multi import MULTI_KIND, TAPS_FOLDER, MultiMeter
from perimetry.storage import read_json

__all__ = ["is_multi", "load_multi_meter", "load_reader", "require_digest", "tap_digests"]


def is_multi(path: Path) -> bool:
    """Whether a folder says that it is a meter over several layers; it may still not be whole."""
    if not (path / MANIFEST).is_file():
        return False
    try:
        manifest = read_json(path / MANIFEST)
    except PerimetryError:
        return False
    return isinstance(manifest, dict) and manifest.get("kind") == MULTI_KIND


def load_reader(
    path: Path,
    *,
    runtime: Runtime | None = None,
    model: str | None = None,
    dtype: str = "auto",
    lm: LanguageModel | None = None,
    policy: TokenPolicy | None = None,
    adapter: Path | None = None,
) -> Meter | MultiMeter:
    """A meter of one layer or of several, whichever lies there. Arguments and errors: as `load_meter`."""
    load = load_multi_meter if is_multi(path) else loading.load_meter
    return load(path, runtime=runtime, model=model, dtype=dtype, lm=lm, policy=policy, adapter=adapter)


def tap_digests(artifact: Artifact) -> dict[str, str]:
    """The taps of a meter over several layers in order, with the digest of each. Errors: `CorruptArtifact`."""
    document: Any = artifact.documents.get("multi")
    try:
        found = {str(tap["name"]): str(tap["digest"]) for tap in document["taps"]}
    except (KeyError, TypeError) as error:
        raise CorruptArtifact(f"{artifact.path} does not say its taps ({error!r}); calibrate again") from error
    odd = [name for name in found if Path(name).name != name or name in ("", ".", "..")]
    if odd or "joint" not in artifact.tensors:
        raise CorruptArtifact(f"{artifact.path} is no meter of this version; calibrate again")
    return found


def require_digest(path: Path, found: str, wanted: str) -> None:
    """Refuse a tap that is whole but not the one that was fitted with the others. Errors: `CorruptArtifact`."""
    if found != wanted:
        raise CorruptArtifact(
            f"{path} has digest {found[:12]}, and the meter over several layers was made with {wanted[:12]}; the tap was "
            "changed or exchanged; calibrate again"
        )


def load_multi_meter(
    path: Path,
    *,
    runtime: Runtime | None = None,
    model: str | None = None,
    dtype: str = "auto",
    lm: LanguageModel | None = None,
    policy: TokenPolicy | None = None,
    adapter: Path | None = None,
) -> MultiMeter:
    """Read a meter over several layers and the language model it belongs to.

    `policy`, where given, must be that of the first tap. Otherwise arguments and errors are those of `load_meter`;
    `CorruptArtifact` also where a tap is not the one that was fitted with the others.
    """
    artifact = read_artifact(path, MULTI_KIND)
    meters: dict[str, Meter] = {}
    for name, digest in tap_digests(artifact).items():
        place = path / TAPS_FOLDER / name
        if not place.is_dir():
            raise CorruptArtifact(f"{path} lacks the tap {name!r}, which its multi.json lists; calibrate again")
        first = not meters
        meter = loading.load_meter(
            place,
            runtime=runtime,
            model=model,
            dtype=dtype,
            lm=lm,
            policy=policy if first else None,
            adapter=adapter,
        )
        require_digest(place, meter.digest, digest)
        meters[name], lm = meter, meter.lm
    return MultiMeter(meters, JointCalibration.from_state(artifact.tensors["joint"]), digest=artifact.digest)
