"""What a meter weighs at real dimensions, without a model: states of small widths are measured and drawn out to large ones."""

from typing import NamedTuple

import pytest
import torch

from perimetry.runtime import generator
from perimetry.sae.base import Codes
from perimetry.shift import DETECTORS
from perimetry.shift.base import Evidence, LogitStats
from perimetry.shift.clean import MeterConfig
from perimetry.shift.profile import Dictionary, Profile

D_MODEL, VOCAB = 576, 49_152
WIDTHS = (640, 768, 1024)
"""Above the 512 slots of a pooled code, below what takes long."""
PROMPTS, LENGTH, SLOTS = 523, 4, 200
"""Slots: the most active concepts of one token; five times what a usual dictionary fires on the mean."""
MEGABYTE = 1_000_000
CONTEXT_BYTES = 160
"""A snippet: 48 characters on each side and the token, some of two bytes."""


class Size(NamedTuple):
    """Bytes of one state tensor by the width of the dictionary: `fixed + slope * width`."""

    fixed: float
    slope: float


def evidence(width: int) -> Evidence:
    draw, n = generator(0), PROMPTS * LENGTH
    acts = torch.randn(n, D_MODEL, generator=draw)
    indices = torch.stack([torch.randperm(width, generator=draw)[:SLOTS] for _ in range(n)])
    return Evidence(
        acts=acts,
        codes=Codes(indices, torch.rand(n, SLOTS, generator=draw) + 0.1, width),
        reconstruction=0.9 * acts,
        tokens=torch.randint(0, VOCAB, (n,), generator=draw),
        positions=torch.arange(1, LENGTH + 1).repeat(PROMPTS),
        prompt=torch.arange(PROMPTS).repeat_interleave(LENGTH),
        words=torch.full((PROMPTS,), 3.0),
        logits=LogitStats(*(torch.rand(n, generator=draw) for _ in range(3))),
        **({"foresight": acts} if "foresight" in Evidence._fields else {}),
    )


def grown(name: str, tensor: torch.Tensor, profile: Profile) -> int:
    """Bytes of a state tensor once the samples are as full as they get."""
    rows = tensor.shape[0] if tensor.ndim else 1
    config = MeterConfig()
    pairs = profile.together.table()[0].numel()
    full = {
        profile.sample.keys.numel(): config.bank,
        PROMPTS: profile.prompt_sample.capacity,
        # Every pair of the 32 strongest concepts of every prompt, as if no two prompts had one in common.
        pairs: 496 * config.profile_tokens // 50,
    }
    return tensor.numel() * tensor.element_size() * full.get(rows, rows) // rows


def states(width: int) -> dict[str, int]:
    draw = generator(1)
    decoder = torch.nn.functional.normalize(torch.randn(width, D_MODEL, generator=draw), dim=1)
    dictionary = Dictionary(decoder, torch.zeros(D_MODEL))
    profile = Profile.empty(D_MODEL, width, VOCAB, 0, dictionary=dictionary, sample=MeterConfig().bank)
    profile.update(evidence(width))
    fitted = {name: cls.fit(profile) for name, cls in DETECTORS.items()}
    return {f"{n}|{key}": grown(n, t, profile) for n, d in fitted.items() for key, t in d.state().items()}


@pytest.fixture(scope="module")
def sizes() -> dict[str, Size]:
    """Sizes are straight lines in the width; the third point says so."""
    tables = [states(width) for width in WIDTHS]
    found: dict[str, Size] = {}
    for name, first in tables[0].items():
        slope = (tables[2][name] - first) / (WIDTHS[2] - WIDTHS[0])
        found[name] = Size(first - slope * WIDTHS[0], slope)
        assert tables[1][name] == pytest.approx(found[name].fixed + slope * WIDTHS[1], abs=1), name
    return found


def total(sizes: dict[str, Size], width: int, detector: str = "") -> float:
    return sum(s.fixed + s.slope * width for name, s in sizes.items() if name.startswith(detector)) / MEGABYTE


@pytest.mark.parametrize("width", [4_608, 16_384])
def test_the_index_of_f2_stays_within_its_bound(sizes: dict[str, Size], width: int) -> None:
    index = total(sizes, width, "fallacious_f2|")
    sample = MeterConfig().bank * (64 * 4 + SLOTS * 4) / MEGABYTE
    assert sample < index < 200


@pytest.mark.parametrize("width", [4_608, 16_384])
def test_a_meter_stays_within_its_bound(sizes: dict[str, Size], width: int) -> None:
    sae = 2 * width * D_MODEL * 4 / MEGABYTE
    contexts = width * MeterConfig().contexts * CONTEXT_BYTES / MEGABYTE
    detectors = total(sizes, width)
    assert detectors > 2 * width * D_MODEL * 4 / MEGABYTE, "the shuffled decoder and the transitions are counted"
    assert detectors + sae + contexts < 300
