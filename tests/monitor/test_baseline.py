"""What the worker tells of the calibration: whole over the wire, true of the meter, and alike for a row that is read now."""

import array
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.monitor.service import mock_config, run, running, score
from tests.shift.multi_worlds import MultiWorld, make_multi_world
from tests.worlds import World

from perimetry.assets import read_texts
from perimetry.monitor.baseline import (
    FLOAT_MOST,
    Baseline,
    baseline_arrays,
    baseline_header,
    baseline_of,
    pack_summary,
    unpack_summary,
)
from perimetry.monitor.frames import BadFrame, Decoder, Frame, encode
from perimetry.monitor.meter_baseline import Summariser, meter_baseline
from perimetry.monitor.meter_tap import MeterTap
from perimetry.monitor.mock_tap import MOCK_N, mock_score
from perimetry.monitor.wire import Asked
from perimetry.shift.meter import Meter
from perimetry.shift.multi import MultiMeter

A = Baseline(
    ("short", "long"), array.array("i", [0, 1, 1]), 2, array.array("f", range(6)), array.array("f", [0.5]), "why"
)


def frame_of(header: Any, arrays: Any) -> Frame:
    (found,) = Decoder().feed(encode({"kind": "ready", "baseline": header}, arrays))
    return found


def test_it_arrives_whole() -> None:
    assert baseline_of(frame_of(baseline_header(A), baseline_arrays(A))) == A
    assert baseline_of(frame_of(None, {})) is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"width": 3},
        {"width": 0},
        {"groups": ("short",)},
        {"group": array.array("i", [0, 1])},
        {"group": array.array("i", [0, 1, -1])},
        {"summaries": array.array("f", [float("nan")] * 6)},
    ],
)
def test_what_contradicts_itself_is_refused(wrong: dict[str, Any]) -> None:
    bad = A._replace(**wrong)
    with pytest.raises(BadFrame, match="contradicts"):
        baseline_of(frame_of(baseline_header(bad), baseline_arrays(bad)))


def test_what_is_not_there_is_refused() -> None:
    for header, arrays in (({"groups": []}, baseline_arrays(A)), (baseline_header(A), {}), (3, {})):
        with pytest.raises(BadFrame):
            baseline_of(frame_of(header, arrays))


def test_a_summary_is_packed_to_32_bits() -> None:
    assert unpack_summary(pack_summary((0.1, -3.0))) == pytest.approx((0.1, -3.0), rel=1e-7)
    assert len(pack_summary((0.0,) * 36)) == 144
    pack_summary((FLOAT_MOST * 0.999, -FLOAT_MOST * 0.999))
    with pytest.raises(ValueError, match="multiple of 4"):
        unpack_summary(b"12345")


def test_the_mock_says_what_it_scores(tmp_path: Path) -> None:
    async def work() -> None:
        async with running(mock_config(tmp_path)) as engine:
            assert engine.baseline is not None
            assert (len(engine.baseline.group), engine.baseline.width) == (MOCK_N, 1)
            assert engine.baseline.why
            (one,) = await score(engine, "some words")
            assert one.summary == (mock_score("some words"),)

    run(work)


def test_a_meter_with_summaries(meter: Meter) -> None:
    found, short = meter_baseline(meter), meter.normal.summaries
    assert short is not None
    assert found.groups == meter.normal.calibration.groups.labels
    assert (found.width, found.why) == (36, "")
    assert torch.equal(torch.tensor(found.summaries).reshape(60, 36), short.vectors)
    assert torch.equal(torch.tensor(found.group), short.group)
    assert torch.equal(torch.tensor(found.rates), meter.normal.clean_rate.float())


def without(meter: Meter) -> Meter:
    """The same meter as one made before there were summaries."""
    normal = meter.normal._replace(summaries=None)
    return Meter(meter.extractor, meter.sae, meter.info, normal, main=meter.main, details=meter.details)


def test_an_older_meter_has_its_scores(meter: Meter) -> None:
    found, scores = meter_baseline(without(meter)), meter.normal.calibration.scores[meter.main]
    assert (found.width, len(found.group)) == (1, 60)
    assert "calibrate again" in found.why
    assert sorted(found.groups) == sorted(name for name in scores if name != "pooled")
    for place, name in enumerate(found.groups):
        mine = [s for s, g in zip(found.summaries, found.group, strict=True) if g == place]
        assert mine == scores[name].tolist()
    assert Summariser(without(meter)).names == [meter.main]


def rows_of(tap: MeterTap, texts: list[str]) -> list[Asked]:
    prompts = tap.reader.prepare([str(i) for i in range(len(texts))], texts, truncate=False)
    return [Asked(p.encoded.ids, p.encoded.countable, p.encoded.words) for p in prompts]


def nearest(found: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Of each wanted row the largest difference to the found row that is closest, in units of the columns."""
    unit = wanted.std(0).clamp_min(1e-6)
    return torch.cdist(wanted / unit, found / unit, p=torch.inf).amin(1)


def served(world: World, folder: Path, state: Path) -> tuple[MeterTap, torch.Tensor]:
    """A tap, and the summaries of all texts that the calibration was drawn from, as the service makes them."""
    tap = MeterTap.open(folder, mock_config(state, worker={"tap": "meter", "threads": 1, "device": "cpu"}))
    answers = tap.run(rows_of(tap, [text.text for text in read_texts(world.prompts)]), lambda: False)
    return tap, torch.tensor([answer.summary for answer in answers])


def test_a_calibration_prompt_that_is_served_has_the_summary_that_is_kept(world: World, tmp_path: Path) -> None:
    tap, found = served(world, world.meter, tmp_path)
    assert tap.facts.baseline is not None
    wanted = torch.tensor(tap.facts.baseline.summaries).reshape(60, 36)
    assert float(nearest(found, wanted).max()) < 1e-3
    assert float(nearest(found[:5], wanted[:5]).max()) > 1e-3


@pytest.fixture(scope="module")
def multi(world: World, tmp_path_factory: pytest.TempPathFactory) -> MultiWorld:
    return make_multi_world(world, tmp_path_factory.mktemp("multi"))


@pytest.mark.slow
def test_several_layers_have_one_summary(world: World, multi: MultiWorld, tmp_path: Path) -> None:
    tap, found = served(world, multi.folder, tmp_path)
    baseline = tap.facts.baseline
    assert baseline is not None
    assert (baseline.why, baseline.width, len(baseline.rates)) == ("", 1 + 2 * 36, 0)
    wanted = torch.tensor(baseline.summaries).reshape(-1, baseline.width)
    joint = multi.meter.joint
    assert wanted[:, 0].tolist() == joint.yardstick.height(joint.scores).tolist()
    assert [baseline.groups[g] for g in baseline.group] == list(joint.groups.names(joint.lengths))
    assert float(nearest(found, wanted).max()) < 1e-3
    old = MultiMeter({name: without(m) for name, m in multi.meter.meters.items()}, joint)
    assert (meter_baseline(old).width, Summariser(old).names) == (1, [multi.meter.main])
    with torch.no_grad():
        readings = multi.meter.score(["the cat sat on the mat."], detectors="main")
        (short,) = Summariser(old).of(readings, ())
    assert len(short) == 1
