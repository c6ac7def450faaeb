from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.evals.sae.known import CONFIG, absorbing, known_world, perfect, permuted

from perimetry.config import build
from perimetry.errors import ConfigError, TooFewSamples
from perimetry.evals.sae import cooccurrence
from perimetry.evals.sae.cooccurrence import (
    ARMS,
    CAUSAL,
    PLANTED,
    CausalTest,
    ThinnedSource,
    absorbed,
    causal_rows,
    thin,
)
from perimetry.evals.sae.judging import JUDGED, Sums
from perimetry.evals.sae.shelf import Shelf
from perimetry.evals.sae.synthetic import Fired, World, WorldSource
from perimetry.train import Source

SMALL = CausalTest(
    world=CONFIG, arms=("none", "control", "broken"), width=24, seeds=(0, 1), tokens=640, batch=64, blocks=2
)


def held() -> tuple[World, Fired]:
    world = known_world()
    return world, world.draw(3000, seed=9)


def test_a_planted_share_of_absorption_is_found_and_a_clean_dictionary_has_none() -> None:
    world, fired = held()
    acts = world.mix(fired)
    clean = perfect(world)
    found = absorbed(clean.encode(acts), fired, world, clean.W_dec)
    assert (found.absorbed.sum(), found.silent.sum()) == (0, 0)
    assert found.fires[:3].tolist() == torch.bincount(fired.features, minlength=24)[:3].tolist()
    assert found.fires[3:].sum() == 0, "features without children cannot be absorbed"

    child = int((world.parents == 1).nonzero()[0, 0])
    planted = absorbing(world, {child: 1})
    found = absorbed(planted.encode(acts), fired, world, planted.W_dec)
    together = int((fired.features == child).sum())
    assert together > 100
    assert found.absorbed.tolist() == [0, together] + [0] * 22
    assert found.silent[1] == together
    moved = permuted(planted, torch.randperm(24, generator=torch.Generator().manual_seed(0)))
    again = absorbed(moved.encode(acts), fired, world, moved.W_dec)
    assert all(torch.equal(a, b) for a, b in zip(found, again, strict=True))


def test_a_child_that_carries_too_little_does_not_absorb() -> None:
    world, fired = held()
    child = int((world.parents == 0).nonzero()[0, 0])
    for share, least, expected in ((0.2, 0.4, False), (0.2, 0.1, True), (0.9, 0.4, True)):
        sae = absorbing(world, {child: 0}, share)
        found = absorbed(sae.encode(world.mix(fired)), fired, world, sae.W_dec, projection=least)
        assert bool(found.absorbed[0] > 50) is expected
        assert found.silent[0] > 50
    sae = absorbing(world, {child: 0})
    against = absorbed(sae.encode(world.mix(fired)), fired, world, sae.W_dec, cosine=0.99)
    assert against.absorbed[0] == 0, "its latent is not along the parent"


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), drop=st.floats(0.05, 0.6))
def test_arms_drop_what_they_say(seed: int, drop: float) -> None:
    world = known_world()
    fired = world.draw(200, seed=seed)
    left = {arm: thin(world, fired, arm, drop, seed) for arm in ("none", "masked", "broken")}
    assert left["none"] is fired

    def keys(of: Fired) -> set[int]:
        return set((of.tokens * 24 + of.features).tolist())

    parents = world.parents[fired.features]
    pairs = {(t, f) for t, f in zip(fired.tokens.tolist(), parents.tolist(), strict=True) if f >= 0}
    co = {t * 24 + f for t, f in pairs}
    co |= set((fired.tokens * 24 + fired.features)[parents >= 0].tolist())
    gone = keys(fired) - keys(left["broken"])
    assert gone <= co
    dropped = len(keys(fired) - keys(left["masked"])) / len(keys(fired))
    assert abs(dropped - drop) < 0.25
    alone = [f for f in range(24) if int(world.parents[f]) < 0 and f not in world.parents.tolist()]
    others = int(torch.isin(fired.features, torch.tensor(alone)).sum())
    if len(gone) <= others:
        control = keys(fired) - keys(thin(world, fired, "control", drop, seed))
        assert len(control) == len(gone)
        family = {f for f in range(24) if int(world.parents[f]) >= 0} | {int(p) for p in world.parents if p >= 0}
        assert not {key % 24 for key in control} & family, "what has a parent or a child keeps firing as it did"


