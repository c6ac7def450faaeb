"""The defaults are those of the spec, and settings that contradict each other are refused."""

from pathlib import Path

import pytest

from perimetry.config import load_config
from perimetry.errors import ConfigError
from perimetry.monitor.config import MonitorConfig


def test_the_defaults_are_those_of_the_spec() -> None:
    config = MonitorConfig()
    assert config.alpha == 0.01
    assert (config.batch.tokens, config.batch.rows, config.batch.wait_ms, config.batch.padding) == (
        16384,
        32,
        3.0,
        0.25,
    )
    assert (config.limits.prompt_tokens, config.limits.request_tokens) == (8192, 32768)
    assert (config.limits.queue_rows, config.limits.queue_tokens) == (512, 131072)
    times = config.time
    assert (times.batch_hard_ms, times.drain_s, times.model_load_s) == (30000, 30, 600)
    assert (times.respawn_first_s, times.respawn_most_s, times.deaths, times.deaths_s) == (1, 30, 5, 600)
    assert config.batch.mode == "packed"


def test_a_prompt_that_fits_no_batch_is_refused_beforehand(tmp_path: Path) -> None:
    file = tmp_path / "serve.toml"
    file.write_text("[serve.batch]\ntokens = 4096\n")
    with pytest.raises(ConfigError, match=r"batch\.tokens is 4096 .* would never be scored"):
        load_config(MonitorConfig, section="serve", file=file)
    file.write_text("[serve.limits]\nprompt_tokens = 2048\n[serve.batch]\ntokens = 4096\n")
    assert load_config(MonitorConfig, section="serve", file=file).batch.tokens == 4096


def test_an_unknown_key_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="the nearest key is 'alpha'"):
        load_config(MonitorConfig, section="serve", overrides={"alfa": 0.05}, environment={})
