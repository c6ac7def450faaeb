import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from perimetry.errors import Incompatible, NonFinite, TooFewSamples
from perimetry.evals.sae.shelf import Shelf
from perimetry.evals.sae.units import Cell, Units, difference, interval, means, ratios

NAMES = [f"u{i}" for i in range(40)]


def noise(seed: int, n: int = 40) -> torch.Tensor:
    return torch.randn(n, generator=torch.Generator().manual_seed(seed))


def test_a_mean_and_a_ratio() -> None:
    assert means(Cell("a"), ["x", "y"], torch.tensor([1.0, 3.0])).estimate() == 2
    over, under = torch.tensor([1.0, 3.0]), torch.tensor([4.0, 4.0])
    assert ratios(Cell("a"), ["x", "y"], over, under).estimate() == 0.5
    assert ratios(Cell("a"), ["x", "y"], over, under, complement=True).estimate() == 0.5
    assert ratios(Cell("a"), ["x", "y"], over, 2 * under, complement=True).estimate() == 0.75


def test_the_interval_of_a_mean_is_about_that_of_student() -> None:
    values = noise(0)
    box = interval(means(Cell("a"), NAMES, values))
    half = 1.96 * float(values.std()) / 40**0.5
    assert box.estimate == pytest.approx(float(values.mean()))
    assert box.high - box.low == pytest.approx(2 * half, rel=0.15)
    assert box.n == 40


def test_intervals_cover_as_often_as_they_say() -> None:
    inside = [
        box.low <= 0 <= box.high for box in (interval(means(Cell("a"), NAMES, noise(seed))) for seed in range(300))
    ]
    assert 0.9 <= sum(inside) / 300 <= 0.98


def test_one_unit_alone_says_so() -> None:
    box = interval(means(Cell("a"), ["x"], torch.tensor([3.0])))
    assert (box.low, box.high, box.n) == (3.0, 3.0, 1)
    assert "no interval" in box.method


def test_a_difference_is_paired_by_name() -> None:
    common, small = 10 * noise(0), 0.1 * noise(1)
    first = means(Cell("a"), NAMES, common + small + 0.5)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(2))
    second = means(Cell("a"), [NAMES[i] for i in order], common[order])
    gap = difference(first, second)
    assert gap.estimate == pytest.approx(0.5 + float(small.mean()), abs=1e-5)
    assert gap.high - gap.low < 0.1, "what both share does not widen it"
    assert gap.p_value < 0.002
    assert difference(second, first).estimate == pytest.approx(-gap.estimate)


def test_a_difference_of_nothing_is_not_told_apart() -> None:
    p = [
        difference(means(Cell("a"), NAMES, noise(seed)), means(Cell("a"), NAMES, noise(1000 + seed))).p_value
        for seed in range(200)
    ]
    assert 0.02 <= sum(x <= 0.05 for x in p) / 200 <= 0.1


def test_only_common_units_are_compared() -> None:
    first = means(Cell("a"), ["x", "y", "z"], torch.tensor([1.0, 2.0, 100.0]))
    second = means(Cell("a"), ["w", "x", "y"], torch.tensor([50.0, 0.0, 0.0]))
    assert difference(first, second).estimate == 1.5
    assert difference(first, second).n == 2


@settings(deadline=None, max_examples=50)
@given(st.integers(2, 30), st.booleans(), st.integers(0, 999))
def test_there_and_back_as_json(n: int, complement: bool, seed: int) -> None:
    under = noise(seed, n).abs() + 0.1
    units = ratios(
        Cell("a", "case", 5, "raw"), NAMES[:n] if n <= 40 else [], noise(seed + 1, n), under, complement=complement
    )
    again = Units.of_json(units.to_json())
    assert again.cell == units.cell
    assert again.names == units.names
    assert torch.equal(again.over, units.over)
    assert again.estimate() == units.estimate()


def test_the_order_of_units_changes_no_estimate() -> None:
    over, under = noise(0), noise(1).abs() + 1
    order = torch.randperm(40, generator=torch.Generator().manual_seed(3))
    one = ratios(Cell("a"), NAMES, over, under).estimate()
    assert ratios(Cell("a"), [NAMES[i] for i in order], over[order], under[order]).estimate() == pytest.approx(one)


def test_refusals() -> None:
    with pytest.raises(Incompatible, match="one distinct name a unit"):
        means(Cell("a"), ["x", "x"], torch.tensor([1.0, 2.0]))
    with pytest.raises(TooFewSamples, match="nothing to be measured on"):
        means(Cell("a"), [], torch.zeros(0))
    with pytest.raises(TooFewSamples, match="nothing to be measured on"):
        ratios(Cell("a"), ["x"], torch.ones(1), torch.zeros(1))
    with pytest.raises(NonFinite, match="unit 'y'"):
        means(Cell("a"), ["x", "y"], torch.tensor([1.0, float("nan")]))
    one, other = means(Cell("a"), ["x", "y"], torch.ones(2)), means(Cell("b"), ["x", "y"], torch.ones(2))
    with pytest.raises(Incompatible, match="two metrics"):
        difference(one, other)
    with pytest.raises(TooFewSamples, match="paired difference needs two"):
        difference(one, means(Cell("a"), ["x", "z"], torch.ones(2)))


def test_a_shelf_makes_a_thing_once(tmp_path) -> None:
    for shelf in (Shelf(), Shelf(tmp_path / "shelf")):
        calls: list[int] = []

        def make() -> dict[str, torch.Tensor]:
            calls.append(1)  # noqa: B023
            return {"x": torch.arange(3).float()}

        for _ in range(2):
            assert torch.equal(shelf.get({"what": "x", "n": 3}, make)["x"], torch.arange(3).float())
        assert len(calls) == 1
        shelf.get({"what": "x", "n": 4}, make)
        assert len(calls) == 2
    calls = []
    assert torch.equal(Shelf(tmp_path / "shelf").get({"n": 3, "what": "x"}, make)["x"], torch.arange(3).float())
    assert not calls, "it survives the process"
