"""The forecast of concepts in a world where the truth is known: they follow from the last hidden state, or do not."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from perimetry.runtime import generator
from perimetry.sae.base import Codes
from perimetry.shift import DETECTORS
from perimetry.shift.base import Evidence
from perimetry.shift.foreseen import ForecastError, Unforeseen
from perimetry.shift.loading import load_meter
from perimetry.shift.meter import Meter
from perimetry.shift.profile import Profile

from . import worlds

WIDTH, CONCEPTS, LENGTH, NOISE = worlds.D_MODEL, worlds.D_SAE, 20, 0.5
LIMIT = 1.4051
"""A standard normal number exceeds it with probability .08, and is .14868 dense there."""
BLIND = 0.8589
"""Probability that the forecast of an unrelated token, .08 + .14868 z, stays below three times the rate."""


def linear(seed: int, prompts: int, *, broken: bool = False) -> Evidence:
    """A concept is active where the hidden state lies far along its direction; `broken` follows another hidden state."""
    draw, law = generator(seed), generator(42)
    n = prompts * LENGTH
    reads = torch.nn.functional.normalize(torch.randn(CONCEPTS, WIDTH, generator=law), dim=1)
    writes = torch.randn(WIDTH, WIDTH, generator=law)
    hidden = torch.randn(n, WIDTH, generator=draw)
    cause = torch.randn(n, WIDTH, generator=draw) if broken else hidden
    on = (cause @ reads.T > LIMIT).float()
    on[:, -1] = 0
    values, indices = on.topk(CONCEPTS, dim=1)
    acts = cause @ writes + NOISE * torch.randn(n, WIDTH, generator=draw)
    return Evidence(
        acts=acts,
        codes=Codes(indices, values, CONCEPTS),
        reconstruction=acts,
        tokens=torch.randint(0, worlds.VOCAB, (n,), generator=draw),
        positions=torch.arange(1, LENGTH + 1).repeat(prompts),
        prompt=torch.arange(prompts).repeat_interleave(LENGTH),
        words=torch.full((prompts,), float(LENGTH)),
        logits=None,
        foresight=3 * hidden + 7,
    )


@pytest.fixture(scope="module")
def profile() -> Profile:
    return worlds.profile_of(*(linear(seed, 100) for seed in range(4)))


def later(evidence: Evidence) -> torch.Tensor:
    return (evidence.positions >= 2) & (evidence.codes.values != 0).any(1)


def test_what_follows_is_foreseen_and_what_does_not_is_not(profile: Profile) -> None:
    detector = Unforeseen.fit(profile)
    calm, odd = linear(10, 100), linear(11, 100, broken=True)
    assert float(detector.score(calm)[later(calm)].mean()) < 0.03
    # A token's concepts share a hidden state, so shares vary more than counts would; over 1,900 tokens by .01 or so.
    assert float(detector.score(odd)[later(odd)].mean()) == pytest.approx(BLIND, abs=0.04)


def test_the_error_of_the_forecast_has_its_known_length(profile: Profile) -> None:
    detector = ForecastError.fit(profile)
    calm, odd = linear(10, 100), linear(11, 100, broken=True)
    # Chi-square of 16 degrees: mean 16, over 1,900 tokens with a standard error of .13.
    assert float(detector.score(calm).mean()) == pytest.approx(WIDTH, abs=0.7)
    assert float(detector.usual) == pytest.approx(WIDTH, abs=1.0)
    law = generator(42)
    torch.randn(CONCEPTS, WIDTH, generator=law)
    writes = torch.randn(WIDTH, WIDTH, generator=law)
    wanted = WIDTH + 2 * float(writes.square().sum()) / NOISE**2
    assert float(detector.score(odd)[odd.positions >= 2].mean()) == pytest.approx(wanted, rel=0.1)


def test_unforeseen_equals_a_naive_ridge(profile: Profile) -> None:
    parts = [linear(seed, 100) for seed in range(4)]
    keep = [p.positions >= 2 for p in parts]
    hidden = np.concatenate(
        [p.foresight[k].double().numpy() for p, k in zip(parts, keep, strict=True) if p.foresight is not None]
    )
    on = np.concatenate([(p.codes.dense()[k] > 0).double().numpy() for p, k in zip(parts, keep, strict=True)])
    u = (hidden - hidden.mean(0)) / hidden.std(0)
    detector, fresh = Unforeseen.fit(profile), linear(12, 30, broken=True)
    assert fresh.foresight is not None
    new = (fresh.foresight.double().numpy() - hidden.mean(0)) / hidden.std(0)
    rate = (on.sum(0) + 1) / (len(on) + 2)
    active = (fresh.codes.dense() > 0).double().numpy()
    found = detector.score(fresh).numpy()
    at = later(fresh).numpy()
    fits = []
    for ridge in (10.0 ** (e / 2) for e in range(-8, 3)):
        weights = np.linalg.solve(u.T @ u + ridge * len(u) * np.eye(WIDTH), u.T @ (on - on.mean(0)))
        low = (new @ weights + on.mean(0) < 3 * rate) * active
        fits.append(np.abs(low.sum(1) / np.maximum(active.sum(1), 1) - found)[at].mean())
    # Half precision may turn a concept that lies on the limit; another strength turns many.
    assert min(fits) < 2e-3
    assert sorted(fits)[-1] > 0.05
    assert int(np.argmin(fits)) < 6, "features that say all want little strength"


def test_first_tokens_and_silent_ones(profile: Profile) -> None:
    detector, evidence = Unforeseen.fit(profile), linear(13, 40)
    first = (evidence.positions < 2) & (evidence.codes.values != 0).any(1)
    assert int(first.sum()) > 20
    assert 0 <= float(detector.usual) < 0.05
    detector = dataclasses.replace(detector, usual=torch.tensor(0.25))
    torch.testing.assert_close(detector.score(evidence)[first], torch.full((int(first.sum()),), 0.25))
    silent = evidence._replace(codes=evidence.codes._replace(values=torch.zeros_like(evidence.codes.values)))
    assert not bool(detector.score(silent).any())
    error = ForecastError.fit(profile)
    torch.testing.assert_close(error.score(evidence)[evidence.positions < 2], error.usual.expand(40))


def test_the_last_hidden_state_of_the_first_token_is_not_read(profile: Profile) -> None:
    evidence = linear(14, 10)
    assert evidence.foresight is not None
    other = evidence.foresight.clone()
    other[evidence.positions < 2] = 100.0
    for detector in (Unforeseen.fit(profile), ForecastError.fit(profile)):
        assert torch.equal(detector.score(evidence), detector.score(evidence._replace(foresight=other)))


def test_a_concept_that_clean_text_never_shows_is_not_foreseen(profile: Profile) -> None:
    evidence = linear(15, 5)
    shape = evidence.codes.values.shape
    only = Codes(
        torch.full(shape, CONCEPTS - 1),
        torch.nn.functional.one_hot(torch.zeros(shape[0], dtype=torch.int64), shape[1]).float(),
        CONCEPTS,
    )
    scores = Unforeseen.fit(profile).score(evidence._replace(codes=only))
    assert bool((scores[evidence.positions >= 2] == 1).all())


def test_usual_is_what_fresh_clean_text_scores() -> None:
    # With few tokens and many features a fit knows its own tokens too well; tokens kept aside tell the truth.
    known = worlds.profile_of(linear(0, 12))
    detector, fresh = Unforeseen.fit(known), linear(20, 200)
    mean = float(detector.score(fresh)[later(fresh)].mean())
    assert mean > 0.05
    assert math.log(float(detector.usual) / mean) == pytest.approx(0, abs=0.7)


def test_weights_take_two_bytes(profile: Profile) -> None:
    state = Unforeseen.fit(profile).state()
    assert state["weights"].dtype == torch.float16
    assert state["weights"].shape == (CONCEPTS, WIDTH + 1)
    assert set(state) == {"weights", "mean", "scale", "usual"}


def test_more_batches_and_workers_give_the_same_fit(profile: Profile) -> None:
    apart = [worlds.profile_of(linear(seed, 100)) for seed in (2, 0, 3, 1)]
    merged = apart[0].merge(apart[1]).merge(apart[2].merge(apart[3]))
    evidence = linear(16, 20)
    for cls in (Unforeseen, ForecastError):
        one, two = cls.fit(profile).score(evidence), cls.fit(merged).score(evidence)
        torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-3)


def test_a_meter_from_before_still_loads_and_leaves_these_out(meter: Meter, tmp_path: Path) -> None:
    newer = {"unforeseen", "forecast_error"}
    assert newer < set(meter.normal.detectors)
    old = {name: d for name, d in meter.normal.detectors.items() if name not in newer}
    normal = meter.normal._replace(detectors=old)
    Meter(meter.extractor, meter.sae, meter.info, normal, main=meter.main, details=meter.details).save(tmp_path / "old")
    again = load_meter(tmp_path / "old", lm=meter.lm)
    (mine,), (theirs,) = again.score(["the cat sat"], detectors="all"), meter.score(["the cat sat"], detectors="all")
    assert {n.partition(".")[0] for n in theirs.scores} == set(DETECTORS)
    assert mine.scores == {n: v for n, v in theirs.scores.items() if n.partition(".")[0] not in newer}
