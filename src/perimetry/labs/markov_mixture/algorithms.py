"""The four algorithms that could run in context, each as a matrix of next-state chances, and the mix of them that a model runs.

A context of length c ends in a state; every algorithm (and the model) is asked for its chances after each state s, put there in place
of the last one. Counts and likelihoods hold the step into s.
"""

import itertools
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from perimetry.labs.markov_mixture.world import Chains, Mixture, stationary
from perimetry.labs.nano import Nano

__all__ = [
    "ALGORITHMS",
    "Fit",
    "algorithm_matrices",
    "counts_of",
    "fit_weights",
    "log_likelihoods",
    "matrix_kl",
    "mixed",
    "model_matrices",
]

Matrices = Float[Tensor, "context state state"]
ALGORITHMS = ("Uni-Ret", "Bi-Ret", "Uni-Inf", "Bi-Inf")
"""Retrieve a chain by its states or its steps; infer the states' chances or the steps'."""
TINY = 1e-8


def counts_of(ids: Int[Tensor, "context time"], k: int) -> Float[Tensor, "context state state"]:
    """How often each step occurs in each context, float64."""
    steps = ids[:, :-1] * k + ids[:, 1:]
    out = torch.zeros(ids.shape[0], k * k, dtype=torch.float64)
    return out.scatter_add_(1, steps, torch.ones_like(steps, dtype=torch.float64)).view(-1, k, k)


def log_likelihoods(chains: Chains, ids: Int[Tensor, "context time"]) -> Float[Tensor, "context chain"]:
    """log pi_i(x_1) + sum log T_i(x_{t-1}, x_t) of each context under each chain, float64."""
    k = chains.stationary.shape[1]
    steps = counts_of(ids, k).flatten(1) @ chains.transitions.double().log().flatten(1).T
    return chains.stationary.double().log().T[ids[:, 0]] + steps


def _inserted(ids: Int[Tensor, "context time"], k: int) -> Int[Tensor, "context state time"]:
    """Each context with each state in the last place."""
    out = ids[:, None].repeat(1, k, 1)
    out[:, :, -1] = torch.arange(k)
    return out


def algorithm_matrices(mixture: Mixture, ids: Int[Tensor, "context time"]) -> dict[str, Matrices]:
    """What each algorithm would say after each state, float64."""
    k, n_contexts = mixture.k, ids.shape[0]
    flat = _inserted(ids, k).flatten(0, 1)
    prior, chains = mixture.prior.double().log(), mixture.chains
    seen = torch.zeros(flat.shape[0], k, dtype=torch.float64)
    seen.scatter_add_(1, flat, torch.ones_like(flat, dtype=torch.float64))
    by_states = (prior + seen @ chains.stationary.double().log().T).softmax(1)
    by_steps = (prior + log_likelihoods(chains, flat)).softmax(1)
    last = flat[:, -1]
    counts = counts_of(flat, k) + 1
    inferred = counts / counts.sum(2, keepdim=True)
    rows = torch.arange(flat.shape[0])
    # Of a whole matrix a chain, only the row of the inserted state is wanted.
    after = chains.transitions.double().permute(1, 0, 2)
    retrieved = torch.cat([by_steps[last == s] @ after[s] for s in range(k)])
    order = torch.cat([rows[last == s] for s in range(k)])
    bi_ret = torch.empty_like(retrieved)
    bi_ret[order] = retrieved
    found = {
        "Uni-Ret": by_states @ chains.stationary.double(),
        "Bi-Ret": bi_ret,
        "Uni-Inf": stationary(inferred),
        "Bi-Inf": inferred[rows, last],
    }
    return {name: found[name].view(n_contexts, k, k) for name in ALGORITHMS}


@torch.no_grad()
def model_matrices(model: Nano, ids: Int[Tensor, "context time"], k: int, *, chunk: int = 128) -> Matrices:
    """What the model says after each state, float64; of its vocabulary the first k tokens are the states."""
    return torch.cat([model.after(some[:, :-1], k)[..., :k].double().softmax(-1) for some in ids.split(chunk)])


def matrix_kl(found: Matrices, chains: Chains, chain: Int[Tensor, " context"]) -> Float[Tensor, " context"]:
    """sum_s pi_s sum_j found_sj log(found_sj / (T_sj + 1e-8)), the estimate first and the truth second, in nats."""
    truth = chains.transitions[chain].double()
    inner = (found * (found.clamp_min(1e-300) / (truth + TINY)).log()).sum(2)
    return (chains.stationary[chain].double() * inner).sum(1)


class Fit(NamedTuple):
    """The mix of algorithms nearest to a model."""

    weights: dict[str, float]
    """Weight of each, 0 or more, summing to 1."""
    error: float
    """Root of the mean squared distance of a chance."""


def fit_weights(model: Matrices, algorithms: dict[str, Matrices]) -> Fit:
    """Least squares over the simplex, exactly: the best of all faces on which the solution has no weight below 0."""
    names = list(algorithms)
    columns = torch.stack([algorithms[name].flatten() for name in names], 1)
    gram, cross = columns.T @ columns, columns.T @ model.flatten()
    total = float(model.square().sum())
    best: tuple[float, Tensor] | None = None
    for size in range(1, len(names) + 1):
        for face in itertools.combinations(range(len(names)), size):
            chosen = torch.tensor(face)
            weights = _on_face(gram[chosen][:, chosen], cross[chosen])
            if float(weights.min()) < -1e-12:
                continue
            whole = torch.zeros(len(names), dtype=torch.float64)
            whole[chosen] = weights.clamp_min(0)
            cost = float(whole @ gram @ whole - 2 * whole @ cross) + total
            if best is None or cost < best[0] - 1e-12:
                best = cost, whole
    assert best is not None  # a corner has the weight 1
    error = (max(best[0], 0.0) / model.numel()) ** 0.5
    return Fit(dict(zip(names, best[1].tolist(), strict=True)), error)


def _on_face(gram: Tensor, cross: Tensor) -> Tensor:
    """Least squares with weights that sum to 1; of solutions that are alike the shortest."""
    n = cross.shape[0]
    system = torch.ones(n + 1, n + 1, dtype=torch.float64)
    system[:n, :n], system[n, n] = gram, 0.0
    right = torch.cat([cross, torch.ones(1, dtype=torch.float64)])
    return (torch.linalg.pinv(system, hermitian=True) @ right)[:n]


def mixed(weights: dict[str, float], algorithms: dict[str, Matrices]) -> Matrices:
    """The matrices of a mix."""
    return torch.stack([w * algorithms[name] for name, w in weights.items()]).sum(0)
