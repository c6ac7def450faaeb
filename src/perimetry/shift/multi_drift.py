"""The clean side of a meter over several layers, without its language model."""

from pathlib import Path

from perimetry.artifact import read_artifact
from perimetry.errors import CorruptArtifact
from perimetry.shift.conformal import Calibration
from perimetry.shift.drift import DriftReference
from perimetry.shift.drift_taps import TapScores
from perimetry.shift.joint import JointCalibration
from perimetry.shift.meter import KIND
from perimetry.shift.multi import LEAST_P, MULTI_KIND, TAPS_FOLDER
from perimetry.shift.multi_loading import require_digest, tap_digests

__all__ = ["multi_reference"]


def multi_reference(path: Path) -> DriftReference:
    """What windows of readings of the meter in `path` are compared with: every score of every tap, prompt by prompt.

    Errors: `MissingFile`, `CorruptArtifact`, `Incompatible`.
    """
    artifact = read_artifact(path, MULTI_KIND)
    joint = JointCalibration.from_state(artifact.tensors.get("joint", {}))
    scores = {LEAST_P: joint.yardstick.height(joint.scores)}
    digests = tap_digests(artifact)
    for name, digest in digests.items():
        tap = read_artifact(path / TAPS_FOLDER / name, KIND)
        require_digest(tap.path, tap.digest, digest)
        calibration = Calibration.from_state(tap.tensors.get("calibration", {}))
        names = list(calibration.scores)
        rows = calibration.joint(names)
        if rows is None:
            raise CorruptArtifact(f"{tap.path} did not keep which of its scores go together; calibrate again")
        scores |= {f"{name}/{score}": column for score, column in zip(names, rows.unbind(1), strict=True)}
    main = {LEAST_P: {"pooled": scores[LEAST_P].sort().values}}
    calibration = Calibration(joint.groups, main, joint.minimum, frozenset())
    return DriftReference(calibration, LEAST_P, artifact.digest, joint=scores, taps=TapScores(tuple(digests), joint))
