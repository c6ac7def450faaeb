from itertools import pairwise, product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.evals.sae.known import CONFIG, known_world

from perimetry.config import build
from perimetry.errors import ConfigError, UnknownName
from perimetry.evals.sae import synthetic
from perimetry.evals.sae.synthetic import BLOCK, Fired, World, WorldSource
from perimetry.evals.sae.synthetic_config import WORLDS, WorldConfig, world_named
from perimetry.train import Restorable, Source

DEEP = WorldConfig(
    features=60,
    d_model=8,
    trees=2,
    branching=3,
    depth=2,
    together=0.6,
    rate_first=0.5,
    rate_last=0.05,
    correlation_rank=0,
    orthogonal_steps=0,
)


def dense(fired: Fired, features: int) -> torch.Tensor:
    out = torch.zeros(fired.total, features)
    out[fired.tokens, fired.features] = fired.values
    return out


def test_rates_hierarchy_and_exclusivity_hold_in_samples() -> None:
    world, count = World(DEEP), 20_000
    fired = world.draw(count, seed=3)
    assert bool((fired.values > 0).all())
    keys = fired.tokens * DEEP.features + fired.features
    assert bool((keys.diff() > 0).all()), "entries lie by token, then by feature, each once"
    rates = torch.bincount(fired.features, minlength=DEEP.features) / count
    errors = (world.rates * (1 - world.rates) / count).sqrt()
    assert float(((rates - world.rates).abs() / errors).max()) < 4.5
    fires = dense(fired, DEEP.features) > 0
    children = (world.parents >= 0).nonzero()[:, 0]
    assert children.tolist() == list(range(2, 26))
    assert not bool((fires[:, children] & ~fires[:, world.parents[children]]).any()), "a child without its parent"
    for parent in range(8):
        brood = (world.parents == parent).nonzero()[:, 0]
        assert brood.numel() == 3
        assert int(fires[:, brood].sum(1).max()) == 1, "siblings exclude each other"


def test_a_childs_magnitude_goes_with_its_parents() -> None:
    world = World(DEEP.model_copy(update={"spread_mean": 1.0, "spread_sd": 0.0}))
    amounts = dense(world.draw(20_000, seed=0), DEEP.features)
    both = amounts[:, 2] > 0
    assert float(torch.corrcoef(amounts[both][:, [0, 2]].T)[0, 1]) > 0.4
    alone = dense(World(DEEP.model_copy(update={"scaled_children": False})).draw(20_000, seed=0), DEEP.features)
    assert abs(float(torch.corrcoef(alone[alone[:, 2] > 0][:, [0, 2]].T)[0, 1])) < 0.1


def test_the_published_world_has_the_published_counts() -> None:
    """The benchmark's documentation says about 34 features a token, and about 25 among the 4,096 most frequent."""
    world = World(WORLDS["published"].model_copy(update={"d_model": 2, "orthogonal_steps": 0}))
    assert world.config.in_trees == 10_880
    assert world.expected_l0() == pytest.approx(34.5, abs=0.5)
    assert world.expected_l0(4096) == pytest.approx(25.2, abs=0.5)
    assert world.rates[0] == pytest.approx(0.4)
    assert world.rates[-1] == pytest.approx(5e-4)


def test_firing_is_correlated_as_the_loadings_say() -> None:
    config = WorldConfig(features=12, d_model=4, trees=0, rate_first=0.5, rate_last=0.499, correlation_rank=1)
    world = World(config.model_copy(update={"correlation_scale": 0.7, "orthogonal_steps": 0}))
    fires = (dense(world.draw(20_000, seed=0), 12) > 0).float()
    wanted = (world._loadings @ world._loadings.T).flatten()  # pyright: ignore[reportPrivateUsage]
    found = torch.corrcoef(fires.T).flatten()
    off = ~torch.eye(12, dtype=torch.bool).flatten()
    # Two normals with correlation r and cuts near 0 fire with correlation 2 asin(r) / pi.
    assert float((found - 2 * wanted.clamp(-1, 1).asin() / torch.pi)[off].abs().max()) < 0.06


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=4))
def test_the_chance_to_win_is_that_of_all_cases_counted(chances: list[float]) -> None:
    wins = [0.0] * len(chances)
    for case in product((False, True), repeat=len(chances)):
        chance = 1.0
        for fires, q in zip(case, chances, strict=True):
            chance *= q if fires else 1 - q
        for i, fires in enumerate(case):
            wins[i] += chance / sum(case) if fires else 0.0
    found = synthetic._left_alone(torch.tensor([chances], dtype=torch.float64))  # pyright: ignore[reportPrivateUsage]
    assert found[0].tolist() == pytest.approx(wins, abs=1e-9)


