"""Which latents of one dictionary another one has too: by direction, and by firing on the same tokens. Pure functions.

Directions are compared with their sign, as latents only ever push one way. Products of two dictionaries are taken a block of
rows at a time; only a one-to-one assignment holds all pairs.
"""

from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment
from scipy.sparse import csr_matrix
from torch import Tensor

from perimetry.axes import Decoder
from perimetry.errors import TooFewSamples, UsageError, WidthMismatch
from perimetry.runtime import generator

__all__ = [
    "FeatureDiff",
    "FeatureRow",
    "Firing",
    "Latents",
    "Twins",
    "assigned_cosines",
    "direction_twins",
    "feature_diff",
    "firing_twins",
    "random_directions",
]

BLOCK = 1024
CHANCE = 0x6368616E6365
"""Added to seeds, so that random directions are none that a dictionary of the same seed started from."""
Kind = Literal["shared", "near", "only first", "only second"]
PerLatent = Float[Tensor, " d_sae"]
First = Float[Tensor, "d_first width_first"]
Second = Float[Tensor, "d_second width_second"]


class Twins(NamedTuple):
    """For each latent of a first dictionary, the latent of a second one that is most like it."""

    likeness: PerLatent
    """Cosine or correlation, float64."""
    match: Int[Tensor, " d_sae"]
    """Which latent of the second; the first of equals."""


class Firing(NamedTuple):
    """Which latents fire at which tokens; no pair comes twice."""

    tokens: Int[Tensor, " entry"]
    """Token of each firing."""
    latents: Int[Tensor, " entry"]
    """Latent of each firing."""
    total: int
    """Tokens in all."""
    width: int
    """Latents in all."""

    def fires(self) -> Int[Tensor, " d_sae"]:
        """Tokens at which each latent fires."""
        return torch.bincount(self.latents, minlength=self.width)

    def rates(self) -> PerLatent:
        """Share of tokens at which each latent fires, float64."""
        return self.fires().double() / max(1, self.total)

    def shuffled(self, seed: int) -> "Firing":
        """The same latents as often, at tokens that say nothing: what chance gives."""
        return self._replace(tokens=torch.randperm(self.total, generator=generator(seed))[self.tokens])

    def matrix(self) -> csr_matrix:
        """Ones at the firings, a row a token."""
        ones = np.ones(self.tokens.numel())
        return csr_matrix((ones, (self.tokens.numpy(), self.latents.numpy())), shape=(self.total, self.width))


def _unit(rows: Decoder) -> Float[Tensor, "d_sae d_model"]:
    rows = rows.detach().cpu().double()
    lengths = rows.norm(dim=1, keepdim=True)
    return torch.where(lengths > 0, rows / lengths.clamp(min=torch.finfo(rows.dtype).tiny), 0)


def _require_same_width(first: First, second: Second) -> None:
    if first.shape[1] != second.shape[1]:
        raise WidthMismatch(
            f"one dictionary writes width {first.shape[1]} and the other {second.shape[1]}; directions can be compared in one "
            "space only; give two dictionaries of one place of one model"
        )


def random_directions(rows: int, d_model: int, seed: int) -> Decoder:
    """Independent directions, uniform on the sphere: a dictionary that has nothing to do with any other."""
    return _unit(torch.randn(rows, d_model, generator=generator(seed + CHANCE)))


def direction_twins(first: First, second: Second) -> Twins:
    """The row of `second` of the largest cosine, for each row of `first`; rows of length 0 have cosine 0 with every other.

    Errors: `WidthMismatch`.

    >>> direction_twins(torch.eye(2), torch.tensor([[0.0, 2.0], [1.0, 0.0]])).match.tolist()
    [1, 0]
    """
    _require_same_width(first, second)
    mine, other = _unit(first), _unit(second)
    parts = [(mine[start : start + BLOCK] @ other.T).max(1) for start in range(0, len(mine), BLOCK)]
    return Twins(torch.cat([p.values for p in parts]), torch.cat([p.indices for p in parts]))


def assigned_cosines(first: First, second: Second) -> PerLatent:
    """Cosine of each latent of the smaller dictionary with its own partner, where no partner is given twice and the sum of all
    cosines is the largest (Hungarian assignment). Holds all pairs. Errors: `WidthMismatch`.

    >>> assigned_cosines(torch.eye(2), torch.tensor([[1.0, 0.0], [1.0, 0.0]])).tolist()
    [1.0, 0.0]
    """
    _require_same_width(first, second)
    small, large = sorted((first, second), key=len)
    cosines = (_unit(small) @ _unit(large).T).numpy()
    mine, other = linear_sum_assignment(cosines, maximize=True)
    return torch.from_numpy(cosines[mine, other])


