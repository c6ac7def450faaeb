"""Dictionaries of several losses, and what is none."""

import pytest
import torch

from perimetry.labs.formal_languages.dictionaries import SAESizes, controls, dictionary, normalised
from perimetry.measures.reconstruction import fvu
from perimetry.runtime import generator


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
