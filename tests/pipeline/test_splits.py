"""What is held out of an asset is neither trained nor calibrated on."""

from pathlib import Path
from typing import Any

import pytest
from tests.worlds import World

from perimetry.activations.text import take_split
from perimetry.assets import Document, read_texts
from perimetry.pipeline import bench_suites, training
from perimetry.pipeline.bench_suites import TEST_SPLIT, held_out, not_held_out
from perimetry.pipeline.training import TrainingPlan, run_training
from perimetry.runtime import RuntimeConfig, start
from perimetry.train import TrainConfig

SMALL: dict[str, Any] = {"width": 48, "k": 6, "tokens": 1024, "batch": 128, "fit_tokens": 128, "threshold_tokens": 128}


@pytest.fixture
def asset(world: World, monkeypatch: pytest.MonkeyPatch) -> str:
    """The text of the world, passed off as an asset."""
    monkeypatch.setattr(bench_suites, "ASSETS", {str(world.corpus): None})
    return str(world.corpus)


def test_the_parts_of_an_asset_share_no_document(asset: str) -> None:
    whole = list(read_texts(asset))
    fitted, tested = not_held_out(asset, progress=False), held_out(asset, progress=False)
    assert sorted(d.id for d in [*fitted, *tested]) == sorted(d.id for d in whole)
    assert {d.id for d in tested} == {d.id for d in take_split(whole, *TEST_SPLIT)} != set()


def test_training_on_an_asset_leaves_its_test_split_alone(
    asset: str, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Document] = []
    inner = training.harvest

    def watched(lm: Any, sites: Any, documents: list[Document], *rest: Any, **named: Any) -> Any:
        seen.extend(documents)
        return inner(lm, sites, documents, *rest, **named)

    monkeypatch.setattr(training, "harvest", watched)
    plan = TrainingPlan(model=str(world.model), text=asset, layer=1, context=64)
    run_training(plan, TrainConfig(**SMALL), tmp_path / "sae", start(RuntimeConfig(dtype="float32")))
    assert {d.id for d in seen} == {d.id for d in not_held_out(asset, progress=False)}
    assert not {d.id for d in seen} & {d.id for d in held_out(asset, progress=False)}
