"""What a model does at one point of its training: how far it is from the truth, in and out of the mixture, and by which algorithms."""

from typing import NamedTuple

import torch
from jaxtyping import Float
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

__all__ = ["Contexts", "Phase", "contexts_of", "fixed", "phase_of", "resampled", "retrieves", "silly"]

RESAMPLED = 200


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
    """The same where the order of their contexts was lost."""
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
    order = torch.rand(contexts.fresh.ids.shape, generator=generator(1)).argsort(1)
    lost = model_matrices(model, contexts.fresh.ids.gather(1, order), k)
    known_by = {name: m for name, m in contexts.known_by.items() if name != without}
    fit = fit_weights(known, known_by)
    other = fit_weights(fresh, {name: m for name, m in contexts.fresh_by.items() if name != without})
    foretold = mixed(fit.weights, contexts.fresh_by)
    return Phase(
        known=_mean(known, contexts.mixture.chains, contexts.known.chain),
        fresh=_mean(fresh, contexts.fresh_chains, contexts.fresh.chain),
        shuffled=_mean(lost, contexts.fresh_chains, contexts.fresh.chain),
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


def fixed(contexts: Contexts) -> float:
    """What a mix that looks at nothing foretells: KL on unseen chains with even weights."""
    weights = dict.fromkeys(contexts.fresh_by, 1 / len(contexts.fresh_by))
    return _mean(mixed(weights, contexts.fresh_by), contexts.fresh_chains, contexts.fresh.chain)


def resampled(model: Nano, contexts: Contexts, seed: int) -> dict[str, tuple[float, float]]:
    """Weight of each algorithm -> 95 % interval over contexts, by the bootstrap."""
    known, draw = model_matrices(model, contexts.known.ids, contexts.mixture.k), generator(seed)
    found: dict[str, list[float]] = {name: [] for name in contexts.known_by}
    for _ in range(RESAMPLED):
        rows = torch.randint(known.shape[0], (known.shape[0],), generator=draw)
        fit = fit_weights(known[rows], {name: m[rows] for name, m in contexts.known_by.items()})
        for name, weight in fit.weights.items():
            found[name].append(weight)
    ends = torch.tensor([0.025, 0.975], dtype=torch.float64)
    return {
        name: tuple(torch.tensor(values, dtype=torch.float64).quantile(ends).tolist()) for name, values in found.items()
    }


def retrieves(model: Nano, contexts: Contexts, seed: int) -> Float[Tensor, " context"]:
    """Whether, on a chain that nobody has seen, the model is nearer to a chain of the mixture than to any of as many drawn ones.

    1 or 0 a context; a half on the mean where it does not retrieve.
    """
    mixture = contexts.mixture
    found = model_matrices(model, contexts.fresh.ids, mixture.k)
    _, drawn = mixture.fresh(mixture.prior.shape[0], 2, generator(7_919 + seed))
    least = [_nearest(found, chains) for chains in (mixture.chains, drawn)]
    return (least[0] < least[1]).double()


def _nearest(found: Matrices, chains: Chains) -> Float[Tensor, " context"]:
    """Least KL from any of some chains."""
    own = torch.stack(
        [
            matrix_kl(found, chains, torch.full((found.shape[0],), i, dtype=torch.long))
            for i in range(chains.stationary.shape[0])
        ]
    )
    return own.min(0).values


def _mean(matrices: Matrices, chains: Chains, chain: Tensor) -> float:
    return float(matrix_kl(matrices, chains, chain).mean())
