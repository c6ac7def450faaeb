"""Meters over several layers: a meter for each tap, read from one forward pass, and one p-value for all of them."""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, final

import torch
from jaxtyping import Float
from torch import Tensor

from perimetry import __version__
from perimetry.activations.model import LanguageModel
from perimetry.activations.policy import TokenPolicy
from perimetry.artifact import require_replaceable, write_artifact
from perimetry.errors import ConfigError, CorruptArtifact
from perimetry.runtime import dtype_name
from perimetry.shift.base import Evidence
from perimetry.shift.clean import MeterConfig
from perimetry.shift.conformal import false_alarm_interval
from perimetry.shift.evidence import Capture, Prompt, Side
from perimetry.shift.fit import FittedTaps
from perimetry.shift.joint import JointCalibration, Yardstick
from perimetry.shift.meter import ALPHAS, Meter
from perimetry.shift.reader import AbstractReader, Batch, Depth
from perimetry.shift.reading import Reading, TapReading
from perimetry.shift.tables import score_table
from perimetry.shift.taps import Taps, tap_names
from perimetry.storage import atomic_directory

__all__ = ["LEAST_P", "MULTI_KIND", "TAPS_FOLDER", "MultiMeter"]

MULTI_KIND: Final = "multi-meter"
TAPS_FOLDER: Final = "taps"
LEAST_P: Final = "least_p"
"""Name of the joint score: minus the log of the smallest conformal p-value of the taps, in nats."""


