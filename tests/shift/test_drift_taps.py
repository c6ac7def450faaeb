"""Drift of readings over several layers: exact where nothing drifted, and found where one tap alone moved."""

import json
import random
import shutil
from pathlib import Path

import pytest
import torch
from tests.shift.multi_worlds import MultiWorld
from tests.shift.test_loading import rewrite
from tests.worlds import run_main, text_of, write_jsonl

from perimetry.errors import CorruptArtifact, UsageError
from perimetry.runtime import generator
from perimetry.shift.drift import DriftConfig, DriftReference, drift
from perimetry.shift.drift_files import load_reference, read_readings
from perimetry.shift.drift_taps import TapScores, make_alike
from perimetry.shift.joint import JointCalibration, Yardstick
from perimetry.shift.reading import Reading, TapReading

STICK = Yardstick(torch.zeros(2), torch.full((2,), 2**0.5))


def reading(number: int, scores: torch.Tensor, joint: JointCalibration, length: float) -> Reading:
    """As a meter over the taps a and b would make it."""
    found = joint.p_values(scores[None], torch.tensor([length]))
    least = float(-found.least[0].log())
    taps = {"a": TapReading(float(scores[0]), 0.5, False), "b": TapReading(float(scores[1]), 0.5, False)}
    return Reading(
        id=str(number),
        score=least,
        p_value=float(found.p[0]),
        flagged=False,
        alpha=0.05,
        group=found.group[0],
        fallback=bool(found.fallback[0]),
        tokens_scored=int(length),
        tokens_excluded=1,
        truncated=False,
        detector="least_p",
        scores={"least_p": least},
        tokens=(),
        concepts=(),
        meter="d",
        taps=taps,
    )


def simulated(seed: int, moved: float = 0.0, window: int = 60) -> tuple[DriftReference, list[Reading]]:
    draw = generator(seed)
    scores = torch.randn(100 + window, 1, generator=draw) + torch.randn(100 + window, 2, generator=draw)
    scores[100:, 1] += moved
    lengths = torch.randint(5, 50, (100 + window,), generator=draw).float()
    joint = JointCalibration.fit(scores[:100], lengths[:100], STICK, groups=2, minimum=30)
    rows = [reading(i, s, joint, float(n)) for i, (s, n) in enumerate(zip(scores[100:], lengths[100:], strict=True))]
    clean = STICK.height(joint.scores)
    names = TapScores(("a", "b"), joint)
    empty = make_alike(names, "least_p", rows[:1], 0.05).calibration
    return DriftReference(empty, "least_p", "d", joint={"least_p": clean}, taps=names), rows


def test_without_drift_alarms_keep_to_the_budget() -> None:
    """120 windows that did not drift: every test by itself is at most .1 about as often as it should be, or less."""
    config = DriftConfig(permutations=99, resamples=20)
    found = [next(iter(drift(*simulated(seed), config))) for seed in range(120)]
    for test in range(4):
        share = sum(w.tests[test].p_value <= 0.1 for w in found) / len(found)
        # Four standard errors of a share of .1 of 120.
        assert share <= 0.1 + 4 * (0.09 / 120) ** 0.5, found[0].tests[test].name
    assert sum(w.drifted for w in found) / len(found) <= 0.05 + 4 * (0.0475 / 120) ** 0.5


def test_a_window_that_moved_in_one_tap_is_found() -> None:
    found = [
        next(iter(drift(*simulated(seed, moved=4.0), DriftConfig(permutations=99, resamples=20)))) for seed in range(5)
    ]
    assert all(w.drifted for w in found)
    assert all(w.alarms.realised > 4 * w.alarms.expected for w in found)


