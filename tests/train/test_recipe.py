import re
import tomllib
from pathlib import Path

import pytest

from perimetry.config import build
from perimetry.errors import ConfigError, UnknownName
from perimetry.train import TrainConfig

RECIPE = Path(__file__).parents[2] / "recipes" / "train.toml"


def make(**values: object) -> TrainConfig:
    return build(TrainConfig, values, "configuration [train]")


def test_learning_rate_rises_stays_and_falls() -> None:
    config = make(tokens=1000, batch=10, lr=1.0, lr_warmup=0.1, lr_decay=0.2)
    rates = [config.lr_at(step) for step in range(100)]
    assert rates[:10] == pytest.approx([i / 10 for i in range(1, 11)])
    assert rates[10:81] == [1.0] * 71
    assert rates[81:] == pytest.approx([(100 - s) / 20 for s in range(81, 100)])
    assert min(rates) > 0


def test_a_shorter_run_keeps_the_shape_of_its_schedules() -> None:
    short, long = make(tokens=1000, batch=10), make(tokens=5000, batch=10)
    assert short.lr_at(89) == pytest.approx(long.lr_at(449), rel=0.1)
    assert make(tokens=100_000_000).dead_tokens == 10_000_000
    assert make(tokens=1_000_000).dead_tokens == 100_000
    assert make(dead_after=5).dead_tokens == 5


def test_sparsity_ramp() -> None:
    config = make(architecture="standard", tokens=1000, batch=10, sparsity=2.0, sparsity_warmup=0.5)
    assert config.sparsity_at(0) == pytest.approx(2.0 / 50)
    assert config.sparsity_at(49) == config.sparsity_at(99) == 2.0
    assert make(architecture="standard", sparsity=2.0, sparsity_warmup=0.0).sparsity_at(0) == 2.0


def test_defaults_by_architecture() -> None:
    assert make(architecture="topk").aux_weight == 1 / 32
    assert make(architecture="standard").aux_weight == 0
    assert make(architecture="standard").peak_sparsity == 0.03
    assert make(architecture="batchtopk").peak_sparsity == 0
    assert (make(architecture="jumprelu").first_moment, make().first_moment) == (0.0, 0.9)
    assert make(architecture="jumprelu", l0_loss="step").peak_sparsity == 1e-3


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"widht": 3}, "unknown key 'widht'; the nearest key is 'width'"),
        ({"k": 10, "width": 5}, "k = 10 exceeds width = 5"),
        ({"tokens": 5, "batch": 10}, "tokens = 5 is less than one batch of 10"),
        ({"lr": -1}, "lr = -1"),
        ({"lr": float("nan")}, "lr = nan"),
    ],
)
def test_bad_values_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make(**values)


def test_an_unknown_architecture_names_the_nearest() -> None:
    with pytest.raises(UnknownName, match="unknown architecture 'batchtop'; the nearest name is 'batchtopk'"):
        make(architecture="batchtop")


def test_the_settings_that_the_recipe_shows_in_comments_are_settings() -> None:
    shown = re.findall(r"^# (\w+ = .*)$", RECIPE.read_text(encoding="utf-8"), re.MULTILINE)
    architectures = {
        "fractions": "matryoshka",
        "weights": "matryoshka",
        "mode": "jumprelu",
        "select_by_norm": "batchtopk",
    }
    names = set()
    for line in shown:
        values = tomllib.loads(line)
        names |= values.keys()
        for option in values.get("options", {}):
            values.setdefault("architecture", architectures[option])
        values.update({"unit_decoder": False} if "select_by_norm" in line else {})
        make(**values)
    assert {
        "options",
        "ortho",
        "causal",
        "causal_every",
        "smooth",
        "aligned",
        "frozen",
        "k_start",
        "normalise",
        "soft_cosine",
    } <= names
