"""The study of known features on tiny worlds: whole, killed anywhere, claims that follow intervals."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from perimetry.config import build
from perimetry.errors import ConfigError, UnknownName
from perimetry.evals.sae import cooccurrence
from perimetry.evals.sae.architecture_order import ORDER, RECIPES
from perimetry.evals.sae.cooccurrence import ARMS, CAUSAL
from perimetry.evals.sae.judging import JUDGED
from perimetry.evals.sae.synthetic_config import WORLDS
from perimetry.evals.sae.truth_rows import TruthRow
from perimetry.pipeline.truth import (
    CLAIMS,
    TRUTH_PRESETS,
    TruthStudyConfig,
    judged_claims,
    run_truth,
    with_truth_preset,
)
from perimetry.report.schema_truth import parse_truth


class Killed(BaseException):
    pass


CONFIG = build(TruthStudyConfig, with_truth_preset({}, "tiny"), "test")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Never stopped; read only."""
    return run_truth(CONFIG, tmp_path_factory.mktemp("truth"))


def plain(results: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in results.items() if k not in ("date", "hardware", "command")}


def test_the_file_has_both_parts_and_every_claim(whole: dict[str, Any]) -> None:
    parse_truth(whole)
    rows = whole["rows"]
    assert {row["arm"] for row in rows if row["part"] == "order"} == {*RECIPES, "probe"}
    assert {row["arm"] for row in rows if row["part"] == "causal"} == set(ARMS)
    pairs = {(row["arm"], row["against"]) for row in rows if row["part"] == "order" and row["against"]}
    assert pairs == set(ORDER)
    assert {row["seed"] for row in rows} == {None, 0, 1}
    assert set(whole["metrics"]) == {*CAUSAL, *JUDGED}
    assert [(c["part"], c["arm"], c["against"]) for c in whole["claims"]] == [c[:3] for c in CLAIMS]
    assert all(c["seeds"] == 2 and c["low"] <= c["estimate"] <= c["high"] for c in whole["claims"])


def test_a_part_alone_is_the_part_of_the_whole(whole: dict[str, Any], tmp_path: Path) -> None:
    alone = run_truth(CONFIG.model_copy(update={"parts": ("causal",)}), tmp_path)
    assert alone["rows"] == [row for row in whole["rows"] if row["part"] == "causal"]
    assert {c["part"] for c in alone["claims"]} == {"causal"}


def test_killed_it_goes_on_and_gives_the_same(
    whole: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest, calls = cooccurrence.train, [0]

    def once(*args: Any, **more: Any) -> Any:
        calls[0] += 1
        if calls[0] == 3:
            raise Killed
        return honest(*args, **more)

    monkeypatch.setattr(cooccurrence, "train", once)
    with pytest.raises(Killed):
        run_truth(CONFIG, tmp_path)
    assert not (tmp_path / "results.json").exists()
    again = run_truth(CONFIG, tmp_path)
    assert calls[0] == len(ARMS) * 2 + 1, "what was trained is not trained again"
    assert plain(again) == plain(whole)
    other = CONFIG.model_copy(update={"parts": ("order",)})
    with pytest.raises(ConfigError, match=r"holds a study of known features with other settings \(parts\)"):
        run_truth(other, tmp_path)


def row(arm: str, against: str, seed: int | None, metric: str, box: tuple[float, float, float]) -> TruthRow:
    return TruthRow("small", arm, against, seed, metric, *box, 9, 0.1, "bootstrap")


@pytest.mark.parametrize(
    ("box", "verdict"), [((-0.2, -0.3, -0.1), "holds"), ((0.2, 0.1, 0.3), "fails"), ((-0.1, -0.3, 0.1), "open")]
)
def test_a_claim_follows_the_interval_on_its_own_side(box: tuple[float, float, float], verdict: str) -> None:
    rows = [row("broken", "none", None, "absorption", box), row("broken", "none", 0, "absorption", box)]
    rows += [row("broken", "none", 1, "absorption", (0.5, 0.4, 0.6)), row("broken", "none", None, "f1", (9, 9, 9))]
    [claim] = judged_claims({"causal": rows})
    assert (claim["verdict"], claim["estimate"], claim["seeds"]) == (verdict, box[0], 2)
    assert claim["seeds_so"] == int(box[0] < 0)
    first, second = ORDER[0]
    [claim] = judged_claims({"order": [row(first, second, None, "f1", (0.2, 0.1, 0.3))]})
    assert claim["verdict"] == "holds", "above, in F1"
    assert judged_claims({}) == []


@pytest.mark.parametrize("preset", list(TRUTH_PRESETS))
def test_presets_are_configurations(preset: str) -> None:
    config = build(TruthStudyConfig, with_truth_preset({}, preset), preset)
    assert config.order.preset in WORLDS
    assert len(config.order.seeds) >= (3 if preset == "full" else 1)


def test_values_go_before_the_preset_and_what_is_wrong_is_refused() -> None:
    kept = build(TruthStudyConfig, with_truth_preset({"order": {"lr": 1e-3}}, "published"), "test").order
    assert (kept.preset, kept.lr) == ("published", 1e-3)
    assert build(TruthStudyConfig, with_truth_preset({"parts": ["order"]}, "tiny"), "test").parts == ("order",)
    with pytest.raises(UnknownName, match="preset"):
        with_truth_preset({}, "large")
    for wrong in (
        {"parts": []},
        {"parts": ["other"]},
        {"parts": ["order", "order"]},
        {"order": {"own_k": True}, "parts": ["order"]},
    ):
        with pytest.raises(ConfigError, match=r"parts|own_k"):
            build(TruthStudyConfig, wrong, "test")


def test_it_says_what_it_does(tmp_path: Path) -> None:
    said: list[str] = []
    say: Callable[[str], None] = said.append
    run_truth(CONFIG.model_copy(update={"parts": ("causal",)}), tmp_path, say=say)
    assert said == ["1/1  causal: 4 arms, 2 seeds"]
