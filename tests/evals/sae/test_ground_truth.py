from pathlib import Path
from typing import cast

import pytest
import torch
from tests.evals.sae.known import known_world, perfect, permuted

from perimetry.config import build
from perimetry.errors import ConfigError, Incompatible, TooFewSamples, UnknownName, WidthMismatch
from perimetry.evals.sae import ground_truth
from perimetry.evals.sae.architecture_order import ORDER, RECIPES, order_of_architectures, order_rows
from perimetry.evals.sae.base import Place, Subject
from perimetry.evals.sae.ground_truth import LENGTHS, GroundTruth, recipe_of
from perimetry.evals.sae.judging import JUDGED, Sums, judge, sums_of
from perimetry.evals.sae.probe_ceiling import probe_ceiling
from perimetry.evals.sae.shelf import Shelf
from perimetry.evals.sae.synthetic import BLOCK, World
from perimetry.evals.sae.synthetic_config import WORLDS
from perimetry.evals.sae.units import Units, difference
from perimetry.sae import ARCHITECTURES
from perimetry.sae.affine import initial_weights
from perimetry.sae.jumprelu import JumpReLUSAE
from perimetry.sae.topk import TopKSAE

ONES = ("f1", "precision", "recall", "feature_f1", "mcc", "uniqueness", "sole", "explained_variance")


def by_metric(found: list[Units]) -> dict[str, Units]:
    return {units.cell.metric: units for units in found}


def estimates(found: list[Units]) -> dict[str, float]:
    return {name: units.estimate() for name, units in by_metric(found).items()}


def subject(name: str = "batchtopk") -> Subject:
    # The place is that of the weights, which this evaluation never looks at.
    return Subject(name, ARCHITECTURES[name].tiny(), cast("Place", None))


def test_the_true_dictionary_scores_one_and_a_random_one_little() -> None:
    world = known_world()
    found = judge(perfect(world), world, blocks=2)
    assert set(by_metric(found)) == set(JUDGED)
    assert {name: estimates(found)[name] for name in ONES} == pytest.approx(dict.fromkeys(ONES, 1.0), abs=1e-6)
    assert estimates(found)["dead"] == 0
    blocks = list(world.held_out(2))
    assert estimates(found)["l0"] == pytest.approx(sum(b.tokens.numel() for b in blocks) / (2 * BLOCK))
    chance = TopKSAE(initial_weights(32, 24, seed=5), k=3).requires_grad_(requires_grad=False)
    poor = estimates(judge(chance, world, blocks=2))
    assert poor["f1"] < 0.5
    assert poor["mcc"] < 0.6
    assert poor["uniqueness"] < 0.9
    assert poor["sole"] < poor["uniqueness"]
    assert poor["explained_variance"] < 0.6


def test_neither_the_order_of_latents_nor_the_batch_changes_a_number() -> None:
    world = known_world()
    draw = torch.Generator().manual_seed(0)
    noisy = perfect(world)
    noisy.W_dec += 0.15 * torch.randn(noisy.W_dec.shape, generator=draw)
    noisy.W_enc += 0.1 * torch.randn(noisy.W_enc.shape, generator=draw)
    first = judge(noisy, world, blocks=5, at_once=1)
    moved = judge(permuted(noisy, torch.randperm(24, generator=draw)), world, blocks=5, at_once=1)
    larger = judge(noisy, world, blocks=5, at_once=3)
    assert estimates(moved) == pytest.approx(estimates(first), abs=1e-6)
    assert estimates(larger) == pytest.approx(estimates(first), abs=1e-6)
    assert 0.2 < estimates(first)["f1"] < 0.99
    assert all(difference(a, b).estimate == pytest.approx(0, abs=1e-6) for a, b in zip(first, moved, strict=True))


def test_a_constant_explains_nothing_and_finds_nothing() -> None:
    world = known_world()
    mean = torch.cat([world.mix(block) for block in world.held_out(3)]).double().mean(0).float()
    weights = initial_weights(32, 24, seed=0)._replace(b_dec=mean)
    silent = JumpReLUSAE(weights, threshold=torch.full((24,), 1e9)).requires_grad_(requires_grad=False)
    found = estimates(judge(silent, world, blocks=3))
    assert found["explained_variance"] == pytest.approx(0, abs=1e-6)
    assert (found["f1"], found["dead"], found["l0"]) == (0, 1, 0)


def test_two_latents_of_one_feature_are_not_unique() -> None:
    world = known_world()
    sae = perfect(world)
    doubled = permuted(sae, torch.tensor([0, 0, *range(2, 24)]))
    found = estimates(judge(doubled, world, blocks=2))
    assert found["uniqueness"] == pytest.approx(23 / 24)
    assert found["sole"] == pytest.approx(22 / 24)
    assert found["f1"] == pytest.approx(1, abs=1e-6), "each of the two still says when the feature fires"


def test_probes_with_the_truth_find_what_can_be_read() -> None:
    found = probe_ceiling(known_world(), 8, steps=60, blocks=2)
    assert float(found["f1"].over.sum() / found["f1"].under.sum()) > 0.97
    assert float(found["f1"].under.sum()) == 8
    with pytest.raises(ConfigError, match="25 probes for a world of 24 features"):
        probe_ceiling(known_world(), 25)


