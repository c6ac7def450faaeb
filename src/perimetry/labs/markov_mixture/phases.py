"""What a model does at one point of its training: how far it is from the truth, in and out of the mixture, and by which algorithms."""

from typing import NamedTuple

import torch
from torch import Tensor

from perimetry.labs.markov_mixture.algorithms import (
    Matrices,
    algorithm_matrices,
    fit_weights,
    matrix_kl,
    mixed,
    model_matrices,
)
from perimetry.labs.markov_mixture.world import Chains, Mixture, Sample
from perimetry.labs.nano import Nano
from perimetry.runtime import generator

__all__ = ["Contexts", "Phase", "contexts_of", "phase_of", "silly"]


class Contexts(NamedTuple):
    """Contexts that every look of a run uses, with what the algorithms make of them."""

    known: Sample
    """Of the mixture."""
    known_by: dict[str, Matrices]
    """What each algorithm says."""
    fresh: Sample
    """Of chains that nobody has seen."""
    fresh_chains: Chains
    """These chains."""
    fresh_by: dict[str, Matrices]
    """What each algorithm says."""
    mixture: Mixture
    """The mixture."""


class Phase(NamedTuple):
    """One look at a model."""

    known: float
    """KL of the model from the truth on the mixture, in nats."""
    fresh: float
    """The same on chains that nobody has seen."""
    shuffled: float
    """The same where the order of the context was lost."""
    weights: dict[str, float]
    """The mix of algorithms nearest to it on the mixture."""
    residual: float
    """Root mean squared distance of a chance from that mix."""
    foretold: float
    """KL on unseen chains of that mix, which was fitted on the mixture alone."""
    fresh_weights: dict[str, float]
    """The mix nearest to it on unseen chains."""


def contexts_of(mixture: Mixture, n: int, length: int, seed: int) -> Contexts:
    """Draw the contexts."""
    draw = generator(104_729 + seed)
    known = mixture.known(n, length, draw)
    fresh, chains = mixture.fresh(n, length, draw)
    return Contexts(
        known, algorithm_matrices(mixture, known.ids), fresh, chains, algorithm_matrices(mixture, fresh.ids), mixture
    )


def phase_of(model: Nano, contexts: Contexts, *, without: str = "") -> Phase:
    """Look at a model; `without` leaves an algorithm out of the fit."""
    k = contexts.mixture.k
    known, fresh = model_matrices(model, contexts.known.ids, k), model_matrices(model, contexts.fresh.ids, k)
    order = torch.rand(contexts.known.ids.shape, generator=generator(1)).argsort(1)
    lost = model_matrices(model, contexts.known.ids.gather(1, order), k)
    known_by = {name: m for name, m in contexts.known_by.items() if name != without}
    fit = fit_weights(known, known_by)
    other = fit_weights(fresh, {name: m for name, m in contexts.fresh_by.items() if name != without})
    foretold = mixed(fit.weights, contexts.fresh_by)
    return Phase(
        known=_mean(known, contexts.mixture.chains, contexts.known.chain),
        fresh=_mean(fresh, contexts.fresh_chains, contexts.fresh.chain),
        shuffled=_mean(lost, contexts.mixture.chains, contexts.known.chain),
        weights=fit.weights,
        residual=fit.error,
        foretold=_mean(foretold, contexts.fresh_chains, contexts.fresh.chain),
        fresh_weights=other.weights,
    )


def silly(model: Nano, contexts: Contexts) -> dict[str, float]:
    """The mix where two algorithms that nobody would run may take part as well: even chances, and the last state again."""
    k = contexts.mixture.k
    known = model_matrices(model, contexts.known.ids, k)
    same = torch.eye(k, dtype=torch.float64).expand_as(known)
    even = torch.full_like(known, 1 / k)
    return fit_weights(known, contexts.known_by | {"even": even, "again": same}).weights


def _mean(matrices: Matrices, chains: Chains, chain: Tensor) -> float:
    return float(matrix_kl(matrices, chains, chain).mean())