def test_clean_prompts_and_readings_are_treated_alike() -> None:
    reference, rows = simulated(3)
    assert reference.taps is not None
    joint = reference.taps.joint
    found = make_alike(reference.taps, "least_p", rows, 0.05)
    seen = torch.tensor([[t.score for t in (r.taps or {}).values()] for r in rows])
    assert torch.equal(found.clean, STICK.height(joint.scores))
    assert [r.score for r in found.readings] == STICK.height(seen).tolist()
    turned = [r._replace(taps=dict(reversed((r.taps or {}).items()))) for r in rows]
    again = make_alike(reference.taps, "least_p", turned, 0.05)
    assert [r.score for r in again.readings] == [r.score for r in found.readings], "taps go by name, not by place"
    assert all(r.flagged == (r.p_value <= 0.05) for r in found.readings)


def test_readings_without_the_taps_are_refused() -> None:
    reference, rows = simulated(4)
    with pytest.raises(UsageError, match="reading '0' carries the taps none, and the meter has a, b"):
        reference.check([rows[0]._replace(taps=None)])
    single = DriftReference(reference.calibration, "least_p", "d")
    with pytest.raises(UsageError, match="reading '0' carries the taps a, b, and the meter has none"):
        single.check(rows)


@pytest.fixture(scope="module")
def windows(multi: MultiWorld, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, rng = tmp_path_factory.mktemp("windows"), random.Random(2)
    rows = [{"id": f"n{i}", "text": text_of(f"n{i}", rng.randint(5, 24))} for i in range(40)]
    rows += [{"id": f"x{i}", "text": "".join(rng.choice("xqzjk{}#%") for _ in range(60))} for i in range(40)]
    done = run_main(
        "score", multi.folder, "--input", write_jsonl(folder / "in.jsonl", rows), "--json", "--detectors", "l0"
    )
    assert done.code == 0, done.err
    (folder / "readings.jsonl").write_text(done.out)
    return folder / "readings.jsonl"


def test_the_command_finds_the_window_that_drifted(multi: MultiWorld, windows: Path) -> None:
    done = run_main("drift", multi.folder, windows, "--window", "40", "--json")
    assert done.code == 0, done.err
    assert done.json()["detector"] == "least_p"
    assert [w["drifted"] for w in done.json()["windows"]] == [False, True]
    names = [e["score"] for e in done.json()["windows"][1]["effects"]]
    assert names == ["least_p", "layer-00/surprise", "layer-00/l0", "layer-01/surprise", "layer-01/l0"]


def test_what_the_command_refuses(multi: MultiWorld, windows: Path, tmp_path: Path) -> None:
    lines = [json.loads(line) for line in windows.read_text().splitlines()]
    bad = write_jsonl(tmp_path / "bad.jsonl", [lines[0] | {"taps": {"layer-00": {"score": 1.0}}}])
    assert run_main("drift", multi.folder, bad, "--json").error() == (
        "UsageError",
        f"{bad}, line 1: the taps lack a finite score, a p-value or a flag; read the prompt again",
    )
    odd = write_jsonl(tmp_path / "odd.jsonl", [lines[0] | {"taps": 3}])
    assert "the taps lack" in run_main("drift", multi.folder, odd, "--json").error()[1]
    kind, message = run_main("drift", multi.folder, windows, "--reference", windows, "--json").error()
    assert kind == "UsageError"
    assert message.endswith("leave --reference away")


def test_a_changed_tap_is_no_reference(multi: MultiWorld, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(multi.folder, tmp_path / "multi"))
    assert load_reference(copy).digest == multi.meter.digest
    rewrite(copy / "taps" / "layer-01", "meter.json", lambda v: v.update(main="l0"))
    with pytest.raises(CorruptArtifact, match="the tap was changed or exchanged"):
        load_reference(copy)


def test_readings_come_back_with_their_taps(multi: MultiWorld, windows: Path) -> None:
    found = read_readings(windows)
    line = json.loads(windows.read_text().splitlines()[0])
    assert found[0].taps is not None
    assert {n: t._asdict()["score"] for n, t in found[0].taps.items()} == {
        n: t["score"] for n, t in line["taps"].items()
    }
    assert list(found[0].taps) == list(multi.meter.meters)