def test_directions_are_pushed_apart_as_autograd_would() -> None:
    config = CONFIG.model_copy(update={"orthogonal_steps": 10, "orthogonal_lr": 1e-2})
    start = World(config.model_copy(update={"orthogonal_steps": 0})).directions
    rows = start.clone().requires_grad_()
    adam = torch.optim.Adam([rows], lr=config.orthogonal_lr)
    for _ in range(config.orthogonal_steps):
        gram = rows @ rows.T
        diagonal = gram.diagonal()
        loss = (gram - gram.diag().diag()).square().sum() + config.features * (diagonal - 1).square().sum()
        adam.zero_grad()
        loss.backward()
        adam.step()
    found = World(config).directions
    torch.testing.assert_close(found, (rows / rows.norm(dim=1, keepdim=True)).detach(), rtol=0, atol=1e-4)

    def crowding(of: torch.Tensor) -> float:
        return float((of @ of.T).fill_diagonal_(0).square().sum())

    assert crowding(found) < 0.8 * crowding(start)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(config.features))


def test_a_token_is_the_sum_of_its_features() -> None:
    world = known_world()
    fired = world.draw(300, seed=1)
    assert int((torch.bincount(fired.tokens, minlength=300) == 0).sum()) > 0, "tokens without a feature are mixed, too"
    wanted = dense(fired, CONFIG.features) @ world.directions + world.bias
    torch.testing.assert_close(world.mix(fired), wanted)
    nothing = fired.keep(torch.zeros_like(fired.tokens, dtype=torch.bool))
    torch.testing.assert_close(world.mix(nothing), world.bias.expand(300, -1))


def test_batches_depend_on_their_arguments_alone() -> None:
    source = WorldSource(known_world())
    assert isinstance(source, Source)
    assert not isinstance(source, Restorable)
    first = source.batches(50, seed=1)
    whole = [next(first) for _ in range(4)]
    late = next(WorldSource(World(CONFIG)).batches(50, seed=1, start_step=3))
    assert torch.equal(whole[3], late)
    assert all(not torch.equal(a, b) for a, b in pairwise(whole))
    assert not torch.equal(whole[0], next(source.batches(50, seed=2)))


def test_held_out_blocks_are_the_same_however_many_there_are() -> None:
    world = known_world()
    one, many = list(world.held_out(1)), list(world.held_out(3))
    assert all(torch.equal(a, b) for a, b in zip(one[0][:3], many[0][:3], strict=True))
    assert {block.total for block in many} == {BLOCK}
    assert not torch.equal(many[0].values[:20], many[1].values[:20])
    assert not torch.equal(next(world.held_out(1, seed=1)).values[:20], one[0].values[:20])


def test_frequent_features_come_first() -> None:
    world = known_world()
    assert bool((world.rates[world.frequent(24)].diff() <= 0).all())
    assert world.frequent(1).tolist() == [0]
    assert world.expected_l0() == pytest.approx(float(world.rates.sum()))


def test_impossible_worlds_are_refused() -> None:
    with pytest.raises(ConfigError, match="want 10880 features, there are 100; give more features"):
        build(WorldConfig, {"features": 100}, "world")
    with pytest.raises(ConfigError, match=r"rate_last = 0.5 is not below rate_first = 0.4"):
        build(WorldConfig, {"rate_last": 0.5}, "world")
    with pytest.raises(UnknownName, match="synthetic world"):
        world_named("smal")
