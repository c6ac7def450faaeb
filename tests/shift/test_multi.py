"""Meters over several layers: each tap as alone, one valid p-value, the same whatever the company."""

import json
import math
from pathlib import Path

import pytest
import torch
from tests.shift.multi_worlds import MultiWorld
from tests.shift.test_meter import PROMPTS, assert_same
from tests.shift.test_taps import counting
from tests.worlds import World, run_main, text_of

from perimetry.errors import ConfigError, CorruptArtifact, EmptyText, StorageError, UnknownName
from perimetry.shift.clean import MeterConfig
from perimetry.shift.joint import JointCalibration, least_p
from perimetry.shift.loading import load_meter
from perimetry.shift.meter import Meter
from perimetry.shift.multi import MultiMeter
from perimetry.shift.multi_loading import load_reader
from perimetry.shift.reading import Reading


def assert_same_taps(one: list[Reading], two: list[Reading], tolerance: float = 1e-4) -> None:
    assert_same(one, two, tolerance)
    for a, b in zip(one, two, strict=True):
        assert a.taps is not None
        assert b.taps is not None
        assert (a.p_value, a.tap, a.flagged) == (b.p_value, b.tap, b.flagged)
        for name, tap in a.taps.items():
            other = b.taps[name]
            assert other.score == pytest.approx(tap.score, rel=tolerance, abs=tolerance)
            assert other.p_value == tap.p_value
            assert [c.latent for c in other.concepts] == [c.latent for c in tap.concepts]


def test_a_reading_does_not_depend_on_its_company(multi: MultiWorld) -> None:
    meter = multi.meter
    together = meter.score(PROMPTS, detectors="all")
    alone = [meter.score([p], detectors="all")[0] for p in PROMPTS]
    small = meter.score(PROMPTS, detectors="all", batch_tokens=64)
    left = meter.score(PROMPTS, detectors="all", side="left")
    turned = meter.score(PROMPTS[::-1], detectors="all")[::-1]
    for other in (alone, small, left, turned):
        assert_same_taps(together, other)


def test_each_tap_says_what_its_meter_alone_says(multi: MultiWorld) -> None:
    readings = multi.meter.score(PROMPTS, detectors="all")
    for name in ("layer-00", "layer-01"):
        single = load_meter(multi.folder / "taps" / name, lm=multi.meter.lm)
        for one, whole in zip(single.score(PROMPTS, detectors="all"), readings, strict=True):
            assert whole.taps is not None
            tap = whole.taps[name]
            assert (tap.p_value, tap.flagged) == (one.p_value, one.flagged)
            assert tap.score == pytest.approx(one.score, rel=1e-5)
            assert [c.latent for c in tap.concepts] == [c.latent for c in one.concepts]
            assert [t.token for t in tap.hot] == [t.token for t in one.hot]
            assert {f"{name}/{n}" for n in one.scores} <= set(whole.scores)
            assert whole.scores[f"{name}/{one.detector}"] == tap.score


def test_a_tap_fitted_with_another_is_the_meter_fitted_alone(multi: MultiWorld, meter: Meter) -> None:
    """The same SAE, text and settings: shared forward passes change nothing, bit for bit."""
    tap = multi.meter.meters["layer-01"]
    assert tap.sae.state().tensors.keys() == meter.sae.state().tensors.keys()
    one, two = tap.normal.calibration.state(), meter.normal.calibration.state()
    assert one.keys() == two.keys()
    assert [k for k in one if not torch.equal(one[k], two[k])] == []
    assert tap.normal.references == meter.normal.references
    assert tap.normal.book.texts == meter.normal.book.texts
    for name, detector in tap.normal.detectors.items():
        other = meter.normal.detectors[name].state()
        assert all(torch.equal(v, other[k]) for k, v in detector.state().items()), name
    assert tap.digest == meter.digest, "so that the folder is the same, byte for byte"


def test_the_p_value_is_the_rank_of_the_minimum(multi: MultiWorld) -> None:
    joint = multi.meter.joint
    own = joint.groups.index(joint.lengths)
    for reading in multi.meter.score(PROMPTS):
        assert reading.taps is not None
        least = min(t.p_value for t in reading.taps.values())
        assert reading.score == pytest.approx(-math.log(least))
        assert reading.p_value >= least
        assert reading.tap is not None
        assert reading.taps[reading.tap].p_value == least
        group = own == int(joint.groups.index(torch.tensor([float(reading.tokens_scored)])))
        scores = torch.tensor([[t.score for t in reading.taps.values()]])
        assert reading.p_value == float(least_p(joint.scores[group], scores).p[0])
        assert reading.detector == "least_p"
        assert reading.scores["least_p"] == reading.score
        assert reading.meter == multi.meter.digest


