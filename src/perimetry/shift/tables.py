"""The scores of prompts by name: which detectors there are, and each of them run once for all its poolings."""

from collections.abc import Callable, Sequence

import torch

from perimetry.axes import PerPrompt, PerToken
from perimetry.sae.base import AbstractSAE
from perimetry.shift import DETECTORS
from perimetry.shift.base import AbstractDetector, Evidence
from perimetry.shift.evidence import Capture
from perimetry.shift.features import pooled_codes
from perimetry.shift.pooling import POOLINGS, Grid, Reference, ScoreName, parse_score, pool_filled, score_names

__all__ = ["LEVELS", "all_score_names", "score_table", "score_tables", "share_detectors"]

LEVELS: dict[str, str] = {name: cls.level for name, cls in DETECTORS.items()}
"""Level of each detector: `token` or `prompt`."""


def all_score_names() -> list[str]:
    """Every name that a `scores` table can hold, in the order of `DETECTORS`."""
    return score_names(LEVELS)


def score_table(
    evidence: Evidence,
    names: Sequence[str],
    normal_detectors: dict[str, AbstractDetector],
    references: dict[str, Reference],
) -> dict[str, PerPrompt]:
    """The pooled scores of some prompts by name; a detector is run once however many of its poolings are asked for."""
    wanted = [parse_score(name, LEVELS) for name in names]
    if any(DETECTORS[one.detector].reads_pooled for one in wanted):
        evidence = evidence._replace(pooled=pooled_codes(evidence))
    raw = {name: normal_detectors[name].score(evidence) for name in dict.fromkeys(one.detector for one in wanted)}
    table = {name: scores for name, scores in raw.items() if LEVELS[name] == "prompt"}
    table |= _pooled({name: scores for name, scores in raw.items() if name not in table}, wanted, evidence, references)
    return {name: table[name] for name in names}


def _pooled(
    raw: dict[str, PerToken], wanted: Sequence[ScoreName], evidence: Evidence, references: dict[str, Reference]
) -> dict[str, PerPrompt]:
    """The wanted poolings of scores per token, each pooling of all of them at once."""
    if not raw:
        return {}
    grid = Grid.of(evidence.prompt, evidence.n_prompts)
    filled, rows = grid.fill(torch.stack(list(raw.values()))), {name: row for row, name in enumerate(raw)}
    found: dict[str, PerPrompt] = {}
    for how in POOLINGS:
        mine = [one.detector for one in wanted if one.pooling == how and one.detector in rows]
        if mine:
            pooled = pool_filled(filled[[rows[name] for name in mine]], grid, how, [references.get(n) for n in mine])
            keys = mine if how == "mean" else [f"{name}.{how}" for name in mine]
            found |= dict(zip(keys, pooled, strict=True))
    return found


def share_detectors(fitted: Sequence[dict[str, AbstractDetector]]) -> list[dict[str, AbstractDetector]]:
    """Detectors of several meters; those that read no SAE and equal the first meter's become the very same object."""

    def same(one: AbstractDetector, other: AbstractDetector | None) -> bool:
        a, b = one.state(), other.state() if other is not None else {"missing": torch.zeros(0)}
        return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)

    first = fitted[0]
    return [
        {n: first[n] if not d.needs_sae and same(d, first.get(n)) else d for n, d in mine.items()} for mine in fitted
    ]


def score_tables(
    capture: Capture,
    saes: Sequence[AbstractSAE],
    detectors: Sequence[dict[str, AbstractDetector]],
    references: Sequence[dict[str, Reference]],
    seen: Callable[[Evidence], object] = lambda _: None,
) -> list[dict[str, PerPrompt]]:
    """All scores of one capture under several SAEs; what reads no SAE and is the very same detector is scored once.

    `seen` is shown the evidence under each SAE in turn, which is let go afterwards.
    """
    tables: list[dict[str, PerPrompt]] = []
    for sae, mine, moments in zip(saes, detectors, references, strict=True):
        shared = {n for n, d in mine.items() if tables and not d.needs_sae and d is detectors[0].get(n)}
        names = [n for n in score_names({n: LEVELS[n] for n in mine}) if n.partition(".")[0] not in shared]
        evidence = capture.evidence(sae)
        seen(evidence)
        table = score_table(evidence, names, mine, moments)
        tables.append(
            {n: v for n, v in tables[0].items() if n.partition(".")[0] in shared} | table if tables else table
        )
    return tables