@final
class MultiMeter(AbstractReader[tuple[Capture, ...]]):
    """Readings of prompts by the meters of several taps of one model, joined into one p-value (see `joint`).

    Each tap reads exactly as its meter alone would. Errors: `ConfigError` for taps that judge by different main scores and
    those of `Taps`; `CorruptArtifact` where the joint calibration is not that of the taps.
    """

    def __init__(self, meters: Mapping[str, Meter], joint: JointCalibration, *, digest: str = "unsaved") -> None:
        self.meters = dict(meters)
        self.taps = Taps([m.extractor for m in self.meters.values()])
        mains = sorted({m.main for m in self.meters.values()})
        if len(mains) > 1:
            raise ConfigError(
                f"the taps judge by {' and '.join(mains)}; one main score is wanted; calibrate them together"
            )
        self.joint = joint
        self.digest = digest
        self._require_same_prompts()

    @classmethod
    def of(cls, fitted: FittedTaps, reference: Sequence[Prompt], config: MeterConfig) -> "MultiMeter":
        """Join meters that were fitted together; `reference`: clean prompts that none was calibrated on.

        Errors: `TooFewSamples`, `NonFinite`, and those of the class.
        """
        names = tap_names([m.extractor.tap.layer for m in fitted.meters])
        yardstick = Yardstick.of(_main_scores(fitted.meters, reference, config.batch_tokens))
        lengths = fitted.lengths.amax(1)
        joint = JointCalibration.fit(fitted.scores, lengths, yardstick, groups=config.groups, minimum=config.minimum)
        return cls(dict(zip(names, fitted.meters, strict=True)), joint)

    def _require_same_prompts(self) -> None:
        if self.joint.scores.shape[1] != len(self.meters):
            raise CorruptArtifact(
                f"the joint calibration is of {self.joint.scores.shape[1]} taps and there are {len(self.meters)}; "
                "calibrate again"
            )
        for name, scores in self.joint.columns(list(self.meters)).items():
            alone = self.meters[name].normal.calibration.scores[self.main]["pooled"]
            if not torch.equal(scores.sort().values, alone):
                raise CorruptArtifact(
                    f"the joint calibration holds other scores of the tap {name!r} than its own meter; calibrate again"
                )

    @property
    def lm(self) -> LanguageModel:
        """The language model that is read."""
        return self.taps.lm

    @property
    def policy(self) -> TokenPolicy:
        """Which positions count, but for `max_norm`, which each tap has of its own."""
        return self.taps.policy

    @property
    def main(self) -> str:
        """The score by which every tap judges."""
        return next(iter(self.meters.values())).main

    def names(self, detectors: str | Sequence[str]) -> list[str]:
        """Score names that every tap will give, from `main`, `all`, or a list. Errors: `UnknownName`."""
        return next(m.names(detectors) for m in self.meters.values())

    def prepare(self, ids: Sequence[str], texts: Sequence[str], *, truncate: bool) -> list[Prompt]:
        """Encode texts, alike for all taps. Errors: as `Extractor.prepare`."""
        return self.taps.extractors[0].prepare(ids, texts, truncate=truncate)

    def batches(
        self, prompts: Sequence[Prompt], depth: Depth, *, batch_tokens: int, side: Side
    ) -> Iterator[Batch[tuple[Capture, ...]]]:
        """A capture of every tap for each batch; the model runs once for all taps. Errors: as `Extractor.capture`."""
        for captures in self.taps.capture(prompts, **depth._asdict(), batch_tokens=batch_tokens, side=side):
            yield Batch(captures[0].rows, captures)

    def read(
        self,
        captured: tuple[Capture, ...],
        prompts: Sequence[Prompt],
        names: Sequence[str],
        alpha: float,
        *,
        explain: bool = False,
        evidence: tuple[Evidence, ...] | None = None,
    ) -> list[Reading]:
        """Readings of the prompts of one forward pass, in its order; a capture for each tap. `evidence`: of each tap, where it was made already."""
        seen = evidence or (None,) * len(captured)
        by_tap = [
            meter.read(capture, prompts, names, alpha, explain=explain, evidence=mine)
            for meter, capture, mine in zip(self.meters.values(), captured, seen, strict=True)
        ]
        scores = torch.tensor([[r.score for r in mine] for mine in by_tap]).T
        lengths = torch.tensor([[r.tokens_scored for r in mine] for mine in by_tap]).amax(0).float()
        found = self.joint.p_values(scores, lengths)
        readings: list[Reading] = []
        for row, each in enumerate(zip(*by_tap, strict=True)):
            mine = dict(zip(self.meters, each, strict=True))
            p, score = float(found.p[row]), float(-found.least[row].log())
            loudest = min(mine, key=lambda name: mine[name].p_value)
            longest = max(each, key=lambda r: r.tokens_scored)
            readings.append(
                longest._replace(
                    score=score,
                    p_value=p,
                    flagged=p <= alpha,
                    group=found.group[row],
                    fallback=bool(found.fallback[row]),
                    detector=LEAST_P,
                    scores={LEAST_P: score} | {f"{tap}/{n}": v for tap, r in mine.items() for n, v in r.scores.items()},
                    tokens=mine[loudest].tokens,
                    concepts=mine[loudest].concepts,
                    hot=mine[loudest].hot,
                    meter=self.identity,
                    taps={
                        n: TapReading(r.score, r.p_value, r.flagged, r.tokens, r.concepts, r.hot)
                        for n, r in mine.items()
                    },
                    tap=loudest,
                )
            )
        return readings

    def summary(self) -> dict[str, Any]:
        """What the meter is, the false-alarm rate to expect of its p-value, and the summary of each tap."""
        first = next(iter(self.meters.values()))
        # The realised rate given the calibration has no exact law here, so that only its mean is said; taps alone have one.
        rows = [
            {"alpha": alpha, "group": group, "n": n, "expected": false_alarm_interval(alpha, n).expected}
            for alpha in ALPHAS
            for group, n in self.joint.sizes().items()
        ]
        return {
            "detector": LEAST_P,
            "main": self.main,
            "model": self.lm.name,
            "dtype": dtype_name(self.lm.dtype),
            "calibration_prompts": first.details["calibration_prompts"],
            "false_alarms": rows,
            "taps": {name: meter.summary() for name, meter in self.meters.items()},
        }

    def save(self, path: Path) -> str:
        """Write everything but the language model to a folder, atomically; returns and keeps the digest.

        The meter of each tap lies in `taps/NAME` and can be loaded alone. The digest covers theirs. Errors: as `write_artifact`.
        """
        require_replaceable(path, MULTI_KIND)
        with atomic_directory(path) as folder:
            taps = {name: meter.save(folder / TAPS_FOLDER / name) for name, meter in self.meters.items()}
            document = {
                "perimetry": __version__,
                "model": self.lm.origin,
                "revision": self.lm.revision,
                "dtype": dtype_name(self.lm.dtype),
                "main": self.main,
                # A list, since the order is that of the columns of the joint scores.
                "taps": [{"name": name, "digest": digest} for name, digest in taps.items()],
            }
            digest = write_artifact(folder / "sealed", MULTI_KIND, {"joint": self.joint.state()}, {"multi": document})
            for file in sorted((folder / "sealed").iterdir()):
                os.replace(file, folder / file.name)
            (folder / "sealed").rmdir()
        self.digest = digest
        return digest


def _main_scores(meters: Sequence[Meter], prompts: Sequence[Prompt], batch_tokens: int) -> Float[Tensor, "prompt tap"]:
    """The main score of prompts in each tap, from shared forward passes; in no order."""
    main, found = meters[0].main, []
    depth = Depth.of([main])._asdict()
    for captures in Taps([m.extractor for m in meters]).capture(prompts, **depth, batch_tokens=batch_tokens):
        columns = [
            score_table(c.evidence(m.sae), [main], m.normal.detectors, m.normal.references)[main]
            for m, c in zip(meters, captures, strict=True)
        ]
        found.append(torch.stack(columns, 1))
    return torch.cat(found)
