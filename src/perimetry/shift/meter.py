"""The meter: tap, dictionary, detectors and calibration in one artifact that turns prompts into readings."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, final

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from perimetry import __version__
from perimetry.activations.model import LanguageModel
from perimetry.activations.policy import TokenPolicy
from perimetry.artifact import write_artifact
from perimetry.errors import NonFinite, WidthMismatch
from perimetry.runtime import dtype_name
from perimetry.sae.base import AbstractSAE
from perimetry.sae.formats.info import SAEInfo
from perimetry.shift.base import AbstractDetector, Evidence
from perimetry.shift.conformal import Calibration
from perimetry.shift.context import FallaciousF2
from perimetry.shift.evidence import Capture, Extractor, Prompt, Side
from perimetry.shift.explain import ContextBook, explain_prompt, explain_tokens
from perimetry.shift.pooling import Reference, parse_score
from perimetry.shift.reader import AbstractReader, Batch, Depth
from perimetry.shift.reading import HotToken, Reading, TokenReading
from perimetry.shift.summaries import Summaries
from perimetry.shift.tables import LEVELS, all_score_names, score_table

__all__ = ["KIND", "Meter", "Normal"]

KIND = "meter"
ALPHAS = (0.01, 0.05, 0.1)


class Normal(NamedTuple):
    """What a meter learned from clean text."""

    detectors: dict[str, AbstractDetector]
    """Fitted detectors by name."""
    references: dict[str, Reference]
    """Clean moments of each token-level detector, for the CUSUM pooling."""
    calibration: Calibration
    """Clean scores of the calibration prompts."""
    clean_rate: Float[Tensor, " d_sae"]
    """Smoothed firing rate of each concept on clean text."""
    book: ContextBook
    """Clean passages in which each concept fires hardest."""
    summaries: Summaries | None = None
    """Summaries of the calibration prompts; None for a meter made before there were any."""


@final
class Meter(AbstractReader[Capture]):
    """Readings of prompts by one calibrated detector, and the scores of all others beside it.

    Refuses a language model of another revision or compute dtype than it was fitted with (`ModelMismatch`,
    `DtypeMismatch`), and an SAE of another width (`WidthMismatch`). That model with an adapter on it is read by what was normal
    for the model itself: how far the adapter moved an input.
    """

    def __init__(
        self,
        extractor: Extractor,
        sae: AbstractSAE,
        info: SAEInfo,
        normal: Normal,
        *,
        main: str,
        details: dict[str, Any],
        digest: str = "unsaved",
    ) -> None:
        parse_score(main, LEVELS)
        if sae.d_model != extractor.lm.d_model:
            raise WidthMismatch(
                f"the SAE reads width {sae.d_model} but layers.{extractor.tap.layer} of this model gives "
                f"{extractor.lm.d_model}; pick another model, or another SAE"
            )
        self.extractor = extractor
        self.sae = sae
        self.info = info
        self.normal = normal
        self.main = main
        self.details = details
        self.digest = digest

    @property
    def lm(self) -> LanguageModel:
        """The language model that is read."""
        return self.extractor.lm

    @property
    def policy(self) -> TokenPolicy:
        """Which positions count."""
        return self.extractor.policy

    def names(self, detectors: str | Sequence[str]) -> list[str]:
        """Score names from `main`, `all`, or a list (comma-separated in a string). Errors: `UnknownName`."""
        if detectors == "all":
            return [n for n in all_score_names() if n.partition(".")[0] in self.normal.detectors]
        given = detectors.split(",") if isinstance(detectors, str) else list(detectors)
        found = [self.main if n.strip() == "main" else n.strip() for n in given if n.strip()]
        for name in found:
            parse_score(name, dict.fromkeys(self.normal.detectors, "") | {n: LEVELS[n] for n in self.normal.detectors})
        return list(dict.fromkeys([self.main, *found]))

    def prepare(self, ids: Sequence[str], texts: Sequence[str], *, truncate: bool) -> list[Prompt]:
        """Encode texts. Errors: as `Extractor.prepare`."""
        return self.extractor.prepare(ids, texts, truncate=truncate)

    def batches(
        self, prompts: Sequence[Prompt], depth: Depth, *, batch_tokens: int, side: Side
    ) -> Iterator[Batch[Capture]]:
        """A capture of each batch. Errors: as `Extractor.capture`."""
        for capture in self.extractor.capture(prompts, **depth._asdict(), batch_tokens=batch_tokens, side=side):
            yield Batch(capture.rows, capture)

    def read(
        self,
        captured: Capture,
        prompts: Sequence[Prompt],
        names: Sequence[str],
        alpha: float,
        *,
        explain: bool = False,
        evidence: Evidence | None = None,
    ) -> list[Reading]:
        """Readings of the prompts of one capture, in its order. `evidence`: of the capture under `sae`, where it was made already."""
        evidence = captured.evidence(self.sae) if evidence is None else evidence
        table = score_table(evidence, names, self.normal.detectors, self.normal.references)
        scores = torch.stack([*table.values()], 1)
        if not bool(scores.isfinite().all()):
            row, column = (~scores.isfinite()).nonzero()[0].tolist()
            raise NonFinite(
                f"prompt {prompts[row].id!r} has no finite {[*table][column]!r}; finite scores are wanted; leave it out"
            )
        lengths = evidence.lengths()
        main = table[self.main]
        p_values = self.normal.calibration.p_values(self.main, main, lengths)
        hot = self._token_scores(evidence)
        readings: list[Reading] = []
        for row, (prompt, mine_scores) in enumerate(zip(prompts, scores.tolist(), strict=True)):
            mine = evidence.prompt == row
            pieces = _pieces(prompt, captured.counted[row])
            readings.append(
                Reading(
                    id=prompt.id,
                    score=float(main[row]),
                    p_value=float(p_values.p[row]),
                    flagged=bool(p_values.p[row] <= alpha),
                    alpha=alpha,
                    group=p_values.group[row],
                    fallback=bool(p_values.fallback[row]),
                    tokens_scored=int(lengths[row]),
                    tokens_excluded=captured.excluded[row],
                    truncated=prompt.encoded.truncated,
                    detector=self.main,
                    scores=dict(zip(table, mine_scores, strict=True)),
                    tokens=tuple(TokenReading(t, s) for t, s in zip(pieces, hot[mine].tolist(), strict=True)),
                    concepts=explain_prompt(
                        evidence.codes.select(mine), self.normal.clean_rate, pieces, self.normal.book
                    )
                    if explain
                    else (),
                    meter=self.identity,
                    hot=self._hot_tokens(evidence, mine, hot[mine], pieces) if explain else (),
                )
            )
        return readings

    def _hot_tokens(
        self, evidence: Evidence, mine: Bool[Tensor, " token"], scores: Float[Tensor, " row"], pieces: list[str]
    ) -> tuple[HotToken, ...]:
        """What the hottest tokens of a prompt fire, and what was to be expected; nothing where `fallacious_f2` is not fitted."""
        index = self.normal.detectors.get("fallacious_f2")
        if not isinstance(index, FallaciousF2):
            return ()
        rows = mine.nonzero()[:, 0]
        return explain_tokens(evidence, rows, scores, pieces, index, self.normal.clean_rate, self.normal.book)

    def _token_scores(self, evidence: Evidence) -> Float[Tensor, " token"]:
        """Per-token scores of the main detector; of `surprise` where that one judges whole prompts only."""
        name = parse_score(self.main, LEVELS).detector
        return self.normal.detectors[name if LEVELS[name] == "token" else "surprise"].score(evidence)

    def summary(self) -> dict[str, Any]:
        """What the meter is, and the realised false-alarm interval beside each threshold."""
        order = {label: i for i, label in enumerate(self.normal.calibration.groups.labels)}
        rows = [
            {"alpha": alpha, "group": t.group, "threshold": t.value if t.value != float("inf") else None}
            | {"n": t.alarms.n_calibration, "se": t.alarms.standard_error}
            | {"low": t.alarms.low, "high": t.alarms.high}
            for alpha in ALPHAS
            for t in sorted(
                self.normal.calibration.thresholds(self.main, alpha), key=lambda t: order.get(t.group, len(order))
            )
        ]
        return {
            "detector": self.main,
            "model": self.lm.name,
            "layer": self.extractor.tap.layer,
            "dtype": dtype_name(self.lm.dtype),
            "sae": self.info.digest,
            "architecture": self.sae.architecture,
            "calibration_prompts": self.details["calibration_prompts"],
            "profile_tokens": self.details["profile_tokens"],
            "false_alarms": rows,
        }

    def save(self, path: Path) -> str:
        """Write everything but the language model to a folder, atomically; returns and keeps the digest."""
        sae = self.sae.state()
        state = {f"{n}|{k}": v for n, d in self.normal.detectors.items() for k, v in d.state().items()}
        references = {n: torch.tensor(r, dtype=torch.float64) for n, r in self.normal.references.items()}
        short = self.normal.summaries
        self.digest = write_artifact(
            path,
            KIND,
            {
                "sae": sae.tensors,
                "detectors": state,
                "calibration": self.normal.calibration.state(),
                "normal": {"clean_rate": self.normal.clean_rate, "context_offsets": self.normal.book.offsets}
                | {f"reference|{n}": r for n, r in references.items()},
            }
            | ({} if short is None else {"summaries": short.state()}),
            {
                "meter": {
                    "perimetry": __version__,
                    "model": self.lm.origin,
                    "revision": self.lm.revision,
                    "dtype": dtype_name(self.lm.dtype),
                    "layer": self.extractor.tap.layer,
                    "policy": self.policy.model_dump(mode="json"),
                    "main": self.main,
                    "detectors": list(self.normal.detectors),
                    "info": self.info.model_dump(mode="json"),
                    "settings": sae.settings,
                    "details": self.details,
                }
                | ({} if short is None else {"summary_terms": list(short.terms)}),
                "contexts": list(self.normal.book.texts),
            },
        )
        return self.digest


def _pieces(prompt: Prompt, counted: Tensor) -> list[str]:
    """The text under each token that counts."""
    return [piece for piece, keep in zip(prompt.encoded.pieces(prompt.text), counted.tolist(), strict=True) if keep]
