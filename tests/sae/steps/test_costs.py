import pytest
import torch

from perimetry.errors import ConfigError
from perimetry.runtime import generator
from perimetry.sae.steps import costs, products
from perimetry.sae.steps.costs import Costs, crossover, predict
from perimetry.sae.steps.gates import much_fires
from perimetry.sae.steps.select import PreActivations


def test_rates_are_positive_and_kept_for_the_next_process(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERIMETRY_CACHE", str(tmp_path))
    costs.host_costs.cache_clear()
    try:
        found = costs.host_costs()
        assert found.float32 > 0
        assert found.gather > 0
        (file,) = (tmp_path / "kernels").glob("costs-*.json")
        costs.host_costs.cache_clear()
        monkeypatch.setattr(costs, "measure_costs", lambda: pytest.fail("measured twice"))
        assert costs.host_costs() == found
        file.write_text("{}")
        costs.host_costs.cache_clear()
        monkeypatch.setattr(costs, "measure_costs", lambda: found)
        assert costs.host_costs() == found
    finally:
        costs.host_costs.cache_clear()


def test_the_crossover_follows_the_rates_within_bounds_and_can_be_pinned(monkeypatch: pytest.MonkeyPatch) -> None:
    for gather, wanted in ((1e9, 1 / 64), (1e10, 0.1), (1e12, 1 / 8)):
        monkeypatch.setattr(costs, "host_costs", lambda gather=gather: Costs(1e11, 0.0, 0.0, gather, True))
        assert crossover() == pytest.approx(wanted)
    monkeypatch.setenv("PERIMETRY_DENSE_ABOVE", "0.25")
    assert crossover() == 0.25
    monkeypatch.setenv("PERIMETRY_DENSE_ABOVE", "much")
    with pytest.raises(ConfigError, match="PERIMETRY_DENSE_ABOVE is 'much'; a density between 0 and 1"):
        crossover()


def test_at_the_crossover_both_ways_cost_the_same() -> None:
    rates = Costs(1e11, 3e11, 0.0, 2e10, True)
    at = predict(rates, 1000, 64, 1000, 1000 * rates.gather / rates.float32)
    assert at.dense == pytest.approx(at.sparse)
    assert predict(rates, 1000, 64, 1000, 10.0).sparse < at.sparse
    assert predict(Costs(1e11, 0.0, 0.0, 1e10, True), 10, 10, 10, 1.0).low is None
    best = predict(Costs(1e11, 2e11, 4e11, 1e10, True), 10, 10, 10, 1.0).low
    assert best == predict(Costs(1e11, 4e11, 0.0, 1e10, True), 10, 10, 10, 1.0).low


def test_much_fires_by_the_density_of_a_few_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "DENSE_ABOVE", 0.3)
    draw = generator(0)
    pre = PreActivations(torch.randn(99, 20, generator=draw), torch.randn(300, 20, generator=draw), torch.zeros(300))
    assert much_fires(pre, torch.zeros(()))
    assert not much_fires(pre, torch.full((300,), 10.0))
