"""What a real meter says of itself."""

import json
from datetime import UTC, datetime

import pytest
from tests.worlds import World

from perimetry.monitor.meter_card import BASELINES, card_of, written_on
from perimetry.shift.meter import Meter


def test_the_card_of_a_meter_is_plain_and_measured(meter: Meter, world: World) -> None:
    card = card_of(meter, 0.05, written_on(world.meter))
    assert json.loads(json.dumps(card, allow_nan=False)) == card
    assert (card["detector"], card["width"], card["layers"]) == ("surprise", 64, [1])
    assert card["calibration_prompts"] == meter.details["calibration_prompts"]
    assert datetime.fromisoformat(card["written"]) <= datetime.now(UTC)
    assert [one["name"] for one in card["baselines"]] == list(BASELINES)
    for one in card["baselines"]:
        low, high = one["correlation"][1:]
        assert -1 <= low <= one["correlation"][0] <= high <= 1
        assert one["n"] == card["calibration_prompts"]
        scores = meter.normal.calibration.scores[one["name"]]["pooled"]
        assert float(scores.min()) <= one["threshold"] <= float(scores.max())
    clean = meter.normal.references["surprise"]
    assert card["tokens"] == pytest.approx({"mean": clean.mean, "sd": clean.deviation})


def test_a_threshold_that_nothing_reaches_is_left_out(meter: Meter) -> None:
    card = card_of(meter, 1e-6)
    assert "written" not in card
    assert all("threshold" not in one for one in card["baselines"])
