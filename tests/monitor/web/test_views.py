"""What the views hold, before anything is rendered."""

import asyncio
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from tests.monitor.fakes import FakeDrift, FakeEngine, MemorySink
from tests.monitor.web.stage import WordEngine, alarmed, event

from perimetry.monitor.engine import GroupFacts, Scored
from perimetry.monitor.http.http_config import HttpConfig
from perimetry.monitor.http.judging import Judged, plain
from perimetry.monitor.problems import Problem
from perimetry.monitor.web.card_view import NOT_PROMISED, card_view
from perimetry.monitor.web.reading_view import reading_view
from perimetry.monitor.web.traffic_view import SHOWN, current_drift, drift_view, traffic_view

NOW = datetime(2026, 6, 1, tzinfo=UTC)
GROUPS = (GroupFacts("short", 1000, 0.001, 8.0, 0.0048, 0.017), GroupFacts("pooled", 5000, 0.0002, 7.5, 0.007, 0.013))


def judged(text: str, alpha: float = 0.01, **more: Any) -> Judged:
    row = plain(text, "concepts")
    (found,) = asyncio.run(WordEngine().score([row], 0.0))
    found = found._replace(**more)
    return Judged("id-1", row, found, alpha, found.p_value <= alpha, NOW, 4.0, "queued")


def test_a_verdict_is_plain_values_and_says_all() -> None:
    view = reading_view(judged("an odd text"), GROUPS, {}, 0.01)
    assert json.loads(json.dumps(view)) == view
    assert view["verdict"] == "outside"
    facts = view["facts"]
    assert (facts["threshold"], facts["threshold_at"], facts["fpr"]) == (
        "8",
        "for false alarms of 1 %",
        "0.481 to 1.7 %",
    )
    assert facts["because"] == "p = 0.000999 is at most the false-alarm rate of 0.01"
    assert view["rail"] == {"p": 1000, "alpha": 667}
    assert [token["h"] for token in view["tokens"]] == [None, 0, 8, 1]
    assert [concept["index"] for concept in view["concepts"]] == [7, 11]
    assert view["concepts"][0]["url"] is None
    named = reading_view(judged("an odd text"), GROUPS, {"neuronpedia": "gpt2-small/6-res-jb"}, 0.01)
    assert [concept["url"] is None for concept in named["concepts"]] == [False, True]


def test_a_thin_group_is_held_against_all() -> None:
    view = reading_view(judged("a text", group="tiny", fallback=True, n_calibration=5000), GROUPS, {}, 0.01)
    assert view["facts"]["threshold"] == "7.5"
    assert view["facts"]["group"] == "tiny (too thin, all prompts used)"
    assert [banner["kind"] for banner in view["banners"]] == ["warn"]
    unknown = reading_view(judged("a text", group="other"), GROUPS, {}, 0.01)
    assert unknown["facts"]["threshold"] == "–"


def test_a_concept_may_point_nowhere() -> None:
    found = judged("a text")
    concept = found.scored.concepts[0]._replace(max_token=99, contexts=("no mark", "«open", "»«"))
    scored: Scored = found.scored._replace(concepts=(concept,))
    (shown,) = reading_view(found._replace(scored=scored), GROUPS, {}, 0.01)["concepts"]
    assert shown["token"] == []
    assert shown["contexts"] == [[["no mark"], [], []], [["«open"], [], []], [["»«"], [], []]]


def test_traffic_is_summed_and_the_last_events_come_first() -> None:
    sink = MemorySink()

    async def look() -> dict[str, Any]:
        now = datetime.now(UTC)
        for k in range(3000):
            await sink.put(event(k, p_value=0.001 if k % 3 == 0 else 0.5))
        await sink.put(event(3000, p_value=0.001, adapter="page", metadata={"synthetic": "page"}))
        return await traffic_view(sink, FakeDrift(), 0.01, now)

    view = asyncio.run(look())
    assert (view["total"], view["flagged"], view["share"]) == ("3\u202f000", "1\u202f000", "33.3 %")
    assert view["histogram"]["bins"] == [1000, *[0] * 8, 2000, *[0] * 10]
    assert view["histogram"]["even"] == 150
    assert [e["id"] for e in view["events"]] == list(range(3001, 3001 - SHOWN, -1))
    assert [e["id"] for e in view["flagged_events"]][:2] == [2998, 2995]
    assert view["last_id"] == 3001


def test_nothing_is_said_of_drift_where_nothing_is_known() -> None:
    class Silent(FakeDrift):
        async def current(self) -> Any:
            raise Problem("loading")

    assert asyncio.run(current_drift(None)) is None
    assert asyncio.run(current_drift(Silent())) is None
    assert drift_view(None) is None


def test_drift_lies_on_its_scale() -> None:
    view = drift_view(asyncio.run(alarmed().current()))
    assert view is not None
    ks, mmd, mix = view["tests"]
    assert ks["scale"] == {"zones": [(0, 180), (220, 180)], "low": 248, "high": 280, "at": 264}
    assert mmd["scale"]["zones"] == [(240, 160)]
    assert mix["scale"]["zones"] == [(40, 360)]
    assert view["cusum"] == {"value": "12.3", "threshold": "9.5", "alarm": True, "at": 400, "limit": 309}
    assert view["rising"] == [{"index": 42, "now": "20 %", "ref": "0.3 %"}]


@pytest.mark.parametrize("gates", [{}, {"gates": {"wasserstein": 0.4}}])
def test_the_zone_is_what_the_watch_says(gates: dict[str, Any]) -> None:
    found = asyncio.run(FakeDrift().current())
    test = {**found["tests"][0], "effect": 0.6, "effect_ci95": [0.5, 0.7], "effect_name": "wasserstein1"}
    view = drift_view({**found, "tests": [test, {**test, "effect_name": "made up"}], **gates})
    assert view is not None
    first, second = view["tests"]
    least, end = (0.4, 0.8) if gates else (0.2, 0.75)
    assert first["scale"]["zones"] == [(round(400 * least / end), 400 - round(400 * least / end))]
    assert second["scale"] is None


def test_the_card_names_what_scores_and_what_nobody_promises() -> None:
    engine = FakeEngine()
    engine.card = {"detector": "surprise", "layers": [12, 18], "width": 6144, "baselines": [
        {"name": "nll", "what": "perplexity", "n": 1000, "threshold": 5.25, "correlation": [0.5, 0.4, 0.6]}]}  # fmt: skip
    view = card_view(HttpConfig(), engine)
    assert ("Calibration (SHA-256)", "b" * 64) in view["artifact"]
    assert ("Blocks that are read", "12, 18") in view["about"]
    assert [group["threshold"] for group in view["groups"]] == ["8", "–"]
    assert view["baselines"] == [
        {
            "name": "nll",
            "what": "perplexity",
            "threshold": "5.25",
            "n": "1\u202f000",
            "same": "0.5",
            "ends": "0.4 to 0.6",
        }
    ]
    assert ("prompt_tokens", "8\u202f192") in view["limits"]
    assert view["not_promised"] == NOT_PROMISED
    engine.artifact, engine.groups, engine.card = {}, (), {}
    assert card_view(HttpConfig(), engine)["artifact"] == []
