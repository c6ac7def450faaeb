"""A mixture of Markov chains: a sequence comes from one of n fixed chains, drawn by a prior."""

from typing import Literal, NamedTuple, final

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from perimetry.errors import UsageError
from perimetry.runtime import generator

__all__ = ["Chains", "Mixture", "Sample", "fresh_chains", "published_chains", "stationary"]

Prior = Literal["drawn", "uniform"]
TINY = 1e-8


class Chains(NamedTuple):
    """Some chains."""

    transitions: Float[Tensor, "chain state state"]
    """Row s: chances of the states after s."""
    stationary: Float[Tensor, "chain state"]
    """Long-run chances of the states."""


class Sample(NamedTuple):
    """Some sequences."""

    ids: Int[Tensor, "sequence time"]
    """States."""
    chain: Int[Tensor, " sequence"]
    """Chain that each is from, in the mixture or among the fresh ones."""


def stationary(transitions: Float[Tensor, "chain state state"]) -> Float[Tensor, "chain state"]:
    """The distribution that a chain leaves as it is, by a linear solve; clipped above 0 and brought to sum 1."""
    k = transitions.shape[-1]
    system = transitions.double().transpose(1, 2) - torch.eye(k, dtype=torch.float64)
    system[:, -1] = 1.0
    right = torch.zeros(transitions.shape[0], k, 1, dtype=torch.float64)
    right[:, -1] = 1.0
    found = torch.linalg.solve(system, right)[..., 0].clamp_min(TINY)
    return (found / found.sum(1, keepdim=True)).to(transitions.dtype)


def _chains(transitions: Tensor) -> Chains:
    clipped = transitions.clamp_min(TINY)
    rows = clipped / clipped.sum(-1, keepdim=True)
    return Chains(rows, stationary(rows))


def _dirichlet(weights: Tensor, draw: torch.Generator) -> Tensor:
    """One draw for each row of weights."""
    return torch._standard_gamma(weights.double().clamp_min(TINY), generator=draw).clamp_min(1e-30)


def fresh_chains(n: int, k: int, seed: int) -> Chains:
    """Chains whose rows are drawn evenly from all distributions over k states."""
    gamma = _dirichlet(torch.ones(n, k, k), generator(seed))
    return _chains((gamma / gamma.sum(-1, keepdim=True)).float())


def published_chains(n: int, k: int = 10, seed: int = 42) -> tuple[Chains, Float[Tensor, " chain"]]:
    """Chains and prior of the published runs: n uniforms, then n seeds below 100,000, one Dirichlet draw of k rows from each.

    >>> [round(float(p), 5) for p in published_chains(4)[1]]
    [0.14102, 0.35796, 0.27561, 0.22541]
    """
    draw = np.random.RandomState(seed)
    prior = draw.rand(n)
    seeds = draw.randint(0, 100_000, n)
    rows = [np.random.RandomState(int(s)).dirichlet(np.ones(k), k) for s in seeds]
    return _chains(torch.tensor(np.stack(rows), dtype=torch.float32)), torch.tensor(
        prior / prior.sum(), dtype=torch.float32
    )


def _sequences(chains: Chains, chain: Tensor, length: int, draw: torch.Generator) -> Tensor:
    """One sequence of each chain named, all at once: cumulative rows against uniforms."""
    rows = chains.transitions.cumsum(-1)
    first = chains.stationary.cumsum(-1)
    uniform = torch.rand(chain.shape[0], length, generator=draw)
    last = chains.stationary.shape[1] - 1
    ids = torch.empty(chain.shape[0], length, dtype=torch.int64)
    ids[:, 0] = (uniform[:, :1] > first[chain]).sum(1).clamp_max(last)
    for t in range(1, length):
        ids[:, t] = (uniform[:, t, None] > rows[chain, ids[:, t - 1]]).sum(1).clamp_max(last)
    return ids


@final
class Mixture:
    """The chains that are trained on, and every kind of sequence that a test wants."""

    def __init__(self, n: int, k: int, seed: int, *, prior: Prior = "drawn", published: bool = False) -> None:
        """`prior`: uniforms brought to sum 1, or all the same. `published`: the chains of the published runs, whatever the seed."""
        self.k, self.seed = k, seed
        if published:
            self.chains, self.prior = published_chains(n, k)
        else:
            self.chains = fresh_chains(n, k, 2 * seed)
            self.prior = torch.rand(n, generator=generator(2 * seed + 1)).clamp_min(TINY)
            self.prior = self.prior / self.prior.sum()
        if prior == "uniform":
            self.prior = torch.full((n,), 1 / n)

    @property
    def n(self) -> int:
        """Number of chains."""
        return self.prior.shape[0]

    def known(self, sequences: int, length: int, draw: torch.Generator) -> Sample:
        """Sequences of the mixture."""
        chain = torch.multinomial(self.prior, sequences, replacement=True, generator=draw)
        return Sample(_sequences(self.chains, chain, length, draw), chain)

    def of_chain(self, which: int, sequences: int, length: int, draw: torch.Generator) -> Sample:
        """Sequences of one chain of the mixture."""
        chain = torch.full((sequences,), which)
        return Sample(_sequences(self.chains, chain, length, draw), chain)

    def fresh(self, sequences: int, length: int, draw: torch.Generator) -> tuple[Sample, Chains]:
        """Sequences of chains that nobody has seen, one each."""
        seed = int(torch.randint(0, 2**31, (1,), generator=draw))
        chains = fresh_chains(sequences, self.k, seed)
        chain = torch.arange(sequences)
        return Sample(_sequences(chains, chain, length, draw), chain), chains

    def near(self, beta: float, sequences: int, length: int, draw: torch.Generator) -> Sample:
        """Sequences of chains drawn around those of the mixture: rows from Dirichlet(beta times the row); small beta = far."""
        chain = torch.multinomial(self.prior, sequences, replacement=True, generator=draw)
        gamma = _dirichlet(beta * self.chains.transitions[chain], draw)
        chains = _chains((gamma / gamma.sum(-1, keepdim=True)).float())
        return Sample(_sequences(chains, torch.arange(sequences), length, draw), chain)

    def block(self, sequences: int, length: int, draw: torch.Generator) -> Sample:
        """Sequences of chains of two halves of the states, within which five times the weight lies. Errors: `UsageError`."""
        if self.k % 2:
            raise UsageError(f"{self.k} states have no two halves; block chains want an even number")
        half = torch.arange(self.k) < self.k // 2
        weights = torch.where(half[:, None] == half, 5.0, 1.0).expand(sequences, -1, -1)
        gamma = _dirichlet(weights, draw)
        chains = _chains((gamma / gamma.sum(-1, keepdim=True)).float())
        chain = torch.arange(sequences)
        return Sample(_sequences(chains, chain, length, draw), chain)

    def shuffled(self, sequences: int, length: int, draw: torch.Generator) -> Sample:
        """Sequences of the mixture with their order lost."""
        found = self.known(sequences, length, draw)
        order = torch.rand(found.ids.shape, generator=draw).argsort(1)
        return Sample(found.ids.gather(1, order), found.chain)

    def iid(self, sequences: int, length: int, draw: torch.Generator) -> Sample:
        """States drawn evenly, each by itself."""
        ids = torch.randint(0, self.k, (sequences, length), generator=draw)
        return Sample(ids, torch.zeros(sequences, dtype=torch.int64))
