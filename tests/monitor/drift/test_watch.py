"""Windows that fill, alarms of two in a row, sums that are acknowledged, and a state that goes to the disk and comes back."""

import json

import pytest
from tests.monitor.drift.traffic import a_baseline, a_watch, prompts, quick

from perimetry.monitor.drift.concepts import ConceptCounts
from perimetry.monitor.drift.reference import Reference
from perimetry.monitor.drift.watch import Seen, Watch
from perimetry.monitor.http.views import Drift

LATER = "2026-01-31T13:00:00+00:00"


def take(watch: Watch, some: list[Seen]) -> None:
    for one in some:
        watch.take(one, LATER)


def test_it_warms_up_and_then_is_quiet() -> None:
    watch = a_watch()
    take(watch, prompts(0, 49, p=0.9))
    said = Drift.model_validate(watch.said())
    assert (said.state, said.tests, said.window, said.reference_n) == ("warming", [], 50, 400)
    take(watch, prompts(1, 1, p=0.9))
    said = Drift.model_validate(watch.said())
    assert said.state == "ok"
    assert [test.name for test in said.tests] == ["ks", "mmd", "group_mix"]
    assert said.as_of == LATER
    assert said.budget.windows_per_false_alarm == pytest.approx(200)
    assert said.cusum.value == 0.0


def test_one_window_is_watched_and_two_in_a_row_are_an_alarm() -> None:
    watch = a_watch()
    states: list[str] = []
    for seed, shift in enumerate([0.0, 2.0, 0.0, 2.0, 2.0, 2.0, 0.0]):
        take(watch, prompts(seed, 50, shift=shift, p=0.9))
        states.append(watch.state)
    assert states == ["ok", "watch", "ok", "watch", "alarm", "alarm", "ok"]
    assert (watch.windows, watch.watched) == (7, 4)
    assert watch.said()["budget"]["observed"] == pytest.approx(4 / 7)


def test_the_sum_alarms_until_it_is_acknowledged() -> None:
    watch = a_watch()
    take(watch, prompts(0, 3, p=1e-4))
    assert watch.cusum == pytest.approx(3 * 3.912, abs=0.01)
    assert watch.said()["cusum"]["alarm"]
    take(watch, prompts(1, 30, p=0.9))
    assert watch.cusum < 9.5
    assert watch.state == "alarm"
    watch.acknowledge()
    assert (watch.state, watch.cusum, watch.said()["cusum"]["alarm"]) == ("warming", 0.0, False)


def test_an_older_meter_has_no_summaries() -> None:
    """KS, mix of groups and the sum go on by the score alone, with or without a summary of one number."""
    config = quick()
    watch = Watch(config, Reference(a_baseline(width=1), config), "c1", LATER)
    some = prompts(0, 50, shift=2.0, p=0.5)
    bare = [one._replace(summary=None) for one in some[:25]] + [one._replace(summary=(one.score,)) for one in some[25:]]
    take(watch, bare)
    assert watch.reference.why == "an older meter"
    assert [test["name"] for test in watch.said()["tests"]] == ["ks", "group_mix"]
    assert watch.state == "watch"
    assert watch.said()["budget"]["windows_per_false_alarm"] == pytest.approx(400)


def test_summaries_that_do_not_fit_are_in_no_window() -> None:
    watch = a_watch()
    one = prompts(0, 1, p=1e-3)[0]
    for summary in (None, (1.0,), (float("nan"),) * 6, (*one.summary[:5], float("inf"))):  # pyright: ignore[reportOptionalSubscript]
        watch.take(one._replace(summary=summary), LATER)
    assert watch.unusable == 4
    assert watch.cusum > 9.5
    take(watch, prompts(1, 49))
    assert watch.windows == 0


def test_a_state_comes_back_to_the_last_prompt() -> None:
    whole, first = a_watch(), a_watch()
    some = [one._replace(concepts=((3, 2),)) for one in prompts(5, 175, shift=0.4)]
    take(whole, some)
    take(first, some[:120])
    second = a_watch()
    assert second.restore(json.loads(json.dumps(first.dump())))
    assert second.said() == first.said()
    take(second, some[120:])
    assert second.dump() == whole.dump()
    assert second.said() == whole.said()


def test_a_state_of_another_artifact_is_not_taken() -> None:
    first, other = a_watch(), a_watch(artifact="c2")
    take(first, prompts(0, 60, p=1e-3))
    assert not other.restore(first.dump())
    assert other.dump() == a_watch(artifact="c2").dump()


def test_a_window_of_other_settings_begins_anew() -> None:
    first = a_watch(quick(window=100))
    take(first, prompts(0, 80, p=0.4))
    other = a_watch(quick(window=50))
    assert other.restore(first.dump())
    assert other.cusum == first.cusum
    take(other, prompts(1, 49))
    assert other.windows == 0


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"cusum": -1.0},
        {"cusum": float("nan")},
        {"cusum": "much"},
        {"windows": None},
        {"windows": -3},
        {"group": [0, 7]},
        {"group": 5},
        {"summaries": "not base64!"},
        {"summaries": "AAAA"},
        {"tests": [3]},
        {"concepts": {}},
    ],
)
def test_a_damaged_state_is_refused_and_changes_nothing(change: dict[str, object]) -> None:
    first, other = a_watch(), a_watch()
    take(first, prompts(0, 60))
    with pytest.raises(ValueError, match=r".+"):
        other.restore(first.dump() | change)
    assert other.dump() == a_watch().dump()


def test_rising_concepts_are_those_beyond_chance() -> None:
    counts = ConceptCounts()
    for at in range(20):
        counts.add(50, [(1, 6), (2, 1)] + [(3, 30)] * (at < 4))
    counts.add(1_000, [])
    rates = a_baseline(rates=(0.0, 0.02, 0.02, 0.0, 0.5)).rates
    reference = Reference(a_baseline(rates=tuple(rates)), quick())
    rising = counts.rising(reference.rates)
    assert rising == [{"index": 1, "rate_now": pytest.approx(0.12), "rate_ref": pytest.approx(0.02)}]
    assert counts.tokens == 1_000
    assert ConceptCounts.load(json.loads(json.dumps(counts.dump()))).rising(reference.rates) == rising


def test_a_window_says_which_concepts_rise() -> None:
    watch = a_watch(rates=(0.0, 0.01))
    take(watch, [one._replace(concepts=((1, 5),)) for one in prompts(0, 50)])
    said = Drift.model_validate(watch.said())
    assert [(one.index, round(one.rate_now, 3)) for one in said.rising_concepts] == [(1, 0.25)]
    take(watch, prompts(1, 50))
    assert watch.said()["rising_concepts"] == []
