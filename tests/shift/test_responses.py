"""P-values of responses: valid at whatever moment they are read, and only against responses made alike."""

import math
from pathlib import Path

import pytest
import torch
from tests.shift.watch_worlds import Force, inputs_of, small_meter, write
from tests.worlds import text_of

from perimetry.activations.model import LanguageModel
from perimetry.errors import CorruptArtifact, Incompatible, MissingFile, TooFewSamples, UsageError
from perimetry.runtime import generator
from perimetry.shift.meter import Meter
from perimetry.shift.pooling import pool
from perimetry.shift.responses import ResponseCalibration, ResponseFacts, response_peak
from perimetry.shift.watch import watch
from perimetry.shift.watch_rows import WatchedRow, running_means

SAMPLED = {"do_sample": True, "top_k": 0}
HORIZON = 10


@pytest.fixture(scope="module")
def small(tiny_lm: LanguageModel) -> Meter:
    return small_meter(tiny_lm)


@pytest.fixture(scope="module")
def clean(small: Meter) -> list[WatchedRow]:
    return responses(small, range(4), 15)


@pytest.fixture(scope="module")
def calibration(clean: list[WatchedRow]) -> ResponseCalibration:
    return ResponseCalibration.fit(clean, HORIZON)


def prompts(seed: int) -> tuple[str, ...]:
    return tuple(text_of(f"r{seed}-{i}", 4 + i % 3) for i in range(8))


def responses(meter: Meter, seeds: range, tokens: int) -> list[WatchedRow]:
    rows: list[WatchedRow] = []
    with watch(meter.lm, meter) as w:
        for seed in seeds:
            write(meter, prompts(seed), seed, tokens, stopping_criteria=[w], **SAMPLED)
            rows += w.rows
    return rows


def with_scores(row: WatchedRow, scores: list[float | None], *, ended: bool = True) -> WatchedRow:
    """A row whose response has these scores."""
    whole = (*row.scores[: row.prompt_tokens], *scores)
    return row._replace(scores=whole, generated=len(scores) + 1, ended=ended)


def test_the_peak_is_the_largest_mean_of_eight_over_the_horizon(clean: list[WatchedRow]) -> None:
    for row in clean[:5]:
        mine = torch.tensor([s for s in row.of_response()[:HORIZON] if s is not None])
        pooled = pool(mine, torch.zeros(len(mine), dtype=torch.int64), 1, "max")
        assert response_peak(row, HORIZON) == pytest.approx(float(pooled[0]))
        assert len(row.running) == 14 - 7
        everything = torch.tensor([s for s in row.of_response() if s is not None])
        assert max(row.running) == pytest.approx(float(everything.unfold(0, 8, 1).mean(1).max()))
    assert running_means(torch.zeros(0), closed=True).numel() == 0


def test_peaks_of_short_responses(clean: list[WatchedRow]) -> None:
    short = [1.0, 2.0, None, 6.0]
    assert response_peak(with_scores(clean[0], short), HORIZON) == 3.0
    assert response_peak(with_scores(clean[0], short, ended=False), HORIZON) is None
    assert response_peak(with_scores(clean[0], short, ended=False), 4) == 3.0
    assert response_peak(with_scores(clean[0], []), HORIZON) == -math.inf


def test_a_p_value_counts_clean_responses_by_hand(clean: list[WatchedRow]) -> None:
    rows = [with_scores(clean[0], [float(i)]) for i in (3, 1, 2)] + [with_scores(clean[0], [])]
    calibration = ResponseCalibration.fit(rows, HORIZON)
    assert (calibration.n, calibration.silent) == (4, 1)
    assert [calibration.p_value(x) for x in (4.0, 3.0, 1.5, 0.0, -math.inf)] == [0.2, 0.4, 0.6, 0.8, 1.0]
    read = calibration.read(with_scores(clean[0], []))
    assert read is not None
    assert (read.peak, read.p_value, read.flagged) == (None, 1.0, False)


def test_false_alarms_over_the_horizon_are_those_that_were_asked_for() -> None:
    """Looked at after every token, over many calibrations: at most the rate, and that rate where rows reach the horizon."""
    draw = generator(0)
    facts = ResponseFacts("meter", "norm", "{}", 30)
    alarms, trials = 0, 400
    for _ in range(trials):
        paths = torch.randn(40, 30, generator=draw).unfold(1, 8, 1).mean(2).amax(1).double()
        calibration = ResponseCalibration(paths[1:].sort().values, 0, facts)
        alarms += calibration.p_value(float(paths[0])) <= 0.1
    assert abs(alarms / trials - 0.1) < 4.5 * math.sqrt(0.09 / trials)


def test_on_the_way_the_p_value_only_falls(small: Meter, calibration: ResponseCalibration) -> None:
    before: tuple[WatchedRow, ...] = ()
    for length in range(2, 16):
        rows = responses_with(small, calibration, length)
        for row in rows:
            counted = [s for s in row.of_response() if s is not None]
            assert (row.response is None) == (len(counted) < 8 and length - 1 < HORIZON)
        for row, other in zip(rows, before, strict=False):
            if other.response is not None:
                assert row.response is not None
                assert row.response.p_value <= other.response.p_value
        before = rows
    assert all(row.response is not None and row.response.horizon == HORIZON for row in before)


