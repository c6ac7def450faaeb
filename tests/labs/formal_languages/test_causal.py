"""The causal loss, and dictionaries of several losses, by hand."""

import pytest
import torch

from perimetry.labs.formal_languages.causal import interpolated, nearest_others
from perimetry.labs.formal_languages.dictionaries import SAESizes, controls, dictionary, normalised
from perimetry.measures.reconstruction import fvu
from perimetry.runtime import generator


def test_nearest_others_are_others() -> None:
    points = torch.tensor([[0.0, 0.0], [0.1, 0.0], [5.0, 5.0], [5.0, 5.2]])
    assert nearest_others(points).tolist() == [1, 0, 3, 2]
    assert nearest_others(points, chunk=3).tolist() == [1, 0, 3, 2]
    same = torch.zeros(3, 2)
    assert all(i != j for i, j in enumerate(nearest_others(same).tolist()))


def test_a_straight_model_interpolates_and_a_bent_one_does_not() -> None:
    latents = torch.randn(40, 6, generator=generator(0), requires_grad=True)
    weights = torch.randn(6, 3, generator=generator(1))
    straight = interpolated(latents, lambda z: z @ weights, 0.2)
    assert float(straight.error.detach()) < 1e-10
    assert float(straight.size.detach()) > 1e-3
    bent = interpolated(latents, lambda z: (z @ weights).square(), 0.2)
    assert float(bent.error.detach()) > 1e-3
    bent.error.backward()
    assert latents.grad is not None
    one = torch.tensor([[0.0], [1.0]])
    # At a half, the square of 1/2 is .25 where .5 lies between: an error of .0625.
    assert float(interpolated(one, torch.square, 0.5).error) == pytest.approx(0.0625)


def test_dictionaries_and_what_is_none() -> None:
    states = torch.randn(2000, 12, generator=generator(2)) @ torch.randn(12, 12, generator=generator(3)) + 2
    sizes = SAESizes(32, 300, 256)
    good = dictionary(states, sizes, 0, k=8)
    lost = {name: fvu(states, splice(states)) for name, splice in controls(states, sizes, 0).items()}
    assert lost["mean"] == pytest.approx(1.0, abs=1e-3)
    assert lost["zero"] > 1
    assert fvu(states, good.splice(states)) < 0.5 * lost["drawn dictionary"]
    heavy, light = (dictionary(states, sizes, 0, penalty=p) for p in (60.0, 0.01))
    assert fvu(states, heavy.splice(states)) > fvu(states, light.splice(states))
    both = {name: splice(states) for name, splice in normalised(states, sizes, 0, 8).items()}
    assert fvu(states, both["normalised, rescaled"]) < 0.5 < fvu(states, both["normalised, unscaled"])