def firing_twins(first: Firing, second: Firing, least: int) -> Twins:
    """The latent of `second` whose firing correlates most with it (phi), for each latent of `first`.

    0 where none fires together with it more often than by chance. A latent of `second` with fewer than `least` firings, or that
    always fires, is nobody's twin. Errors: `UsageError` for two numbers of tokens.

    >>> one = Firing(torch.tensor([0, 1]), torch.tensor([0, 0]), 4, 1)
    >>> two = Firing(torch.tensor([2, 0, 1]), torch.tensor([0, 1, 1]), 4, 2)
    >>> firing_twins(one, two, 1)
    Twins(likeness=tensor([1.], dtype=torch.float64), match=tensor([1]))
    """
    if first.total != second.total:
        raise UsageError(
            f"{first.total} and {second.total} tokens were read; firing is compared on the same tokens; read the same"
        )
    n, a, b = first.total, first.fires().double().numpy(), second.fires().double().numpy()
    spread_a, spread_b = np.sqrt(a * (n - a)), np.sqrt(b * (n - b))
    usable = (b >= least) & (spread_b > 0)
    mine, other = first.matrix().T.tocsr(), second.matrix().tocsr()
    likeness, index = np.zeros(first.width), np.zeros(first.width, dtype=np.int64)
    for start in range(0, first.width, BLOCK):
        together = (mine[start : start + BLOCK] @ other).tocoo()
        row, column = together.row + start, together.col
        kept = usable[column] & (spread_a[row] > 0)
        row, column, both = row[kept], column[kept], together.data[kept]
        phi = (n * both - a[row] * b[column]) / (spread_a[row] * spread_b[column])
        # The last of a row is written: the largest, and of equals the first latent.
        order = np.lexsort((-column, phi, row))
        row, column, phi = row[order], column[order], phi[order]
        positive = phi > 0
        likeness[row[positive]], index[row[positive]] = phi[positive], column[positive]
    return Twins(torch.from_numpy(likeness), torch.from_numpy(index))


class Latents(NamedTuple):
    """A dictionary as a diff sees it."""

    name: str
    """Of the dictionary."""
    decoder: Decoder
    """A direction a latent."""
    rates: PerLatent
    """Share of tokens at which each fires."""


class FeatureRow(NamedTuple):
    """One latent, or a pair, of two dictionaries."""

    kind: Kind
    """`shared`: each is nearest to the other; `near`: it has a twin, which is nearer to another latent; or only one has it."""
    first: str
    """`name/latent` of the first dictionary; where only the second has it, its nearest there."""
    second: str
    """Likewise of the second."""
    cosine: float
    """Between the two directions."""
    first_rate: float
    """Share of tokens at which the latent of the first fires."""
    second_rate: float
    """Likewise of the second."""

    @property
    def change(self) -> float:
        """Rate in the second minus rate in the first."""
        return self.second_rate - self.first_rate


class FeatureDiff(NamedTuple):
    """What changed from one dictionary to another."""

    rows: list[FeatureRow]
    """In the order: only first, only second, shared by the size of the change, near."""

    def of(self, *kinds: Kind) -> list[FeatureRow]:
        """The rows of some kinds."""
        return [row for row in self.rows if row.kind in kinds]


def feature_diff(first: Latents, second: Latents, least: float) -> FeatureDiff:
    """Latents that only one of two dictionaries has (no direction of the other has a cosine of `least` with it), and those that both
    have, with their firing rates. Errors: `WidthMismatch`, `TooFewSamples` for rates of another number of latents."""
    for one in (first, second):
        if one.rates.numel() != len(one.decoder):
            raise TooFewSamples(
                f"{one.name!r} has {len(one.decoder)} latents and {one.rates.numel()} rates; give one rate a latent"
            )
    there, back = direction_twins(first.decoder, second.decoder), direction_twins(second.decoder, first.decoder)
    mutual = back.match[there.match] == torch.arange(len(first.decoder))

    def row(kind: Kind, i: int, j: int, cosine: float) -> FeatureRow:
        names = f"{first.name}/{i}", f"{second.name}/{j}"
        return FeatureRow(kind, *names, cosine, float(first.rates[i]), float(second.rates[j]))

    rows: dict[Kind, list[FeatureRow]] = {"only first": [], "only second": [], "shared": [], "near": []}
    for i, (cosine, j) in enumerate(zip(there.likeness.tolist(), there.match.tolist(), strict=True)):
        kind: Kind = "only first" if cosine < least else "shared" if bool(mutual[i]) else "near"
        rows[kind].append(row(kind, i, j, cosine))
    for j, (cosine, i) in enumerate(zip(back.likeness.tolist(), back.match.tolist(), strict=True)):
        if cosine < least:
            rows["only second"].append(row("only second", i, j, cosine))
        elif int(there.match[i]) != j:
            rows["near"].append(row("near", i, j, cosine))
    rows["shared"].sort(key=lambda shared: -abs(shared.change))
    return FeatureDiff([found for kind in rows.values() for found in kind])
