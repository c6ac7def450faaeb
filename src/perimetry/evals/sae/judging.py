"""One given dictionary against one world: what it found of the known features, feature by feature.

Sums, not means: what is kept are the two sums of every metric for each of its units, which add over seeds, and from which
estimates, intervals and paired differences follow.
"""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from perimetry.errors import Incompatible, TooFewSamples
from perimetry.evals.sae.base import Metric
from perimetry.evals.sae.matching import Best, Entries, Tallies, assign, best, cosines, scores, tally
from perimetry.evals.sae.synthetic import BLOCK, Fired, World
from perimetry.evals.sae.units import Cell, Units, ratios
from perimetry.sae.base import AbstractSAE, Codes

__all__ = ["JUDGED", "Sums", "entries_of", "judge", "merged", "require_judgeable", "sums_of", "units_of"]

JUDGED: Final[dict[str, Metric]] = {
    "f1": Metric(
        unit="share",
        higher=True,
        text="F1 of each latent as a classifier of the feature nearest to it, mean over latents.",
    ),
    "precision": Metric(
        unit="share", higher=True, text="Precision of these classifiers, mean over latents; 0 for one that never fires."
    ),
    "recall": Metric(unit="share", higher=True, text="Recall of these classifiers, mean over latents."),
    "feature_f1": Metric(
        unit="share",
        higher=True,
        text="F1 of the latent nearest to a feature, mean over as many of the most frequent features as there are latents.",
    ),
    "mcc": Metric(
        unit="cosine", higher=True, text="Absolute cosine of row and direction, mean over the best one-to-one matching."
    ),
    "uniqueness": Metric(
        unit="share",
        higher=True,
        text="Different features that are nearest to some latent, over the number of latents.",
    ),
    "sole": Metric(unit="share", higher=True, text="Share of latents whose nearest feature is no other latent's."),
    "dead": Metric(unit="share", higher=False, text="Share of latents that never fire on the held-out tokens."),
    "explained_variance": Metric(
        unit="share", higher=True, text="1 - squared error over squared distance to the mean of the held-out tokens."
    ),
    "l0": Metric(unit="concepts", higher=None, text="Active latents of a token."),
}
"""What `judge` measures."""
COMPLEMENTS: Final = ("explained_variance",)
OVER_BLOCKS: Final = ("explained_variance", "l0")
"""Metrics whose units are blocks of held-out tokens; those of all others are features."""

PerUnit = Float[Tensor, " unit"]


class Sums(NamedTuple):
    """A metric unit by unit."""

    over: PerUnit
    """Summed above."""
    under: PerUnit
    """Summed below."""


def require_judgeable(sae: AbstractSAE) -> None:
    """Errors: `Incompatible` for a dictionary that reads several places, or tokens in their order: a world has neither."""
    if sae.reads != "one" or sae.in_order:
        wants = "consecutive tokens" if sae.reads == "one" else f"{sae.reads} activations a row"
        raise Incompatible(
            f"{sae.architecture} reads {wants}, a synthetic world gives single tokens without order; judge an architecture that "
            "reads one activation at a time"
        )


def entries_of(codes: Codes) -> Entries:
    """Where latents are active: their code is not 0."""
    rows, slots = (codes.values != 0).nonzero(as_tuple=True)
    return Entries(rows.cpu(), codes.indices[rows, slots].cpu(), codes.width)


class _Seen(NamedTuple):
    """What held-out tokens showed; per block where it says so."""

    tallies: Tallies
    active: Tensor
    """Active latents, by block."""
    error: Tensor
    """Squared error, by block."""
    first: Tensor
    """Sum of x less the bias, by block and dimension."""
    second: Tensor
    """Sum of |x less the bias|^2, by block."""