def responses_with(meter: Meter, calibration: ResponseCalibration, tokens: int) -> tuple[WatchedRow, ...]:
    with watch(meter.lm, meter, responses=calibration, alpha=0.2) as w:
        write(meter, prompts(9), 9, tokens, stopping_criteria=[w], **SAMPLED)
    return w.rows


def test_strange_responses_are_flagged_and_stopped(small: Meter, clean: list[WatchedRow]) -> None:
    loudest = max(clean, key=lambda row: max(row.running))
    # Half of what the clean ones reach: every response is strange to that.
    quiet = [with_scores(row, [0.5 * (s or 0.0) for s in row.of_response()]) for row in clean]
    calibration = ResponseCalibration.fit(quiet, HORIZON)
    assert calibration.p_value(max(loudest.running)) == 1 / 33
    with watch(small.lm, small, every=3, on_flag="stop", alpha=1 / 33, responses=calibration) as w:
        write(small, prompts(9), 9, 30, stopping_criteria=[w], eos_token_id=None, **SAMPLED)
    assert all(row.prompt.p_value > 1 / 33 for row in w.rows)
    assert all(row.flagged and row.stopped for row in w.rows)
    # Eight tokens are scored with the ninth; the next look is after the tenth.
    assert [row.generated for row in w.rows] == [10] * 8


def test_saved_and_loaded(
    small: Meter, calibration: ResponseCalibration, clean: list[WatchedRow], tmp_path: Path
) -> None:
    calibration.save(tmp_path / "meter-responses")
    again = ResponseCalibration.load(tmp_path / "meter-responses")
    assert again.facts == calibration.facts
    assert torch.equal(again.peaks, calibration.peaks)
    assert [again.read(row) for row in clean] == [calibration.read(row) for row in clean]
    with watch(small.lm, small, responses=tmp_path / "meter-responses") as w:
        write(small, prompts(9), 9, 12, stopping_criteria=[w], **SAMPLED)
    assert [row.response for row in w.rows] == [calibration.read(row) for row in w.rows]
    with pytest.raises(MissingFile), watch(small.lm, small, responses=tmp_path / "none"):
        pass
    ResponseCalibration(calibration.peaks.flip(0), 0, calibration.facts).save(tmp_path / "unsorted")
    with pytest.raises(CorruptArtifact, match="not sorted"):
        ResponseCalibration.load(tmp_path / "unsorted")


def test_other_sampling_and_other_meters(small: Meter, calibration: ResponseCalibration) -> None:
    for settings in ({}, {"do_sample": True, "top_k": 0, "temperature": 0.5}):
        with watch(small.lm, small, responses=calibration) as w, pytest.raises(Incompatible, match="sampling is"):
            write(small, stopping_criteria=[w], **settings)
    other = small_meter(small.lm, "nll")
    with watch(other.lm, other, responses=calibration) as w, pytest.raises(Incompatible, match="detector is 'nll'"):
        write(other, stopping_criteria=[w], **SAMPLED)


def test_what_cannot_be_calibrated_on(small: Meter, clean: list[WatchedRow]) -> None:
    with pytest.raises(TooFewSamples, match="response 0 was cut after 14 scored tokens"):
        ResponseCalibration.fit(clean, 15)
    with pytest.raises(TooFewSamples, match="at least 2, got 1"):
        ResponseCalibration.fit(clean[:1], HORIZON)
    with pytest.raises(TooFewSamples, match="response 1 was cut"):
        ResponseCalibration.fit([clean[0], clean[1]._replace(stopped=True)], HORIZON)
    with pytest.raises(UsageError, match="a horizon of 0"):
        ResponseCalibration.fit(clean, 0)
    with pytest.raises(Incompatible, match="response 1 cannot be held"):
        ResponseCalibration.fit([clean[0], clean[1]._replace(sampling="{}")], HORIZON)
    unsaved = [row._replace(prompt=row.prompt._replace(meter="unsaved")) for row in clean]
    with pytest.raises(UsageError, match="no identity before it is saved"):
        ResponseCalibration.fit(unsaved, HORIZON)


def test_a_response_that_ended_is_judged_by_what_it_has(small: Meter, calibration: ResponseCalibration) -> None:
    eos = int(small.lm.tokenizer.eos_token_id)  # pyright: ignore[reportArgumentType]
    columns = inputs_of(small)["input_ids"].shape[1]
    settings = {"eos_token_id": eos, "logits_processor": [Force(0, columns, eos), Force(1, columns + 4, eos)]}
    with watch(small.lm, small, responses=calibration) as w:
        write(small, stopping_criteria=[w], **SAMPLED, **settings)
    first, second, _ = w.rows
    assert (first.generated, second.generated) == (1, 5)
    assert first.response is not None
    assert second.response is not None
    assert first.response.p_value == 1.0
    counted = [s for s in second.of_response() if s is not None]
    assert second.response.peak == pytest.approx(sum(counted) / len(counted))