def test_a_calibration_prompt_is_as_high_as_it_was(multi: MultiWorld, world: World) -> None:
    texts = [json.loads(line)["text"] for line in world.prompts.read_text().splitlines()]
    seen = {round(r.scores["layer-00/surprise"], 3) for r in multi.meter.score(texts, explain=False)}
    kept = [round(v, 3) for v in multi.meter.joint.columns(["layer-00", "layer-01"])["layer-00"].tolist()]
    assert sum(v in seen for v in kept) >= 0.95 * len(kept)


def test_clean_prompts_are_seldom_flagged(multi: MultiWorld) -> None:
    texts = [text_of(f"new{i}", 5 + i % 20) for i in range(300)]
    p = torch.tensor([r.p_value for r in multi.meter.score(texts, explain=False)])
    # 60 calibration prompts in two groups: about Beta(3, 28) at alpha .1, whose 99.9 % quantile is about .32.
    assert float((p <= 0.1).float().mean()) < 0.32
    assert float(p.mean()) == pytest.approx(0.5, abs=0.2)


def test_the_model_runs_once_and_no_deeper_than_it_must(multi: MultiWorld) -> None:
    with counting(multi.meter.lm) as ran:
        multi.meter.score(PROMPTS[:1])
    assert ran == ["0", "1"]
    with counting(multi.meter.lm) as ran:
        multi.meter.score(PROMPTS[:1], detectors="nll")
    assert ran == ["0", "1", "2", "head"]


@pytest.mark.parametrize("main", [MeterConfig().main, "nll"])
def test_a_main_score_from_beyond_the_taps(multi: MultiWorld, world: World, tmp_path: Path, main: str) -> None:
    """The default main score needs the last hidden state, `nll` the vocabulary: the pass must reach them unasked."""
    paths = [w for sae in multi.saes for w in ("--sae", sae)]
    settings = ["--text", world.prompts, "--config", world.settings, "--model", world.model, "--dtype", "float32"]
    made = run_main("calibrate", *paths, *settings, "--main", main, "--out", tmp_path / "deep")
    assert made.code == 0, made.err
    meter = load_reader(tmp_path / "deep", lm=multi.meter.lm)
    for reading in meter.score(PROMPTS[:3]):
        assert reading.taps is not None
        for name, tap in reading.taps.items():
            alone = load_meter(tmp_path / "deep" / "taps" / name, lm=multi.meter.lm)
            (one,) = alone.score([PROMPTS[int(reading.id)]])
            assert tap.score == pytest.approx(one.score, rel=1e-4, abs=1e-4)
            assert tap.p_value == one.p_value


def test_flags_alpha_and_batches(multi: MultiWorld) -> None:
    for alpha in (0.05, 0.5):
        for reading in multi.meter.score(PROMPTS, alpha=alpha):
            assert reading.flagged == (reading.p_value <= alpha)
            assert all(t.flagged == (t.p_value <= alpha) for t in (reading.taps or {}).values())
    judged = multi.meter.score(PROMPTS, batch_fdr=0.5)
    assert all(r.q is not None and r.flagged == (r.q <= 0.5) for r in judged)
    assert multi.meter.score([]) == []