@torch.no_grad()
def _look(sae: AbstractSAE, world: World, nearest: Best, held: Sequence[Fired], at_once: int) -> _Seen:
    parts: list[_Seen] = []
    for start in range(0, len(held), at_once):
        blocks = held[start : start + at_once]
        acts = torch.cat([world.mix(block) for block in blocks])
        codes = sae.encode(acts)
        off = acts.double() - world.bias.double()
        error = (acts.double() - sae.decode(codes).double()).square().sum(1)
        tokens = torch.cat([block.tokens + i * BLOCK for i, block in enumerate(blocks)])
        fired = Entries(tokens, torch.cat([block.features for block in blocks]), world.config.features)
        columns = (codes.count().double(), error, off, off.square().sum(1))
        split = [column.reshape(len(blocks), BLOCK, *column.shape[1:]).sum(1) for column in columns]
        parts.append(_Seen(tally(entries_of(codes), fired, nearest), *split))
    total = parts[0].tallies
    for part in parts[1:]:
        total = total.add(part.tallies)
    return _Seen(total, *[torch.cat([getattr(part, name) for part in parts]) for name in _Seen._fields[1:]])


def sums_of(sae: AbstractSAE, world: World, *, blocks: int = 64, seed: int = 0, at_once: int = 4) -> dict[str, Sums]:
    """The sums of every metric of `JUDGED`. Errors: as `judge`."""
    require_judgeable(sae)
    if blocks < 2:
        raise TooFewSamples(f"{blocks} blocks of held-out tokens give no interval; give two or more")
    similarity = cosines(sae.W_dec, world.directions)
    nearest, pairs = best(similarity), assign(similarity)
    seen = _look(sae, world, nearest, list(world.held_out(blocks, seed)), at_once)
    features = world.config.features
    claims = torch.bincount(nearest.feature, minlength=features).double()
    counts = seen.tallies
    of_latent = scores(counts.by_latent, counts.latent, counts.feature[nearest.feature])
    of_feature = scores(counts.by_feature, counts.latent[nearest.latent], counts.feature)
    head = torch.zeros(features, dtype=torch.float64)
    head[world.frequent(min(sae.d_sae, features))] = 1

    def by_feature(of: Tensor) -> Sums:
        return Sums(torch.zeros(features, dtype=torch.float64).index_add_(0, nearest.feature, of.double()), claims)

    matched = torch.zeros(2, features, dtype=torch.float64)
    matched[0, pairs.features], matched[1, pairs.features] = pairs.cosines, 1
    mean = seen.first.sum(0) / (blocks * BLOCK)
    variance = seen.second - 2 * seen.first @ mean + BLOCK * mean @ mean
    return {
        "f1": by_feature(of_latent.f1),
        "precision": by_feature(of_latent.precision),
        "recall": by_feature(of_latent.recall),
        "feature_f1": Sums(of_feature.f1 * head, head),
        "mcc": Sums(matched[0], matched[1]),
        "uniqueness": Sums((claims > 0).double(), claims),
        "sole": Sums((claims == 1).double(), claims),
        "dead": by_feature(counts.latent == 0),
        "explained_variance": Sums(seen.error, variance),
        "l0": Sums(seen.active, torch.full_like(seen.active, BLOCK)),
    }


def merged(several: Sequence[Mapping[str, Sums]]) -> dict[str, Sums]:
    """Sums over seeds, unit by unit: what belongs to one feature stays together in every resample."""
    names = several[0]
    return {
        name: Sums(
            torch.stack([s[name].over for s in several]).sum(0), torch.stack([s[name].under for s in several]).sum(0)
        )
        for name in names
    }


def units_of(sums: Mapping[str, Sums], *, case: str = "", arm: str = "sae") -> list[Units]:
    """The same as units: features by their number, or blocks of tokens."""
    found: list[Units] = []
    for name, (over, under) in sums.items():
        prefix = "block " if name in OVER_BLOCKS else ""
        names = [f"{prefix}{i}" for i in range(over.numel())]
        found.append(ratios(Cell(name, case=case, arm=arm), names, over, under, complement=name in COMPLEMENTS))
    return found


def judge(
    sae: AbstractSAE,
    world: World,
    *,
    blocks: int = 64,
    seed: int = 0,
    at_once: int = 4,
    case: str = "",
    arm: str = "sae",
) -> list[Units]:
    """A dictionary, however it was made, against the features of `world`, on `blocks` blocks of tokens drawn from `seed`.

    `at_once` blocks are encoded together, which changes nothing but speed. Errors: `Incompatible` for an architecture that a
    world cannot feed, `WidthMismatch` for one of another width, `NonFinite`, `TooFewSamples`.
    """
    return units_of(sums_of(sae, world, blocks=blocks, seed=seed, at_once=at_once), case=case, arm=arm)
