"""Whether a score owes its success to what was learned: the same score with nothing learned must do worse.

Three things may be unlearned: the dictionary (`random_dictionary`, or a meter with `perimetry.sae.controls.untrained`), the
meaning of its latents (`shuffled_decoder`, or `permuted_decoder`), and the language model (`untrained_model`). A shuffled
decoder keeps the codes as they are: it can only be told by scores that decode.
"""

import copy
from collections.abc import Sequence
from typing import Final

import torch
from transformers import AutoModelForCausalLM

from perimetry.activations.model import LanguageModel, from_pretrained_parts
from perimetry.errors import TooFewSamples, UnknownName
from perimetry.evals.arms import Arm, arm_row
from perimetry.evals.contrasts import contrasts
from perimetry.evals.resampling import auroc_draws, pair_weights
from perimetry.evals.rows import Row
from perimetry.evals.scores import ScoreTable, checked
from perimetry.evals.shift import BenchConfig
from perimetry.measures.ranking import auroc
from perimetry.runtime import generator
from perimetry.suites import Suite

__all__ = ["CONTROL_PAIRS", "control_contrast", "untrained_model"]

CONTROL_PAIRS: Final = (("surprise", "random_dictionary"), ("recon_error", "shuffled_decoder"))
"""Scores under the trained SAE, each with the same score under an SAE that learned nothing; all are in one table."""


def control_contrast(
    trained: ScoreTable,
    control: ScoreTable,
    suite: Suite,
    pairs: Sequence[tuple[str, str]],
    *,
    label: str = "",
    seed: int = 0,
    config: BenchConfig | None = None,
) -> list[Row]:
    """AUROC of a score minus that of its control on the same cases, for each contrast of the suite and each of `pairs`.

    `pairs`: name in `trained`, name in `control`; both tables may be one. The difference is paired, by bootstrap over the
    suite's pairs; an interval above 0 says that what was learned helps. `label` follows the control's name in `against`.
    Rows are those of the benchmark, `auroc_difference` with the selection `control`. Errors: `UnknownName`,
    `TooFewSamples` where no contrast has enough pairs, and those of the benchmark for bad scores.
    """
    config = config or BenchConfig()
    left, right = checked(trained, suite), checked(control, suite)
    for name, other in pairs:
        for wanted, table in ((name, left), (other, right)):
            if wanted not in table.scores:
                raise UnknownName("detector", wanted, table.scores)
    draw = generator(config.bootstrap_seed)
    rows: list[Row] = []
    for arm in contrasts(suite):
        sides = [[suite.cases[i].pair for i in indices] for indices in (arm.clean, arm.shifted)]
        if len(set(sides[0])) < config.minimum_pairs:
            continue
        weights = pair_weights(sides[0], sides[1], draw, config.resamples)
        here = Arm(suite.name, arm, tuple(c.pair for c in suite.cases), weights, left, {}, {}, seed, config.confidence)
        for name, other in pairs:
            mine, theirs = (
                (values[list(arm.clean)], values[list(arm.shifted)])
                for values in (left.scores[name], right.scores[other])
            )
            rows.append(
                arm_row(
                    here,
                    name,
                    left.kinds[name],
                    "auroc_difference",
                    auroc(*mine) - auroc(*theirs),
                    auroc_draws(*mine, weights) - auroc_draws(*theirs, weights),
                    against=f"{other}, {label}" if label else other,
                    selection="control",
                )
            )
    if not rows:
        raise TooFewSamples(
            f"no contrast of suite {suite.name!r} has {config.minimum_pairs} pairs, which an interval needs; give more texts"
        )
    return rows


def untrained_model(lm: LanguageModel, seed: int) -> LanguageModel:
    """The architecture and the tokenizer of `lm` with the weights that training starts from, drawn by `seed`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(copy.deepcopy(lm.model.config), dtype=lm.dtype)
    return from_pretrained_parts(model.to(lm.device), lm.tokenizer, f"{lm.name}, untrained")