def test_readings_come_in_windows(multi: MultiWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = multi.meter.score(PROMPTS, explain=False)
    monkeypatch.setattr("perimetry.shift.reader.WINDOW", 4)
    assert_same_taps(whole, list(multi.meter.readings(PROMPTS, explain=False)))


def test_refused_requests(multi: MultiWorld) -> None:
    with pytest.raises(ConfigError, match=r"alpha is 2.0; a false-alarm rate between 0 and 1"):
        multi.meter.score(["x"], alpha=2.0)
    with pytest.raises(ConfigError, match="a batch of 0 tokens holds nothing"):
        multi.meter.score(["x"], batch_tokens=0)
    with pytest.raises(UnknownName, match="the nearest name is 'surprise'"):
        multi.meter.score(["x"], detectors="surprize")
    with pytest.raises(EmptyText, match="prompt '0': the text is empty"):
        multi.meter.score([""])


def test_the_line_of_a_reading(multi: MultiWorld) -> None:
    (reading,) = multi.meter.score(PROMPTS[4:5])
    line = json.loads(json.dumps(reading.to_json(), allow_nan=False))
    assert list(line["taps"]) == ["layer-00", "layer-01"]
    assert set(line["taps"]["layer-00"]) == {"score", "p_value", "flagged"}
    assert {"id", "score", "p_value", "flagged", "alpha", "group", "scores", "meter", "tap"} <= set(line)
    full = json.loads(json.dumps(reading.to_json(tokens=True, concepts=True), allow_nan=False))
    for tap in full["taps"].values():
        assert len(tap["tokens"]) == reading.tokens_scored
        assert tap["concepts"]
        assert tap["hot"]
    assert full["tokens"] == full["taps"][full["tap"]]["tokens"]
    assert full["hot"] == full["taps"][full["tap"]]["hot"]


def test_a_single_meter_has_no_taps(meter: Meter) -> None:
    (reading,) = meter.score(PROMPTS[:1])
    assert (reading.taps, reading.tap) == (None, None)
    assert not {"tap", "taps"} & set(reading.to_json(tokens=True, concepts=True))


def test_the_summary_is_plain_json(multi: MultiWorld) -> None:
    summary = json.loads(json.dumps(multi.meter.summary(), allow_nan=False))
    assert list(summary["taps"]) == ["layer-00", "layer-01"]
    assert {r["group"] for r in summary["false_alarms"]} == {"pooled", *multi.meter.joint.groups.labels}
    assert all(r["expected"] <= r["alpha"] for r in summary["false_alarms"])
    assert summary["main"] == "surprise"


def test_saved_again_it_is_the_same_byte_for_byte(multi: MultiWorld, tmp_path: Path) -> None:
    again = load_reader(multi.folder, lm=multi.meter.lm)
    assert isinstance(again, MultiMeter)
    assert again.save(tmp_path / "copy") == multi.meter.digest == again.digest
    files = {p.relative_to(multi.folder): p.read_bytes() for p in multi.folder.rglob("*") if p.is_file()}
    assert files == {
        p.relative_to(tmp_path / "copy"): p.read_bytes() for p in (tmp_path / "copy").rglob("*") if p.is_file()
    }
    assert_same_taps(multi.meter.score(PROMPTS[:4]), again.score(PROMPTS[:4]), 0.0)
    again.save(tmp_path / "copy")
    assert [p.name for p in tmp_path.iterdir()] == ["copy"], "nothing is left over"


def test_nothing_else_is_replaced(multi: MultiWorld, world: World, tmp_path: Path) -> None:
    meter = load_reader(multi.folder, lm=multi.meter.lm)
    for place in (world.meter, world.root):
        with pytest.raises(StorageError, match="exists and is no multi-meter; nothing there was touched"):
            meter.save(place)
    with pytest.raises(StorageError, match="exists and is no meter"):
        load_reader(world.meter, lm=multi.meter.lm).save(multi.folder)


def test_taps_must_judge_alike_and_fit_the_calibration(multi: MultiWorld) -> None:
    meters, joint = multi.meter.meters, multi.meter.joint
    second = meters["layer-01"]
    other = Meter(second.extractor, second.sae, second.info, second.normal, main="l0", details=second.details)
    with pytest.raises(ConfigError, match="the taps judge by l0 and surprise; one main score is wanted"):
        MultiMeter(meters | {"layer-01": other}, joint)
    turned = JointCalibration(joint.scores.flip(1), joint.lengths, joint.groups, joint.minimum, joint.yardstick)
    with pytest.raises(CorruptArtifact, match="holds other scores of the tap 'layer-00' than its own meter"):
        MultiMeter(meters, turned)
    wide = JointCalibration(joint.scores[:, [0, 1, 1]], joint.lengths, joint.groups, joint.minimum, joint.yardstick)
    with pytest.raises(CorruptArtifact, match="the joint calibration is of 3 taps and there are 2"):
        MultiMeter(meters, wide)


def test_the_command_line_reads_it(multi: MultiWorld, tmp_path: Path) -> None:
    shown = run_main("score", multi.folder, PROMPTS[4])
    assert shown.code == 0, shown.err
    assert "layer-00: score" in shown.out
    assert "layer-01: score" in shown.out
    assert "tokens and concepts below" in shown.out
    file = tmp_path / "in.jsonl"
    file.write_text("".join(json.dumps({"id": str(i), "text": t}) + "\n" for i, t in enumerate(PROMPTS)))
    done = run_main("score", multi.folder, "--input", file, "--json", "--tokens", "--concepts")
    assert done.code == 0, done.err
    for line, reading in zip(done.lines(), multi.meter.score(PROMPTS), strict=True):
        assert line["p_value"] == reading.p_value
        assert line["tap"] == reading.tap
        assert line["taps"]["layer-00"]["tokens"]
