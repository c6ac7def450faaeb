"""Which dictionaries are trained on which world, by name."""

from typing import Literal

from perimetry.config import Config
from perimetry.labs.sae_geometry.fitting import Kind

__all__ = ["CLUSTERS", "TREES", "ClusterArm", "TreeArm"]

TreeKind = Literal["matching_pursuit", "standard", "batchtopk", "matryoshka"]


class ClusterArm(Config):
    """A dictionary of a world of clusters."""

    world: Literal["a", "b", "b_wide"]
    """Separability, heterogeneity, or the latter at the published width."""
    kind: Kind
    """Its projection."""
    gamma: float = 0.0
    """Weight of its sparsity term."""
    k: int = 1
    """Active count of topk."""
    steps: int = 2000
    """Steps, of `batch` points."""
    width: int = 128
    """Latents."""
    batch: int = 512
    """Points of a step."""
    turned: bool = False
    """Whether a meter of it is asked about a cluster whose support turns (worlds of kind B)."""


class TreeArm(Config):
    """A dictionary of the tree."""

    kind: TreeKind
    """Architecture."""
    similarity: float = 0.3
    """Cosine within a group of siblings."""
    steps: int = 5000
    """Steps, of 200 points."""


A_STEPS, B_STEPS = 8203, 4000
CLUSTERS: dict[str, ClusterArm] = {
    "a_spade": ClusterArm(world="a", kind="spade", gamma=1e-3),
    "a_relu": ClusterArm(world="a", kind="relu", gamma=1e-4),
    "a_jumprelu": ClusterArm(world="a", kind="jumprelu", gamma=1e-3),
    "a_topk_18": ClusterArm(world="a", kind="topk", k=18, steps=A_STEPS),
    "a_topk_2": ClusterArm(world="a", kind="topk", k=2, steps=A_STEPS),
    "a_spade_heavy": ClusterArm(world="a", kind="spade", gamma=0.5, steps=A_STEPS),
    "a_softmax": ClusterArm(world="a", kind="softmax", gamma=1e-3),
    "a_spade_free": ClusterArm(world="a", kind="spade", gamma=0.0),
    "a_products": ClusterArm(world="a", kind="sparsemax", gamma=1e-3),
    "b_spade": ClusterArm(world="b", kind="spade", gamma=1.0, steps=B_STEPS, turned=True),
    "b_spade_light": ClusterArm(world="b", kind="spade", gamma=0.01, steps=B_STEPS),
    **{f"b_topk_{k}": ClusterArm(world="b", kind="topk", k=k, steps=B_STEPS, turned=k == 20) for k in (4, 10, 20)},
}
"""Clusters; those of the published grid begin with `published`."""
CLUSTERS |= {
    f"published_a_{kind}_{gamma:g}": ClusterArm.model_validate(
        {"world": "a", "kind": kind, "gamma": gamma, "steps": A_STEPS}
    )
    for kind, grid in {
        "relu": (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0),
        "jumprelu": (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0),
        "spade": (1e-5, 1e-4, 1e-3, 1e-2, 0.1, 0.5),
    }.items()
    for gamma in grid
}
CLUSTERS |= {f"published_a_topk_{k}": ClusterArm(world="a", kind="topk", k=k, steps=A_STEPS) for k in range(2, 21, 2)}
CLUSTERS |= {
    f"published_b_{kind}_{gamma:g}": ClusterArm.model_validate(
        {"world": "b_wide", "kind": kind, "gamma": gamma, "steps": 15_625, "width": 512, "batch": 2048}
    )
    for kind, grid in {
        "relu": (0.001, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0),
        "jumprelu": (0.001, 0.01, 0.025, 0.05, 0.075, 0.1, 1.0),
        "spade": (0.001, 0.01, 0.1, 1.0, 3.0, 5.0, 10.0),
    }.items()
    for gamma in grid
}
CLUSTERS |= {
    f"published_b_topk_{k}": ClusterArm(world="b_wide", kind="topk", k=k, steps=15_625, width=512, batch=2048)
    for k in (4, 8, 16, 32, 64, 128, 256)
}
TREES: dict[str, TreeArm] = {
    f"c_{kind}": TreeArm(kind=kind) for kind in ("matching_pursuit", "standard", "batchtopk", "matryoshka")
}
"""Trees."""
TREES |= {
    f"published_c_{kind}_{round(100 * s)}": TreeArm(kind=kind, similarity=s, steps=15_000)
    for kind in ("matching_pursuit", "standard", "batchtopk", "matryoshka")
    for s in (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
}