def test_a_recipe_is_trained_once_and_judged_on_every_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluation = GroundTruth.tiny()
    found = evaluation.measure(subject(), Shelf(tmp_path))
    cells = {(units.cell.metric, units.cell.case, units.cell.arm) for units in found}
    assert {("f1", "", "sae"), ("f1", "seed 0", "sae"), ("mcc", "seed 1", "sae"), ("f1", "", "probe")} <= cells
    assert {metric for metric, _, _ in cells} == set(evaluation.metrics)
    both = [u for u in found if u.cell.metric == "f1" and u.cell.arm == "sae"]
    assert both[0].estimate() == pytest.approx((both[1].estimate() + both[2].estimate()) / 2)
    assert both[1].estimate() != both[2].estimate(), "two seeds are two dictionaries"
    assert not list((tmp_path / "training").iterdir()), "what was needed while training lasted is gone"

    def never(*_: object, **__: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(ground_truth, "train_many", never)
    monkeypatch.setattr(ground_truth, "probe_ceiling", never)
    again = evaluation.measure(subject(), Shelf(tmp_path))
    assert [u.cell for u in again] == [u.cell for u in found]
    assert all(torch.equal(a.over, b.over) for a, b in zip(again, found, strict=True))


def test_a_recipe_says_what_its_dictionary_was_made_with() -> None:
    names = [name for name in ARCHITECTURES if name not in ("crosscoder", "transcoder", "temporal")]
    for name in names:
        recipe = recipe_of(ARCHITECTURES[name].tiny())
        config = GroundTruth.tiny().config_of(recipe, seed=3)
        assert (config.architecture, config.width, config.k, config.seed, config.data_seed) == (name, 12, 2, 3, 3)
    assert recipe_of(ARCHITECTURES["matryoshka"].tiny()).k == 4
    own = GroundTruth(preset="tiny", own_k=True)
    assert own.config_of(recipe_of(ARCHITECTURES["matching_pursuit"].tiny()), 0).k == 4


def test_presets_are_whole() -> None:
    assert set(LENGTHS) == set(WORLDS)
    published = GroundTruth(preset="published")
    assert published.latents == 4096
    assert LENGTHS["published"].tokens == 200_000_000


def test_the_table_of_architectures_is_whole() -> None:
    rows = order_of_architectures(GroundTruth(preset="tiny", seeds=(0,), tokens=640, blocks=2))
    assert {row.arm for row in rows if not row.against} == {*RECIPES, "probe"}
    assert {(row.arm, row.against) for row in rows if row.against} == set(ORDER)
    assert {row.metric for row in rows if row.arm == "matryoshka"} == set(JUDGED)
    assert all(row.low <= row.estimate <= row.high for row in rows)
    gap = next(
        r for r in rows if r.arm == "matryoshka" and r.against == "batchtopk" and r.metric == "f1" and r.seed is None
    )
    one, two = (
        next(r for r in rows if r.arm == name and not r.against and r.metric == "f1" and r.seed is None)
        for name in ("matryoshka", "batchtopk")
    )
    assert gap.estimate == pytest.approx(one.estimate - two.estimate)
    assert gap.to_json()["p_value"] is not None


def test_rows_add_seeds_feature_by_feature() -> None:
    ones = torch.ones(3, dtype=torch.float64)
    low, high = {"f1": Sums(0.2 * ones, ones)}, {"f1": Sums(0.6 * ones, ones)}
    rows = order_rows(
        "small", {("matryoshka", 0): high, ("matryoshka", 1): low, ("batchtopk", 0): low, ("batchtopk", 1): low}
    )
    found = {(r.arm, r.against, r.seed): r.estimate for r in rows}
    assert found["matryoshka", "", None] == pytest.approx(0.4)
    assert found["matryoshka", "batchtopk", None] == pytest.approx(0.2)
    assert found["matryoshka", "batchtopk", 0] == pytest.approx(0.4)
    assert ("matryoshka", "jumprelu", None) not in found


def test_what_cannot_be_judged_is_refused() -> None:
    world = known_world()
    for name in ("crosscoder", "transcoder", "temporal"):
        with pytest.raises(Incompatible, match="a synthetic world gives single tokens without order"):
            GroundTruth.tiny().measure(subject(name), Shelf())
    with pytest.raises(WidthMismatch, match="trained on this world"):
        judge(ARCHITECTURES["topk"].tiny(), world, blocks=2)
    with pytest.raises(TooFewSamples, match="1 blocks of held-out tokens give no interval; give two or more"):
        sums_of(perfect(world), world, blocks=1)
    with pytest.raises(UnknownName, match="synthetic world"):
        GroundTruth(preset="large")
    with pytest.raises(ConfigError, match="come twice"):
        build(GroundTruth, {"seeds": (1, 1)}, "evaluation")
    with pytest.raises(ConfigError, match="two counts; leave one out"):
        build(GroundTruth, {"k": 3, "own_k": True}, "evaluation")
    with pytest.raises(Incompatible, match="does not say which count it was trained for; give k"):
        GroundTruth(preset="tiny", own_k=True).config_of(recipe_of(ARCHITECTURES["jumprelu"].tiny()), 0)
    assert isinstance(GroundTruth.tiny().world, World)
