"""The shift meter on the walker: what is out of the family of graphs that it was trained on, and what it follows all the same."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from perimetry.axes import TokenIds
from perimetry.labs.base import Measured
from perimetry.labs.graph_tracing.scratch import ScratchArm
from perimetry.labs.graph_tracing.world import Graph, grid, hexagons, ring, star, tree
from perimetry.labs.nano import Nano
from perimetry.labs.points import BASELINES, CONCEPTS, PointMeter, aurocs, recipe_of, train_on_points
from perimetry.runtime import generator

__all__ = ["AttachConfig", "attach"]


class AttachConfig(NamedTuple):
    """Sizes."""

    walks: int
    """Test walks of each kind."""
    latents: int
    """Latents of the dictionary."""
    steps: int
    """Its training steps, of 512 tokens."""
    skip: int
    """Steps at the beginning of a walk that are not scored."""


def _kinds() -> dict[str, tuple[Graph, float]]:
    """Graph and teleport of each kind; what is in the family comes first."""
    return {
        "known": (grid(4, 4), 0.0),
        "known again": (grid(4, 4), 0.0),
        "ring 10": (ring(10), 0.0),
        "ring 13": (ring(13), 0.0),
        "hexagons": (hexagons(3, 3), 0.0),
        "tree": (tree(15), 0.0),
        "star": (star(12), 0.0),
        "teleport .1": (grid(4, 4), 0.1),
        "teleport .3": (grid(4, 4), 0.3),
        "teleport 1": (grid(4, 4), 1.0),
    }


def attach(model: Nano, arm: ScratchArm, at: AttachConfig, seed: int) -> list[Measured]:
    """AUROC of the mean score of a walk, against walks on the grid with new names."""
    draw = generator(15_486_719 + seed)
    reference = torch.cat(
        [arm.walks(graph, at.walks, draw).ids for graph in (grid(4, 4), grid(4, 4), *(ring(n) for n in (8, 10, 12)))]
    )
    states = _states(model, reference)[:, at.skip :].flatten(0, 1)
    recipe = recipe_of("batchtopk", width=at.latents, k=12, steps=at.steps, seed=seed, lr=2e-3)
    meter = PointMeter(train_on_points(states, recipe), states, (*CONCEPTS, *BASELINES))

    def scores(ids: TokenIds, skip: int = at.skip) -> dict[str, Float[Tensor, " walk"]]:
        own = {name: values.mean(1) for name, values in meter.by_place(_states(model, ids)[:, skip:]).items()}
        return own | _likelihoods(model, ids, skip)

    tests = {
        kind: arm.walks(graph, at.walks, draw, teleport=teleport).ids for kind, (graph, teleport) in _kinds().items()
    }
    tests["unused token"] = torch.where(tests["known"] == tests["known"][:, :1], arm.vocab - 1, tests["known"])
    tests["shuffled"] = _shuffled(tests["known"], draw)
    read = {kind: scores(ids) for kind, ids in tests.items()}
    clean = read.pop("known")
    found = [one for kind, own in read.items() for one in aurocs(f"AUROC of {kind}", clean, own)]
    # Rings are easier than the grid: whether a new length is strange is asked against a known one.
    found += aurocs("AUROC of ring 13 against ring 10", read["ring 10"], read["ring 13"])
    # Walks twice as long as any that was trained on, scored in their second half.
    length = min(2 * arm.length, arm.context)
    longer = arm.walks(grid(4, 4), at.walks, draw, length=length).ids
    return found + aurocs("AUROC of longer walks", clean, scores(longer, arm.length))


def _shuffled(ids: TokenIds, draw: torch.Generator) -> TokenIds:
    return ids.gather(1, torch.rand(ids.shape, generator=draw).argsort(1))


@torch.no_grad()
def _states(model: Nano, ids: TokenIds) -> Float[Tensor, "walk step d"]:
    last = model.config.layers - 1
    return torch.cat([model.read(some, (last,)).residuals[last] for some in ids.split(64)])


@torch.no_grad()
def _likelihoods(model: Nano, ids: TokenIds, skip: int) -> dict[str, Float[Tensor, " walk"]]:
    """Mean loss and entropy of a walk's steps, and the share of tokens that were there before."""
    nll, entropy = [], []
    for some in ids.split(64):
        logs = model(some).log_softmax(-1)
        nll.append(-logs[:, :-1].gather(2, some[:, 1:, None])[..., 0][:, skip:].mean(1))
        entropy.append(-(logs.exp() * logs).sum(-1)[:, skip:].mean(1))
    seen = torch.tril(ids[:, :, None] == ids[:, None], -1).any(2)
    return {"nll": torch.cat(nll), "entropy": torch.cat(entropy), "repetition": seen[:, skip:].float().mean(1)}
