"""The pass over the calibration prompts: every score of each, and what drift of the traffic will be held against."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from perimetry.sae.formats.info import LoadedSAE
from perimetry.shift.base import AbstractDetector, Evidence
from perimetry.shift.clean import MeterConfig
from perimetry.shift.evidence import Prompt
from perimetry.shift.pooling import Reference
from perimetry.shift.summaries import DIRECTIONS, directions, mean_codes
from perimetry.shift.tables import all_score_names, score_tables
from perimetry.shift.taps import SameTap, Taps
from perimetry.ui import track

__all__ = ["Calibrated", "calibration_scores"]


class Calibrated(NamedTuple):
    """What the calibration prompts gave."""

    codes: list[Tensor]
    """Under each SAE: the projected mean code of every prompt."""

    scores: list[dict[str, Tensor]]
    """Under each SAE: every score of every prompt."""
    lengths: list[Tensor]
    """Under each SAE: tokens of each prompt that counted."""


def calibration_scores(
    source: Taps | SameTap,
    saes: Sequence[LoadedSAE],
    prompts: Sequence[Prompt],
    detectors: list[dict[str, AbstractDetector]],
    references: list[dict[str, Reference]],
    config: MeterConfig,
    progress: bool,
) -> Calibrated:
    """Every score and the summary of every calibration prompt, all SAEs from the same forward passes. Errors: as `Extractor.capture`."""
    scores = [{name: torch.zeros(len(prompts)) for name in all_score_names()} for _ in saes]
    lengths = [torch.zeros(len(prompts)) for _ in saes]
    modules = [sae.sae for sae in saes]
    onto = {sae.d_sae: directions(sae.d_sae) for sae in modules}
    codes = [torch.zeros(len(prompts), DIRECTIONS) for _ in saes]
    passes = source.capture(prompts, logits=True, batch_tokens=config.batch_tokens)
    for captures in track(passes, "calibration", len(prompts), progress, lambda c: len(c[0].rows)):
        rows = torch.tensor(captures[0].rows)
        short: list[Tensor] = []

        def summarise(evidence: Evidence, short: list[Tensor] = short) -> None:
            short.append(mean_codes(evidence, onto[evidence.codes.width]))

        if isinstance(source, SameTap):
            tables = score_tables(captures[0], modules, detectors, references, summarise)
        else:
            each = zip(captures, modules, detectors, references, strict=True)
            tables = [score_tables(capture, [sae], [d], [r], summarise)[0] for capture, sae, d, r in each]
        for mine, count, table, capture, kept, new in zip(scores, lengths, tables, captures, codes, short, strict=True):
            for name, values in table.items():
                mine[name][rows] = values
            kept[rows] = new
            count[rows] = torch.bincount(capture.prompt, minlength=len(capture.rows)).float()
    return Calibrated(codes, scores, lengths)
