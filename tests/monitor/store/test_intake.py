"""The queue is bounded, nobody waits for it, and every loss has a reason."""

import threading
from pathlib import Path

import pytest
from tests.monitor.store.makers import a_config, an_event

from perimetry.monitor.store.intake import Intake, Receipt


def test_a_full_queue_drops_at_once_and_counts(tmp_path: Path) -> None:
    intake = Intake(a_config(tmp_path, queue_rows=3))
    assert [intake.submit(an_event(i)).ack for i in range(5)] == ["queued"] * 3 + ["dropped"] * 2
    assert intake.submit(an_event(9), wait=True) == Receipt("dropped", None)
    assert intake.dropped() == {"queue-full": 3}
    batch, _ = intake.take(0.0)
    assert [one.event.request_id for one in batch] == ["r0", "r1", "r2"]
    assert intake.submit(an_event(6)).ack == "queued"


def test_the_weight_of_texts_is_bounded_too(tmp_path: Path) -> None:
    intake = Intake(a_config(tmp_path, text="full", queue_bytes=2**16, text_chars=2**20))
    assert intake.submit(an_event(1, text="x" * 40_000)).ack == "queued"
    assert intake.submit(an_event(2, text="x" * 40_000)).ack == "dropped"
    assert intake.submit(an_event(3, text="short")).ack == "queued"
    intake.take(0.0)
    assert intake.submit(an_event(4, text="x" * 40_000)).ack == "queued"


def test_words_do_not_even_wait_where_none_are_kept(tmp_path: Path) -> None:
    intake = Intake(a_config(tmp_path))
    intake.submit(an_event(1, text="unspeakable"))
    ((one,), _) = intake.take(0.0)
    assert one.event.text is None
    assert one.weight == 0


def test_long_words_are_cut_at_a_space(tmp_path: Path) -> None:
    intake = Intake(a_config(tmp_path, text="full", text_chars=10))
    for text in ("one two three four", "onetwothreefour", "short"):
        intake.submit(an_event(1, text=text))
    batch, _ = intake.take(0.0)
    assert [one.event.text for one in batch] == ["one two", "onetwothre", "short"]


def test_what_is_not_whole_closed_or_refused_is_dropped_with_its_reason(tmp_path: Path) -> None:
    intake = Intake(a_config(tmp_path))
    assert intake.submit(an_event(1, p_value=2.0)).ack == "dropped"
    intake.refusing = "disk-full"
    assert intake.submit(an_event(2)).ack == "dropped"
    intake.refusing = None
    intake.close()
    assert intake.submit(an_event(3)).ack == "dropped"
    assert intake.change(lambda connection: None).result(0) == "dropped"
    assert intake.dropped() == {"invalid": 1, "disk-full": 1, "closed": 1}


def test_losses_are_fresh_until_they_are_written_down(tmp_path: Path) -> None:
    intake = Intake(a_config(tmp_path))
    intake.count("store-error", 3)
    seen = intake.fresh()
    intake.count("store-error", 2)
    intake.persisted(seen)
    assert intake.fresh() == {"store-error": 2}
    assert intake.dropped() == {"store-error": 5}


@pytest.mark.parametrize("call", ["submit", "change", "poke", "close"])
def test_who_waits_for_work_is_woken(tmp_path: Path, call: str) -> None:
    intake = Intake(a_config(tmp_path, commit_ms=0.0))
    taken: list[object] = []
    thread = threading.Thread(target=lambda: taken.append(intake.take(600.0)))
    thread.start()
    match call:
        case "submit":
            intake.submit(an_event(1))
        case "change":
            intake.change(lambda connection: None)
        case "poke":
            intake.poke()
        case "close":
            intake.close()
    thread.join(30)
    assert len(taken) == 1


def test_a_full_batch_does_not_wait_for_its_time(tmp_path: Path) -> None:
    intake = Intake(a_config(tmp_path, commit_ms=600_000.0, commit_rows=4))
    taken: list[int] = []
    thread = threading.Thread(target=lambda: taken.append(len(intake.take(600.0)[0])))
    thread.start()
    for i in range(6):
        intake.submit(an_event(i))
    thread.join(30)
    assert taken == [4]
    assert len(intake) == 2
