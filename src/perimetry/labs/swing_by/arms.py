"""The worlds of the theory and the networks, by name."""

from perimetry.labs.swing_by.networks import NetworkArm

__all__ = ["NETWORKS", "SIZES"]

SIZES: dict[str, tuple[float, ...]] = {"1_2": (1.0, 2.0), "2_4": (2.0, 4.0), "three": (1.0, 1.5, 2.2)}
"""Sizes of the concepts of the theory."""
PUBLISHED = {"loss": "mean", "lr": 0.1, "steps": 4688}
"""The published recipe: 40 epochs of 15,000 points in batches of 128."""
NETWORKS: dict[str, NetworkArm] = {
    "deep_linear": NetworkArm(layers=4, factor=0.7),
    "deep_relu": NetworkArm(layers=4, relu=True, factor=0.7, steps=3500),
    "net_one_layer": NetworkArm(layers=1, factor=0.7),
    "net_two_default": NetworkArm(layers=2),
    "order_narrow": NetworkArm.model_validate({"layers": 2, "relu": True, "mu": (1.0, 2.0), **PUBLISHED}),
    "order_wide": NetworkArm.model_validate(
        {"layers": 2, "relu": True, "mu": (1.0, 2.0), "variance": (2.0, 0.05), **PUBLISHED}
    ),
}
"""Networks of the quick preset."""
NETWORKS |= {
    f"published_{layers}_{'relu' if relu else 'linear'}_{name}": NetworkArm.model_validate(
        {"layers": layers, "relu": relu, **PUBLISHED, **world}
    )
    for layers in (1, 2, 3, 4)
    for relu in (False, True)
    for name, world in {
        **{f"var_{v:g}": {"mu": (1.0, 2.0), "variance": (v, 0.05)} for v in (0.05, 0.1, 0.5, 1.0, 2.0)},
        **{f"mu_{m:g}_2": {"mu": (m, 2.0)} for m in (2.0, 3.0)},
        "mu_2_4": {"mu": (2.0, 4.0)},
        # Four clusters: 40 epochs are more steps.
        "hierarchy": {"mu": (1.0, 2.0, 3.0, 4.0), "variance": (0.5,) * 4, "origin": False, "steps": 6250},
    }.items()
}
"""Networks by name; those of the published grid begin with `published`."""