def test_arms_see_the_same_tokens_but_for_what_is_dropped() -> None:
    world = known_world()
    whole = next(WorldSource(world).batches(64, seed=2, start_step=5))
    for arm in ARMS:
        source = ThinnedSource(world, arm, 0.2)
        assert isinstance(source, Source)
        late = next(source.batches(64, seed=2, start_step=5))
        steps = source.batches(64, seed=2)
        assert torch.equal([next(steps) for _ in range(6)][5], late)
        same = (late == whole).all(1).float().mean()
        assert same == 1 if arm == "none" else 0.1 < same < 0.95


def test_the_planted_world_is_planted() -> None:
    world = World(PLANTED.model_copy(update={"d_model": 4, "orthogonal_steps": 0}))
    brood = world.rates[24:96].reshape(24, 3).sum(1) / world.rates[:24]
    assert bool(((brood > 0.5) & (brood < 0.65)).all()), "a parent fires with a child about as often as alone"
    assert bool((world.rates[24:96] < world.rates[world.parents[24:96]]).all())


def test_rows_hold_every_arm_and_difference_and_are_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = causal_rows(SMALL, shelf=Shelf(tmp_path))
    assert {(r.arm, r.against) for r in rows} == {
        ("none", ""), ("control", ""), ("broken", ""), ("control", "none"), ("broken", "none"), ("broken", "control"),
    }  # fmt: skip
    assert {r.seed for r in rows} == {None, 0, 1}
    assert {r.metric for r in rows} == {*CAUSAL, *JUDGED}
    assert all(r.low <= r.estimate <= r.high for r in rows)
    found = {(r.arm, r.against, r.metric): r for r in rows if r.seed is None}
    gap = found["broken", "none", "silence"]
    assert gap.estimate == pytest.approx(
        found["broken", "", "silence"].estimate - found["none", "", "silence"].estimate
    )
    assert gap.n == 3, "units are the parents"

    def never(*_: object, **__: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(cooccurrence, "train", never)
    assert causal_rows(SMALL, shelf=Shelf(tmp_path)) == rows


def test_sums_tell_a_dictionary_that_absorbs_from_one_that_does_not() -> None:
    world = known_world()
    children = {int((world.parents == p).nonzero()[0, 0]): p for p in range(3)}
    clean, bad = SMALL.sums(perfect(world), 0), SMALL.sums(absorbing(world, children), 0)
    of = {u.cell.metric: u for u in SMALL.units(clean)}
    assert of["absorption"].estimate() == 0
    assert of["absorption"].names == ("0", "1", "2")
    planted = next(u for u in SMALL.units(bad) if u.cell.metric == "absorption").estimate()
    blocks = list(world.held_out(2, 0))
    share = sum(int(sum((b.features == c).sum() for c in children)) for b in blocks) / sum(
        int((b.features < 3).sum()) for b in blocks
    )
    assert planted == pytest.approx(share)
    nobody = clean | {"absorption": Sums(torch.zeros(24).double(), torch.zeros(24).double())}
    with pytest.raises(TooFewSamples, match="no parent fires in the held-out tokens"):
        SMALL.units(nobody)


def test_what_cannot_be_tested_is_refused() -> None:
    world, fired = held()
    with pytest.raises(ConfigError, match="'all' is no arm of the causal test; give one of none, masked"):
        thin(world, fired, "all", 0.3, 0)
    crowded = fired.keep(fired.features < 12)
    with pytest.raises(ConfigError, match="features are to be dropped that have no parent and no child, 0 such fire"):
        thin(world, crowded.keep(world.parents[crowded.features] >= 0), "control", 0.9, 0)
    for wrong, message in (
        ({"arms": ("broken",)}, "give `none` and others of"),
        ({"arms": ("none", "all")}, "give `none` and others of"),
        ({"seeds": (0, 0)}, "come twice"),
        ({"world": CONFIG.model_copy(update={"trees": 0})}, "the world has no trees"),
    ):
        with pytest.raises(ConfigError, match=message):
            build(CausalTest, wrong, "causal test")
