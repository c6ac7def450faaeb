"""Meters over several layers are served as they read, and groups are what the calibration says."""

from pathlib import Path

import pytest
from tests.monitor.service import mock_config
from tests.shift.multi_worlds import MultiWorld, make_multi_world
from tests.worlds import World, text_of

from perimetry.monitor.config import MonitorConfig
from perimetry.monitor.meter_answers import calibration_spread, group_facts
from perimetry.monitor.meter_tap import MeterTap
from perimetry.monitor.wire import Asked
from perimetry.shift.conformal import false_alarm_interval, threshold
from perimetry.shift.meter import Meter


@pytest.fixture(scope="module")
def multi(world: World, tmp_path_factory: pytest.TempPathFactory) -> MultiWorld:
    return make_multi_world(world, tmp_path_factory.mktemp("multi"))


def config_of(state: Path) -> MonitorConfig:
    return mock_config(state, worker={"tap": "meter", "threads": 1, "device": "cpu"})


@pytest.mark.slow
def test_several_layers_are_read_as_by_their_meter(multi: MultiWorld, tmp_path: Path) -> None:
    tap = MeterTap.open(multi.folder, config_of(tmp_path))
    texts = [text_of(f"layers {i}", 4 + 2 * i) for i in range(8)] + ["zq xx !! vv"]
    prompts = tap.reader.prepare([str(i) for i in range(len(texts))], texts, truncate=False)
    rows = [Asked(p.encoded.ids, p.encoded.countable, p.encoded.words, True, 8) for p in prompts]
    found = tap.run(rows, lambda: False)
    for answer, reading in zip(found, multi.meter.score(texts), strict=True):
        assert answer.problem is None
        assert answer.score == pytest.approx(reading.score, rel=1e-5)
        assert answer.p_value == pytest.approx(reading.p_value, abs=1e-9)
        assert sum(answer.counted) == len(answer.token_scores) == len(reading.tokens)
        assert answer.token_scores == pytest.approx([t.score for t in reading.tokens], rel=1e-4, abs=1e-4)
        assert [c.latent for c in answer.concepts] == [c.latent for c in reading.concepts]
    facts = tap.facts
    assert facts.artifact["tap"] == "resid_post.0+resid_post.1"
    assert facts.digest == multi.meter.digest
    assert {g.name: g.n for g in facts.groups} == multi.meter.joint.sizes()
    assert all((g.threshold, g.fpr_low, g.fpr_high) == (None, 0.0, 1.0) for g in facts.groups)
    assert facts.spread > 0
    assert len(tap.probe()) == 4


def test_groups_say_what_the_calibration_says(meter: Meter) -> None:
    scores = meter.normal.calibration.scores[meter.main]
    found = {g.name: g for g in group_facts(meter, 0.1)}
    assert found["pooled"].n == 60
    for name, group in found.items():
        wanted = false_alarm_interval(0.1, group.n)
        assert (group.fpr_low, group.fpr_high) == (wanted.low, wanted.high)
        assert group.threshold == threshold(scores[name], 0.1)
        assert group.alpha_min == pytest.approx(1 / (group.n + 1))
    assert group_facts(meter, 0.001)[0].threshold is None
    assert calibration_spread(meter) == pytest.approx(float(scores["pooled"].double().std()))
