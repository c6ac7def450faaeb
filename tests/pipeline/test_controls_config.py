"""Sizes of the controls: presets, and the benchmark that builds their twins."""

import pytest

from perimetry.config import build
from perimetry.errors import ConfigError, UnknownName
from perimetry.pipeline.controls import SETTINGS
from perimetry.pipeline.controls_config import CONTROL_PRESETS, ControlsConfig, with_control_preset


@pytest.mark.parametrize("name", CONTROL_PRESETS)
def test_every_preset_is_a_configuration(name: str) -> None:
    made = build(ControlsConfig, with_control_preset({}, name), "test")
    assert made.doses == (0.05, 0.2)
    assert made.simulated == 100_000


def test_what_is_given_goes_before_the_preset() -> None:
    assert with_control_preset({"passages": 9}, "quick")["passages"] == 9
    assert with_control_preset({}, "quick")["passages"] == CONTROL_PRESETS["quick"]["passages"]
    assert with_control_preset({"passages": 9}, None) == {"passages": 9}
    with pytest.raises(UnknownName, match="unknown preset 'quik'; the nearest name is 'quick'"):
        with_control_preset({}, "quik")


def test_quick_is_smaller_than_full() -> None:
    quick, full = (build(ControlsConfig, with_control_preset({}, name), "test") for name in ("quick", "full"))
    assert quick.passages < full.passages
    assert set(quick.scores) < set(full.scores)
    assert full.profile_tokens is None


def test_the_twins_are_those_of_the_benchmark() -> None:
    config = build(ControlsConfig, {"passages": 9, "words": 20, "doses": (0.1, 0.5), "seed": 4, "text": "x"}, "test")
    bench = config.bench()
    assert (bench.suites, bench.passages, bench.words, bench.doses) == (("typos",), 9, 20, (0.1, 0.5))
    assert (bench.seed, bench.text) == (4, "x")


def test_every_setting_belongs_to_a_part() -> None:
    used = {name for names in SETTINGS.values() for name in names}
    assert used == set(ControlsConfig.model_fields) - {"text"}, "text is in the hash of the documents"


def test_refusals() -> None:
    with pytest.raises(ConfigError, match="unknown key 'shuffle'; the nearest key is 'shuffles'"):
        build(ControlsConfig, {"shuffle": 100}, "test")
    with pytest.raises(ConfigError, match="passages = 7"):
        build(ControlsConfig, {"passages": 7}, "test")
