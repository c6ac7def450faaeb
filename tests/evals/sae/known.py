"""A small world in which every feature can be read exactly, and dictionaries for it whose faults are known."""

from functools import lru_cache

import torch

from perimetry.evals.sae.synthetic import World
from perimetry.evals.sae.synthetic_config import WorldConfig
from perimetry.sae.affine import Weights
from perimetry.sae.jumprelu import JumpReLUSAE

CONFIG = WorldConfig(
    features=24,
    d_model=32,
    trees=3,
    branching=3,
    depth=1,
    together=0.3,
    rate_first=0.4,
    rate_last=0.1,
    spread_mean=0.3,
    spread_sd=0.0,
    correlation_rank=0,
    orthogonal_steps=100,
    orthogonal_lr=1e-2,
)


@lru_cache(maxsize=1)
def known_world() -> World:
    return World(CONFIG)


def weights(world: World) -> Weights:
    """The true directions, and the rows that read each magnitude alone: more dimensions than features allow that."""
    reading = torch.linalg.pinv(world.directions.double()).T.float()
    features = world.config.features
    return Weights(reading, world.directions.clone(), torch.zeros(features), world.bias.clone())


def dictionary(of: Weights) -> JumpReLUSAE:
    """A latent fires where what it reads is above .01."""
    made = JumpReLUSAE(of, threshold=torch.full_like(of.b_enc, 0.01), subtract_b_dec=True)
    return made.requires_grad_(requires_grad=False).eval()


def perfect(world: World) -> JumpReLUSAE:
    return dictionary(weights(world))


def absorbing(world: World, pairs: dict[int, int], share: float = 1.0) -> JumpReLUSAE:
    """The perfect dictionary, save that the latent of each parent is silenced by that of a child, which writes the parent too.

    `pairs`: child -> parent. The child's latent carries `share` of the parent's mean magnitude over its own.
    """
    made = weights(world)
    reading, rows = made.W_enc.clone(), made.W_dec.clone()
    for child, parent in pairs.items():
        reading[parent] -= 100 * made.W_enc[child]
        ratio = world.magnitudes[parent] / world.magnitudes[child]
        rows[child] += share * ratio * world.directions[parent]
    return dictionary(made._replace(W_enc=reading, W_dec=rows))


def permuted(sae: JumpReLUSAE, order: torch.Tensor) -> JumpReLUSAE:
    """The same dictionary with its latents in another order."""
    parts = Weights(sae.W_enc[order], sae.W_dec[order], sae.b_enc[order], sae.b_dec)
    return dictionary(parts)
