"""What tuning reads and is measured on: passages, pairs, scores to choose by, what is normal at the tap."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from perimetry.activations.model import LanguageModel
from perimetry.activations.policy import TokenPolicy
from perimetry.activations.text import Passage, passages, take_split
from perimetry.activations.twins import Row, Twin, TwinRows, encode_twin
from perimetry.assets import ASSETS, read_texts
from perimetry.evals.robustness import NextTokens, next_tokens
from perimetry.pipeline.bench_parts import score_prompts
from perimetry.pipeline.bench_suites import TEST_SPLIT
from perimetry.pipeline.robustify_config import Dose, RobustifyConfig
from perimetry.robust.passes import run
from perimetry.robust.recipe import TuneConfig
from perimetry.robust.shifted import ShiftLoss, fit_shift
from perimetry.robust.texts import Corruption, corrupted, draw_twins
from perimetry.sae.base import AbstractSAE
from perimetry.shift.evidence import Extractor
from perimetry.shift.meter import Meter

__all__ = [
    "Texts",
    "guard_rows",
    "measure_model",
    "read_passages",
    "selection_scores",
    "shift_of",
    "test_twins",
    "train_twins",
]

WATCH_SPLIT = (0.9, 0.95)
"""Share of documents that the tuning is watched with; those below it are tuned on, those above it measured on."""
CHUNK = 8
"""Passages of one pass for what is normal."""


class Texts(NamedTuple):
    """Passages of disjoint documents."""

    train: list[Passage]
    """To tune on."""
    guard: list[Passage]
    """To watch with."""
    test: list[Passage]
    """To measure on; of an asset, from documents that no SAE, meter or tuning sees."""


def read_passages(lm: LanguageModel, config: RobustifyConfig, *, progress: bool = False) -> Texts:
    """Passages of a text, split by document. Errors: `TooFewSamples`, those of `read_texts`."""
    documents = list(read_texts(config.text, progress=progress))
    if config.text in ASSETS:
        splits = (0.0, WATCH_SPLIT[0]), WATCH_SPLIT, TEST_SPLIT
    else:
        # Texts of one's own may be few: parts as large as what they give.
        splits = (0.0, 0.6), (0.6, 0.75), (0.75, 1.0)
    wanted = config.passages, config.guard, config.test
    found = [
        passages(take_split(documents, *split), lm, config.words, n, config.seed)
        for split, n in zip(splits, wanted, strict=True)
    ]
    return Texts(*(list(part) for part in found))


def train_twins(texts: Texts, config: RobustifyConfig) -> list[Twin]:
    """Every passage to tune on, with its corruption."""
    return draw_twins(texts.train, config.kinds, config.doses, config.seed)


def guard_rows(lm: LanguageModel, texts: Texts, policy: TokenPolicy) -> list[Row]:
    """The passages to watch with."""
    return [encode_twin(lm, Twin(p.id, p.text, p.text), policy).clean for p in texts.guard]


def test_twins(lm: LanguageModel, texts: Texts, dose: Dose, policy: TokenPolicy) -> list[TwinRows]:
    """Every passage to measure on, with one corruption."""
    corruption = Corruption(dose.kind, dose.dose)
    return [
        encode_twin(lm, Twin(p.id, p.text, corrupted(p.text, corruption, f"test:{p.id}")), policy) for p in texts.test
    ]


def selection_scores(meter: Meter, twins: Sequence[Twin], *, progress: bool = False) -> dict[str, Tensor]:
    """Every score of the corrupted sides."""
    prompts = meter.extractor.prepare([t.id for t in twins], [t.corrupted for t in twins])
    return score_prompts([meter], prompts, "scores to choose by", 4096, progress).tables[0]


def shift_of(
    tune: TuneConfig, sae: AbstractSAE | None, extractor: Extractor, rows: Sequence[Row], tokens: int
) -> ShiftLoss | None:
    """What the shift term pulls on, learned from clean text; None where its weight is 0. Errors: those of `fit_shift`."""
    if not tune.weights.shift:
        return None
    acts: list[Tensor] = []
    owners: list[Tensor] = []
    texts = count = 0
    for start in range(0, len(rows), CHUNK):
        with torch.no_grad():
            found = run(
                extractor.lm, rows[start : start + CHUNK], extractor.tap.layer, extractor.policy, to_the_end=False
            )
        acts.append(found.residual[found.counts].float())
        owner = torch.unique_consecutive(found.counts.nonzero()[:, 0], return_inverse=True)[1]
        owners.append(owner + texts)
        texts, count = texts + int(owner[-1]) + 1, count + owner.shape[0]
        if count >= tokens:
            break
    return fit_shift(tune.pull, sae, torch.cat(acts), torch.cat(owners))


def measure_model(
    lm: LanguageModel, texts: Texts, measured: Sequence[Dose], policy: TokenPolicy, *, what: str, progress: bool = False
) -> dict[str, NextTokens]:
    """What the model as it is makes of the held-out passages under each perturbation, by case."""
    pairs = {one.case: test_twins(lm, texts, one, policy) for one in measured}
    return next_tokens(lm, pairs, what=what, progress=progress)
