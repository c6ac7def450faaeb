"""Presets: what they change, and what stands above them."""

import pytest

from perimetry.config import build
from perimetry.errors import ConfigError, UnknownName
from perimetry.pipeline.bench_config import PRESETS, BenchConfig, with_preset
from perimetry.suites import SUITES


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_a_config_of_suites_that_exist(name: str) -> None:
    config = build(BenchConfig, with_preset({"suites": ("all",)}, name), "test")
    assert {*config.damage, *config.pairs} <= set(SUITES)
    assert config.suites == ("all",)
    least = min(config.passages, config.attacks_n, *config.pairs.values())
    assert least >= 8, "fewer pairs give no interval"


def test_quick_is_smaller_in_every_way() -> None:
    quick, full = (build(BenchConfig, with_preset({}, name), "test") for name in ("quick", "full"))
    assert quick.passages < full.passages
    assert quick.attacks_n < full.attacks_n
    assert len(quick.damage) < len(full.damage)
    assert all(quick.pairs[name] < full.pairs[name] for name in quick.pairs)
    assert (quick.questions, quick.doses) == (0, (0.05, 0.2, 0.5, 1.0))
    assert (full.doses, full.questions > 0) == ((), True)


def test_what_is_given_stands_above_the_preset_and_all_means_full() -> None:
    assert with_preset({"passages": 33}, "quick")["passages"] == 33
    assert with_preset({"passages": 33}, "quick")["attacks_n"] == PRESETS["quick"]["attacks_n"]
    assert with_preset({"suites": ("all",)}, None) == {**PRESETS["full"], "suites": ("all",)}
    assert with_preset({"suites": ("typos",)}, None) == {"suites": ("typos",)}
    with pytest.raises(UnknownName, match="unknown preset 'quik'; the nearest name is 'quick'"):
        with_preset({}, "quik")
    with pytest.raises(ConfigError, match="unknown key 'dose'; the nearest key is 'doses'"):
        build(BenchConfig, {"dose": (0.1,)}, "test")
