"""What a score makes of a long list, of a graph that is learned from it, and of a switch to another; the small real model."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor

from perimetry.activations.model import LanguageModel
from perimetry.activations.policy import TokenPolicy
from perimetry.activations.tap import read_layers
from perimetry.activations.text import pack
from perimetry.assets import Document, read_texts
from perimetry.errors import AssetError
from perimetry.labs.base import Curve, Measured
from perimetry.labs.graph_tracing.real import Read, ordinary_words, read_words
from perimetry.labs.points import BASELINES, CONCEPTS, PointMeter, recipe_of, train_on_points
from perimetry.measures.stats import spearman

__all__ = ["partial_spearman", "read_meter", "smooth"]

SMOOTH: Final = 8
SKIP: Final = 32
"""Steps at the beginning that are not scored."""
TEXTS: Final = 400
"""Ordinary texts that states come from; those after them give the list of ordinary words."""


def smooth(values: Float[Tensor, " step"]) -> Float[Tensor, " step"]:
    """Mean over eight steps on both sides."""
    padded = torch.nn.functional.pad(values[None, None], (SMOOTH, SMOOTH), mode="replicate")
    return torch.nn.functional.avg_pool1d(padded, 2 * SMOOTH + 1, 1)[0, 0]


def read_meter(
    lm: LanguageModel, read: Mapping[str, Read], layer: int, seed: int
) -> tuple[list[Measured], dict[str, Curve]]:
    """Does a score rise while the graph is learned, or with the length of the list? Nothing where ordinary text cannot be had.

    What is normal is ordinary text. Two lists have no graph: the same words shuffled, and ordinary words.
    """
    try:
        texts = list(read_texts("wikipedia"))
    except AssetError:
        return [Measured("ordinary text at hand", 0.0)], {}
    meter = _meter_of(_ordinary(lm, texts[:TEXTS], layer, 20, 512), seed)
    count, steps = read["nonbacktracking"].nll.shape
    words = read_words(lm, ordinary_words(lm, (one.text for one in texts[TEXTS:]), count, steps), (layer,), [0])
    lists = {"walk": read["nonbacktracking"], "list": read["shuffled"], "words": words, "switch": read["switched"]}
    by_name = {name: _scores(meter, own, layer) for name, own in lists.items()}
    measured = [Measured("ordinary text at hand", 1.0)]
    curves: dict[str, Curve] = {}
    for name in ("walk", "list", "words"):
        for score, values in by_name[name].items():
            measured += _drift(values, by_name[name]["norm"], f"{score}, {name}")
            mean = values.mean(0)
            curves[f"{score}, {name}"] = Curve([float(t) for t in range(len(mean))], smooth(mean).tolist())
    for score, values in by_name["switch"].items():
        measured += _delay(values, score)
        # The same walk with nothing exchanged: what the delay is by chance.
        measured += _delay(by_name["walk"][score], f"{score}, no switch")
    return measured, curves


def _meter_of(clean: Float[Tensor, "token d"], seed: int) -> PointMeter:
    recipe = recipe_of("batchtopk", width=1024, k=24, steps=300, seed=seed, lr=1e-3)
    return PointMeter(train_on_points(clean, recipe), clean, (*CONCEPTS, *BASELINES))


def _scores(meter: PointMeter, read: Read, layer: int) -> dict[str, Float[Tensor, "walk step"]]:
    return meter.by_place(read.states[layer]) | {
        "nll": read.nll,
        "entropy": read.entropy,
        "repetition": read.repetition,
    }


def _drift(values: Float[Tensor, "walk step"], norm: Float[Tensor, "walk step"], case: str) -> list[Measured]:
    """Mean score of an early and of the last third, and the rank correlation with the step, the norm apart."""
    by_step, third = values.mean(0), values.shape[1] // 3
    steps = torch.arange(SKIP, values.shape[1], dtype=torch.float64)
    return [
        Measured("mean score", float(by_step[SKIP:third].mean()), f"{case}, early"),
        Measured("mean score", float(by_step[-third:].mean()), f"{case}, late"),
        Measured("score follows the step", partial_spearman(by_step[SKIP:], steps, norm.mean(0)[SKIP:]), case),
    ]


def partial_spearman(a: Float[Tensor, " n"], b: Float[Tensor, " n"], given: Float[Tensor, " n"]) -> float:
    """Rank correlation of two with the linear part of a third's ranks taken off both; 0 where nothing is left.

    >>> partial_spearman(torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([1.0, 3.0, 2.0, 4.0]))
    1.0
    """
    ab, ag, bg = (spearman(x.double(), y.double()).estimate for x, y in ((a, b), (a, given), (b, given)))
    left = (1 - ag * ag) * (1 - bg * bg)
    return round((ab - ag * bg) / left**0.5, 9) if left > 1e-12 else 0.0


def _delay(values: Float[Tensor, "walk step"], score: str) -> list[Measured]:
    """Steps after the switch until the mean of the last eight lies above what it does in 5 % of the steps before; walks that never
    do count as the whole rest."""
    half = values.shape[1] // 2
    running = values.unfold(1, SMOOTH, 1).mean(2)
    # The mean that ends at step t stands at t - SMOOTH + 1.
    before, after = running[:, SKIP : half - SMOOTH + 1], running[:, half - SMOOTH + 1 :]
    limit = before.quantile(0.95, dim=1, keepdim=True)
    above = after > limit
    found = above.any(1)
    delay = torch.where(found, above.float().argmax(1), after.shape[1])
    return [
        Measured("detection delay", float(delay.float().mean()), score),
        Measured("switch detected", float(found.float().mean()), score),
    ]


@torch.no_grad()
def _ordinary(
    lm: LanguageModel, texts: Sequence[Document], layer: int, rows: int, context: int
) -> Float[Tensor, "token d"]:
    """States of ordinary text, rows of so many tokens; attention sinks and the first tokens of a row are left out."""
    found: list[Tensor] = []
    for row in itertools.islice(pack(texts, lm, TokenPolicy(), context), rows):
        ids = torch.tensor([row.ids], device=lm.device)
        states = read_layers(lm, [layer], ids, torch.ones_like(ids))[layer][0].float().cpu()
        found.append(states[torch.tensor(row.countable)][8:])
    whole = torch.cat(found)
    norms = whole.norm(dim=1)
    return whole[norms < 10 * norms.median()]
