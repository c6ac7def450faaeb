"""The best that any detector could do: exact likelihoods of a sequence under the mixture and under each alternative."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from perimetry.labs.markov_mixture.algorithms import counts_of, log_likelihoods
from perimetry.labs.markov_mixture.world import Mixture

__all__ = ["log_fresh", "log_iid", "log_known", "log_near", "log_unordered"]

PerSequence = Float[Tensor, " sequence"]
CHUNK = 256


def log_known(mixture: Mixture, ids: Int[Tensor, "sequence time"]) -> PerSequence:
    """log of the chance of each sequence under the mixture, in nats, float64."""
    return (mixture.prior.double().log() + log_likelihoods(mixture.chains, ids)).logsumexp(1)


def log_fresh(k: int, ids: Int[Tensor, "sequence time"]) -> PerSequence:
    """The same under a chain whose rows are drawn evenly, all such chains together; the first state is taken as even."""
    counts = counts_of(ids, k)
    rows = math.lgamma(k) - torch.lgamma(counts.sum(2) + k) + torch.lgamma(counts + 1).sum(2)
    return rows.sum(1) - math.log(k)


def log_near(mixture: Mixture, beta: float, ids: Int[Tensor, "sequence time"]) -> PerSequence:
    """The same under chains drawn around those of the mixture; the first state as in the chain itself."""
    weights = (beta * mixture.chains.transitions.double()).clamp_min(1e-12)
    first = mixture.chains.stationary.double().log().T
    most = ids.shape[1]
    steps, rows = _gammas(weights.flatten(1), most), _gammas(weights.sum(2), most)
    found: list[Tensor] = []
    for some in ids.split(CHUNK):
        counts = counts_of(some, mixture.k)
        grown = _picked(steps, counts.flatten(1)) - _picked(rows, counts.sum(2))
        found.append((mixture.prior.double().log() + first[some[:, 0]] + grown).logsumexp(1))
    return torch.cat(found)


def _gammas(weights: Float[Tensor, "chain cell"], most: int) -> Float[Tensor, "entry chain"]:
    """log Gamma(w + c) - log Gamma(w) of every weight and every count below `most`, cell after cell: counts are few whole numbers, so
    that each value is computed once."""
    counts = torch.arange(most, dtype=torch.float64)
    table = torch.lgamma(weights[..., None] + counts) - torch.lgamma(weights)[..., None]
    return table.flatten(1).T.contiguous()


def _picked(
    table: Float[Tensor, "entry chain"], counts: Float[Tensor, "sequence cell"]
) -> Float[Tensor, "sequence chain"]:
    """Sum over the cells of each sequence of what the table has for their counts."""
    most = table.shape[0] // counts.shape[1]
    entries = counts.long() + most * torch.arange(counts.shape[1])
    return functional.embedding_bag(entries, table, mode="sum")


def log_unordered(mixture: Mixture, ids: Int[Tensor, "sequence time"]) -> PerSequence:
    """The same where a chain of the mixture gives the states and their order is lost: states drawn alone from what is stationary in it.

    A sequence whose order was drawn anew has the counts of the chain, which scatter a little more than those of states drawn alone.
    """
    states = functional.one_hot(ids, mixture.k).sum(1).double()
    alone = states @ mixture.chains.stationary.double().log().T
    return (mixture.prior.double().log() + alone).logsumexp(1)


def log_iid(k: int, ids: Int[Tensor, "sequence time"]) -> PerSequence:
    """The same under even draws."""
    return torch.full((ids.shape[0],), -ids.shape[1] * math.log(k), dtype=torch.float64)
