"""Dictionaries by a plain loop on any loss: as the study trains its own, and with the causal loss."""

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from perimetry.labs.descent import descend
from perimetry.labs.formal_languages.models import Site, packed, read_to_site, rest
from perimetry.labs.nano import Nano
from perimetry.labs.points import Scaled
from perimetry.runtime import generator
from perimetry.sae.affine import Weights
from perimetry.sae.topk import TopKSAE
from perimetry.train.causal import Interpolation, interpolated

__all__ = [
    "SHARE",
    "CausalSizes",
    "alone",
    "averaged",
    "causal",
    "interpolation",
    "released",
    "released_weight",
    "started",
    "undertrained",
]

SHARE: Final = 0.2
"""How far the causal loss moves a token on its way to the nearest other."""
States = Float[Tensor, "token d"]
Dense = Float[Tensor, "token latent"]


def averaged(states: States, made: States, codes: Dense, weight: float) -> Float[Tensor, ""]:
    """Squared error and `weight` times the sum of codes, both of a token, averaged over tokens."""
    return ((made - states).square().sum(1) + weight * codes.sum(1)).mean()


def released(states: States, made: States, codes: Dense, weight: float) -> Float[Tensor, ""]:
    """As the published code has it: squared error averaged over tokens and width, and `weight` times the sum of all codes of the batch."""
    return (made - states).square().mean() + weight * codes.sum()


def released_weight(weight: float, tokens: int, width: int) -> float:
    """The weight with which `averaged` has the gradient of `released`, divided by the width: it grows with the batch.

    >>> round(released_weight(1e-3, 1024, 64), 1)
    65.5
    """
    return weight * tokens * width


class CausalSizes(NamedTuple):
    """Sizes of the training with the causal loss."""

    steps: int
    """Updates, of one string each."""
    latents: int = 128
    """Latents."""
    k: int = 16
    """Active latents of a token."""
    lr: float = 1e-3
    """Learning rate of Adam."""


def started(d_model: int, latents: int, k: int, seed: int) -> TopKSAE:
    """Two linear layers with the usual uniform weights, independent of each other; the input is not centred."""
    draw = generator(seed)

    def uniform(rows: int, columns: int, inputs: int) -> Tensor:
        return (2 * torch.rand(rows, columns, generator=draw) - 1) / inputs**0.5

    weights = Weights(
        uniform(latents, d_model, d_model),
        uniform(latents, d_model, latents),
        uniform(1, latents, d_model)[0],
        uniform(1, d_model, latents)[0],
    )
    return TopKSAE(weights, k=k, subtract_b_dec=False)


def _codes(sae: TopKSAE, states: States) -> Dense:
    pre = states @ sae.W_enc.T + sae.b_enc
    kept = pre.topk(sae.k, dim=1)
    return torch.zeros_like(pre).scatter(1, kept.indices, kept.values.relu())


def _fitted(sae: TopKSAE, steps: int, lr: float, loss: Callable[[], Tensor]) -> TopKSAE:
    """Adam without a schedule."""
    optimiser = torch.optim.Adam(sae.parameters(), lr=lr, fused=True)
    for _ in range(steps):
        descend(optimiser, loss())
    return sae.requires_grad_(requires_grad=False).eval()


def undertrained(states: States, latents: int, k: int, steps: int, batch: int, lr: float, seed: int) -> Scaled:
    """TopK at a learning rate that hardly moves it from where it starts."""
    sae, draw = started(states.shape[1], latents, k, seed), generator(15_485_863 + seed)

    def loss() -> Tensor:
        rows = states[torch.randint(0, len(states), (batch,), generator=draw)]
        return (_codes(sae, rows) @ sae.W_dec + sae.b_dec - rows).square().mean()

    # It reads states as they are.
    return Scaled(_fitted(sae, steps, lr, loss), torch.zeros(states.shape[1]), 1.0)


def alone(model: Nano, strings: Sequence[Sequence[int]]) -> list[Site]:
    """Strings read one by one: a token moves towards another of its own string, for beginnings that are the same have the same states."""
    return [read_to_site(model, packed([string], len(string) + 1)) for string in strings]


def causal(model: Nano, read: Sequence[Site], sizes: CausalSizes, weight: float, seed: int) -> Scaled:
    """TopK with squared error, averaged over tokens and width, and `weight` times the error of interpolation, one string a step.

    States are centred and have a mean square of 1, so that the weight means the same whatever the size of the model's states.
    """
    sae, draw = started(model.config.width, sizes.latents, sizes.k, seed), generator(32_452_843 + seed)
    every = torch.cat([site.x[site.inside] for site in read])
    made = Scaled(sae, every.mean(0), float((every - every.mean(0)).square().mean().sqrt()))

    def loss() -> Tensor:
        site = read[int(torch.randint(0, len(read), (), generator=draw))]
        states = made.inputs(site.x[site.inside])
        codes = _codes(sae, states)
        lost = (codes @ sae.W_dec + sae.b_dec - states).square().mean()
        return lost + weight * interpolated(codes, _says(model, site, made), SHARE).error if weight else lost

    return made._replace(sae=_fitted(sae, sizes.steps, sizes.lr, loss))


def _says(model: Nano, site: Site, made: Scaled) -> Callable[[Dense], Float[Tensor, "token vocab"]]:
    """What the model says where its states are made of other codes."""
    return lambda z: rest(model, site, (z @ made.sae.W_dec + made.sae.b_dec) * made.scale + made.centre)


@torch.no_grad()
def interpolation(model: Nano, read: Sequence[Site], made: Scaled, share: float) -> Interpolation:
    """How straight what the model says is between the codes of neighbouring tokens: mean over strings."""
    found: list[Interpolation] = []
    for site in read:
        codes = made.sae(made.inputs(site.x[site.inside])).codes.dense()
        found.append(interpolated(codes, _says(model, site, made), share))
    error, size = (torch.stack(several).mean() for several in zip(*found, strict=True))
    return Interpolation(error, size)
