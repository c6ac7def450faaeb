"""What is said above everything else."""

from datetime import UTC, datetime

import pytest
from tests.monitor.fakes import scored

from perimetry.monitor.http.judging import plain
from perimetry.monitor.problems import PROBLEMS, Problem
from perimetry.monitor.web.banners import OLD_DAYS, of_problem, of_reading, of_service

NOW = datetime(2026, 6, 1, tzinfo=UTC)


@pytest.mark.parametrize("kind", PROBLEMS)
def test_every_refusal_is_said_with_its_status_and_when_to_come_back(kind: str) -> None:
    found = of_problem(Problem(kind, retry_after_s=7 if PROBLEMS[kind][0] == 503 else None))
    assert found.kind == "error"
    assert found.text.startswith(f"No score ({PROBLEMS[kind][0]} {kind}): ")
    assert ("Try again in 7 s." in found.text) == (PROBLEMS[kind][0] == 503)
    assert ".." not in found.text


def test_only_a_fallback_is_said_of_a_reading() -> None:
    found = scored(plain("a text"))
    assert of_reading(found) == []
    (banner,) = of_reading(found._replace(fallback=True, group="a\u202eb"))
    assert banner.kind == "warn"
    assert "«aU+202Eb»" in banner.text


def test_a_service_is_well_or_says_what_is_wrong() -> None:
    assert of_service({"worker": "ok"}, {}, {"state": "watch"}, NOW) == []
    assert of_service({"worker": "ok"}, {"written": "2026-05-01"}, None, NOW) == []
    assert of_service({"worker": "ok"}, {"written": "no date"}, None, NOW) == []
    (wrong,) = of_service({"worker": "gone", "store": "ok"}, {}, None, NOW)
    assert (wrong.kind, wrong.text) == ("error", "Not ready, worker: gone")


def test_a_calibration_grows_stale_by_traffic_and_by_age() -> None:
    left, old = of_service({}, {"written": "2026-01-01T00:00:00+00:00"}, {"state": "alarm"}, NOW)
    assert "no longer looks like" in left.text
    assert "151 days" in old.text
    assert OLD_DAYS < 151
