"""A world whose features are known: unit directions that fire sparsely, in trees, together; after SynthSAEBench (arXiv 2602.14687).

What a token is made of: a feature has a unit direction, a rate and a magnitude. Rates fall with the number of the feature as
Zipf's law says. The first features are the roots of trees, numbered level by level; a child fires only where its parent does,
and of the children of one parent at most one fires, drawn evenly among those that would. Firing is correlated by a Gaussian
copula of low rank. A magnitude is a rectified normal; a child's is multiplied by its parent's over the parent's mean. The token
is the sum of magnitude times direction, plus a bias.
"""

from collections.abc import Iterator
from typing import Final, NamedTuple, final

import torch
from jaxtyping import Bool, Float, Int
from scipy import special
from torch import Tensor
from torch.nn.functional import embedding_bag, one_hot

from perimetry.axes import Acts, ModelBias, PerEntry
from perimetry.evals.sae.synthetic_config import WorldConfig
from perimetry.runtime import generator
from perimetry.storage import hash_json

__all__ = ["BLOCK", "Fired", "World", "WorldSource", "mixed_seed"]

BLOCK: Final = 1024
"""Tokens that are drawn at a time; held-out tokens come in whole blocks, whatever the batch they are judged in."""

Directions = Float[Tensor, "feature d_model"]
PerFeature = Float[Tensor, " feature"]


class Fired(NamedTuple):
    """The true features of some tokens, sparse; entries lie by token, then by feature."""

    tokens: Int[Tensor, " entry"]
    """Token of each entry."""
    features: Int[Tensor, " entry"]
    """Feature that fires there."""
    values: PerEntry
    """Its magnitude, above 0."""
    total: int
    """Number of tokens, those without a feature included."""

    def keep(self, mask: Bool[Tensor, " entry"]) -> "Fired":
        """The entries where `mask` is true; tokens stay as many."""
        return Fired(self.tokens[mask], self.features[mask], self.values[mask], self.total)


def mixed_seed(*parts: object) -> int:
    """One seed out of several plain values, so that streams with neighbouring seeds have nothing in common.

    >>> mixed_seed("train", 0, 1) == mixed_seed("train", 1, 0)
    False
    """
    return int(hash_json([str(part) for part in parts])[:15], 16)


def _zipf(config: WorldConfig) -> PerFeature:
    shape = torch.arange(1, config.features + 1, dtype=torch.float64) ** -config.exponent
    share = (shape - shape[-1]) / (shape[0] - shape[-1])
    return config.rate_last + (config.rate_first - config.rate_last) * share


def _apart(rows: Directions, config: WorldConfig) -> Directions:
    """Adam on the sum of squared products of different rows plus `features` times that of (|row|^2 - 1)^2; rows of norm 1.

    The gradient of the first sum is 4 (D D^T D - |d|^2 d), which needs no matrix of features by features.
    """
    parameter = torch.nn.Parameter(rows.clone())
    adam = torch.optim.Adam([parameter], lr=config.orthogonal_lr)
    for _ in range(config.orthogonal_steps):
        d = parameter.data
        squares = d.square().sum(1, keepdim=True)
        parameter.grad = 4 * (d @ (d.T @ d) - squares * d) + 4 * config.features * (squares - 1) * d
        adam.step()
    found = parameter.detach()
    return found / found.norm(dim=1, keepdim=True)


def _left_alone(chances: Float[Tensor, "parent child"]) -> Float[Tensor, "parent child"]:
    """Chance of each child to fire and to win against its rivals, who fire independently and of whom one is drawn evenly.

    >>> _left_alone(torch.tensor([[1.0, 1.0]])).tolist()
    [[0.5, 0.5]]
    """
    parents, children = chances.shape
    won = torch.zeros_like(chances)
    for child in range(children):
        among = chances.new_zeros(parents, children)
        among[:, 0] = 1
        for rival in range(children):
            if rival != child:
                q = chances[:, rival, None]
                among = among * (1 - q) + torch.cat([among.new_zeros(parents, 1), among[:, :-1]], 1) * q
        won[:, child] = chances[:, child] * (among / torch.arange(1, children + 1)).sum(1)
    return won


