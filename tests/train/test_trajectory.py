"""Training by the fast step ends where training by dense float32 autograd ends, over seeds."""

import pytest
import torch
from tests.train.planted import D_MODEL, Planted, config

from perimetry.sae.steps import low
from perimetry.sae.steps.native.int8 import int8_usable
from perimetry.train.trainer import Trainer

STEPS = 150


def run(step: str, name: str, seed: int) -> tuple[float, float, float]:
    """FVU and L0 over the last steps, and the share of latents that were silent in the second half."""
    made = Trainer(
        config(architecture=name, step=step, seed=seed, tokens=64 * STEPS, dead_after=64 * 20),
        0.05,
        torch.zeros(D_MODEL),
    )
    fvu, l0, fired = 0.0, 0.0, torch.zeros(128, dtype=torch.bool)
    for i in range(STEPS):
        result = made.advance(Planted().draw(64, i))
        if i >= STEPS // 2:
            fired |= result.fired
        if i >= STEPS - 20:
            fvu, l0 = fvu + result.fvu / 20, l0 + result.l0 / 20
    return fvu, l0, float((~fired).float().mean())


@pytest.mark.parametrize("name", ["batchtopk", "gated", "jumprelu", "matryoshka", "standard", "topk"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_trajectory_is_that_of_dense_training(name: str, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # Small as the batches are, selection goes through few bits, as it does at full size.
    monkeypatch.setattr(low, "SMALLEST", 0)
    monkeypatch.setattr(low, "selection", lambda: "int8" if int8_usable() and seed < 2 else "bf16")
    fast, dense = run("sparse", name, seed), run("dense", name, seed)
    assert fast[0] == pytest.approx(dense[0], rel=0.01)
    assert fast[1] == pytest.approx(dense[1], rel=0.01)
    assert fast[2] == pytest.approx(dense[2], abs=0.02)
    assert dense[0] < 0.9, "training has learned something"
