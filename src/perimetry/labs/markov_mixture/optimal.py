"""The best that any detector could do: exact likelihoods of a sequence under the mixture and under each alternative."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from perimetry.labs.markov_mixture.algorithms import counts_of, log_likelihoods
from perimetry.labs.markov_mixture.world import Mixture

__all__ = ["log_fresh", "log_iid", "log_known", "log_near"]

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
    found: list[Tensor] = []
    for some in ids.split(CHUNK):
        counts = counts_of(some, mixture.k)[:, None]
        row = torch.lgamma(counts + weights).sum(3) - torch.lgamma(weights).sum(2)
        total = weights.sum(2)
        rows = torch.lgamma(total) - torch.lgamma(counts.sum(3) + total) + row
        found.append((mixture.prior.double().log() + first[some[:, 0]] + rows.sum(2)).logsumexp(1))
    return torch.cat(found)


def log_iid(k: int, ids: Int[Tensor, "sequence time"]) -> PerSequence:
    """The same under even draws."""
    return torch.full((ids.shape[0],), -ids.shape[1] * math.log(k), dtype=torch.float64)
