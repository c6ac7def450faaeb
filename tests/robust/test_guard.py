"""What a look at guarded text says of how far the tap has moved."""

import math

import torch
from tests.robust.conftest import LAYER

from perimetry.activations.policy import TokenPolicy
from perimetry.activations.twins import Row
from perimetry.robust.adapter import Tunable
from perimetry.robust.guard import Guard
from perimetry.robust.objectives import Place
from perimetry.robust.passes import run


def moved(tunable: Tunable, size: float) -> None:
    """Low-rank matrices that do something."""
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in tunable.parameters().items():
            if "lora_B" in name:
                parameter.copy_(size * torch.randn(parameter.shape, generator=draw))


def norms(tunable: Tunable, rows: list[Row]) -> torch.Tensor:
    found = run(tunable.lm, rows, LAYER, TokenPolicy(max_norm=1e9), to_the_end=False)
    return found.residual.detach()[found.counts].norm(dim=1).sort().values


def test_a_token_that_becomes_a_sink_is_still_compared(tunable: Tunable, rows: list[Row]) -> None:
    # Half of all tokens lie below the limit, and many cross it as soon as anything moves.
    limit = float(norms(tunable, rows).median())
    place = Place(LAYER, TokenPolicy(max_norm=limit))
    guard = Guard(tunable, rows, place, 256)
    before = [run(tunable.lm, rows, LAYER, place.policy, to_the_end=False).counts]
    moved(tunable, 0.3)
    after = run(tunable.lm, rows, LAYER, place.policy, to_the_end=False).counts
    assert not torch.equal(before[0], after)
    look = guard.look()
    assert 0 < look.retain <= 1
    assert math.isfinite(look.clean)


def test_one_token_far_away_does_not_speak_for_all(tunable: Tunable, rows: list[Row]) -> None:
    guard = Guard(tunable, rows, Place(LAYER, TokenPolicy(max_norm=1e9)), 256)
    assert guard.look().retain == 0
    moved(tunable, 0.01)
    near = guard.look().retain
    assert 0 < near < 0.5
    moved(tunable, 1e4)
    assert near < guard.look().retain <= 1


def test_what_is_no_number_stays_none(tunable: Tunable, rows: list[Row]) -> None:
    guard = Guard(tunable, rows, Place(LAYER, TokenPolicy(max_norm=1e9)), 256)
    moved(tunable, float("nan"))
    look = guard.look()
    assert math.isnan(look.retain)
    assert math.isnan(look.clean)