@final
class World:
    """A drawn world: its features, and tokens of it from seeds."""

    def __init__(self, config: WorldConfig) -> None:
        self.config = config
        source = generator(mixed_seed("world", config.seed))
        rows = torch.randn(config.features, config.d_model, generator=source)
        self.directions: Directions = _apart(rows / rows.norm(dim=1, keepdim=True), config)
        """Unit direction of each feature."""
        bias = torch.randn(config.d_model, generator=source)
        self.bias: ModelBias = config.bias_norm * bias / bias.norm()
        """What all tokens have in common."""
        self.magnitudes: PerFeature = torch.linspace(config.magnitude_first, config.magnitude_last, config.features)
        """Mean magnitude before it is rectified."""
        self.spreads: PerFeature = (
            config.spread_mean + config.spread_sd * torch.randn(config.features, generator=source)
        ).abs()
        """Its standard deviation."""
        loadings = config.correlation_scale * torch.randn(config.features, config.correlation_rank, generator=source)
        # What a feature shares with others may not exceed its whole variance.
        loadings = loadings * (0.99 / loadings.square().sum(1, keepdim=True).clamp(min=1e-12)).sqrt().clamp(max=1)
        self._loadings, self._alone = loadings, (1 - loadings.square().sum(1)).sqrt()
        self.parents: Int[Tensor, " feature"] = torch.full((config.features,), -1)
        """Parent of each feature; -1 for roots and for features outside the trees."""
        self.levels: list[tuple[int, int]] = []
        """First and last feature (excluded) of each level of the trees."""
        start = 0
        for size in config.level_sizes:
            if self.levels:
                above = torch.arange(*self.levels[-1])
                self.parents[start : start + size] = above.repeat_interleave(config.branching)
            self.levels.append((start, start + size))
            start += size
        self.chances, self.rates = self._rates()
        """Chance of each feature given its parent and before its rivals; expected rate of each feature."""
        self._cuts = torch.from_numpy(-special.ndtri(self.chances.numpy())).float()
        self._roots = torch.cat([torch.arange(config.trees), torch.arange(start, config.features)])

    def _rates(self) -> tuple[PerFeature, PerFeature]:
        config, zipf = self.config, _zipf(self.config)
        chances, rates = zipf.clone(), zipf.clone()
        # A magnitude that is rectified to 0 counts as not firing.
        seen = torch.from_numpy(special.ndtr((self.magnitudes / self.spreads.clamp(min=1e-12)).double().numpy()))
        for level, (start, stop) in enumerate(self.levels[1:], 1):
            parents = torch.arange(*self.levels[level - 1])
            own = zipf[start:stop].reshape(-1, config.branching)
            above = zipf[parents, None]
            rivals = own.sum(1, keepdim=True) - own if config.exclusive else torch.zeros_like(own)
            given = own / above * (1 + rivals / above)
            given = (torch.full_like(given, config.together) if config.together is not None else given).clamp(max=1)
            chances[start:stop] = given.reshape(-1)
        rates = chances * seen
        for level, (start, stop) in enumerate(self.levels[1:], 1):
            parents = torch.arange(*self.levels[level - 1])
            given = chances[start:stop].reshape(-1, config.branching)
            given = _left_alone(given) if config.exclusive else given
            rates[start:stop] = (rates[parents, None] * given).reshape(-1) * seen[start:stop]
        return chances, rates

    def frequent(self, count: int) -> Int[Tensor, " head"]:
        """The `count` features of the highest expected rates, most frequent first; the lower number first among equals."""
        return self.rates.argsort(descending=True, stable=True)[:count]

    def expected_l0(self, count: int | None = None) -> float:
        """Expected number of features of a token, among all or among the `count` most frequent."""
        return float(self.rates[self.frequent(self.config.features if count is None else count)].sum())

    def draw(self, count: int, seed: int) -> Fired:
        """The features of `count` tokens; they depend on `count` and `seed` alone, bit for bit."""
        source = generator(seed)
        parts: list[Fired] = []
        for start in range(0, count, BLOCK):
            found = self._block(min(BLOCK, count - start), source)
            parts.append(found._replace(tokens=found.tokens + start))
        tokens, features, values = (
            torch.cat(column)
            for column in zip(*[(part.tokens, part.features, part.values) for part in parts], strict=True)
        )
        return Fired(tokens, features, values, count)

    def _block(self, count: int, source: torch.Generator) -> Fired:
        shared = torch.randn(count, self.config.correlation_rank, generator=source)
        noise = torch.randn(count, self._roots.shape[0], generator=source)
        pre = torch.addmm(noise.mul_(self._alone[self._roots]), shared, self._loadings[self._roots].T)
        tokens, columns = (pre > self._cuts[self._roots]).nonzero(as_tuple=True)
        found = self._seen(tokens, self._roots[columns], torch.ones(tokens.shape[0]), count, source)
        parts, above = [found], found.keep(found.features < self.config.trees)
        for _ in self.levels[1:]:
            above = self._children(above, shared, source)
            parts.append(above)
        tokens, features, values = (torch.cat(column) for column in zip(*[part[:3] for part in parts], strict=True))
        order = (tokens * self.config.features + features).argsort()
        return Fired(tokens[order], features[order], values[order], count)

    def _children(self, above: Fired, shared: Tensor, source: torch.Generator) -> Fired:
        """Those that fire among the children of `above`; a child whose parent is silent is not even drawn."""
        first = self.levels[0][1] + above.features * self.config.branching
        children = first[:, None] + torch.arange(self.config.branching)
        common = torch.einsum("er,ecr->ec", shared[above.tokens], self._loadings[children])
        fires = torch.randn(children.shape, generator=source) * self._alone[children] + common > self._cuts[children]
        if self.config.exclusive:
            lots = torch.rand(children.shape, generator=source).masked_fill(~fires, -1)
            fires = fires & one_hot(lots.argmax(1), self.config.branching).bool()
        at, child = fires.nonzero(as_tuple=True)
        scale = above.values[at] / self.magnitudes[above.features[at]]
        scale = scale if self.config.scaled_children else torch.ones_like(scale)
        return self._seen(above.tokens[at], children[at, child], scale, above.total, source)

    def _seen(self, tokens: Tensor, features: Tensor, scale: Tensor, count: int, source: torch.Generator) -> Fired:
        noise = torch.randn(features.shape[0], generator=source) * self.spreads[features]
        values = scale * torch.relu(self.magnitudes[features] + noise)
        return Fired(tokens, features, values, count).keep(values > 0)

    def mix(self, fired: Fired) -> Acts:
        """The tokens that these features make: sum of magnitude times direction, plus the bias."""
        ends = torch.searchsorted(fired.tokens, torch.arange(fired.total))
        summed = embedding_bag(
            fired.features, self.directions, ends, mode="sum", per_sample_weights=fired.values.to(self.directions.dtype)
        )
        return summed + self.bias

    def held_out(self, blocks: int, seed: int = 0) -> Iterator[Fired]:
        """`blocks` blocks of `BLOCK` tokens that no training sees; block i is the same however many there are."""
        for block in range(blocks):
            yield self.draw(BLOCK, mixed_seed("held out", self.config.seed, seed, block))


@final
class WorldSource:
    """Tokens of a world as a `Source` of training: endless, and the batch of a step depends on seed, size and step alone."""

    def __init__(self, world: World) -> None:
        self.world = world
        """Whose tokens."""

    def fired(self, batch: int, seed: int, step: int) -> Fired:
        """The features of the batch of a step."""
        return self.world.draw(batch, mixed_seed("train", self.world.config.seed, seed, step))

    def batches(self, batch: int, seed: int = 0, start_step: int = 0) -> Iterator[Acts]:
        """Batches from step `start_step` on."""
        step = start_step
        while True:
            yield self.world.mix(self.fired(batch, seed, step))
            step += 1
