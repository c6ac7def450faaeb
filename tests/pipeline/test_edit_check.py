"""The parts of a check of edits that need no model: files, presets, rows, means over edits, words for rings."""

from pathlib import Path

import pytest
from tests.worlds import write_jsonl

from perimetry.assets.documents import Document
from perimetry.config import build
from perimetry.editing.health import Finding, HealthLimits
from perimetry.editing.known import CAPITALS, MONTHS, RINGS, known_edits, sibling_facts
from perimetry.editing.requests import EditRequest
from perimetry.errors import ConfigError, MissingFile, TooFewSamples, UnknownName, UsageError
from perimetry.measures.stats import Interval
from perimetry.pipeline.edit_check import openings
from perimetry.pipeline.edit_check_config import EditCheckConfig, read_facts, read_rings, with_edit_check_preset
from perimetry.pipeline.edit_check_rows import about_edit, rows_of


def request(subject: str) -> EditRequest:
    return EditRequest(prompt="The month after {} is", subject=subject, target="May", family="months")


def finding(change: float, drawn: tuple[float, ...]) -> Finding:
    return Finding(
        "nll", "ordinary text", 3.0, 3.0 + change, change, drawn, Interval(change, change - 1, change + 1, 9, "t 95 %")
    )


def test_rows_and_their_means_over_edits() -> None:
    looked = [(request("March"), [finding(0.5, (0.1, 0.3))]), (request("July"), [finding(1.0, (0.2, 0.2))])]
    rows = rows_of(looked, 7)
    by = {(r.edit, r.arm): r for r in rows}
    own = by["The month after March is -> May", "edit"]
    assert (own.before, own.after, own.estimate, own.low, own.high, own.n, own.seed) == (3.0, 3.5, 0.5, -0.5, 1.5, 9, 7)
    drawn = by["The month after March is -> May", "drawn"]
    assert (drawn.estimate, drawn.n) == (pytest.approx(0.2), 2)
    assert drawn.low < 0.2 < drawn.high
    pooled = by["all", "edit"]
    assert (pooled.estimate, pooled.after, pooled.n, pooled.family) == (0.75, 3.75, 2, "months")
    assert pooled.low < 0.5
    assert by["all", "drawn"].estimate == pytest.approx(0.2)
    assert {r.edit for r in rows_of(looked[:1], 7)} == {"The month after March is -> May"}


def test_rings_in_a_word() -> None:
    def ring(name: str, r: float, r_scaled: float, scale: float) -> list[Finding]:
        parts = {"ring_r": r, "ring_r_scaled": r_scaled, "ring_scale": scale}
        return [Finding(m, name, 0.0, v, v, (r / 4,) if m == "ring_r" else ()) for m, v in parts.items()]

    found = [
        *(
            Finding("size", "the edited blocks", 0.0, 0.1, 0.1, ()),
            Finding("p_target", "the edited prompt", 0.0, 0.9, 0.9, ()),
        ),
        *ring("months", 28.0, 0.1, 29.0),
        *ring("weekdays", 0.9, 0.9, 1.0),
    ]
    said = about_edit(request("March"), found, HealthLimits())
    assert (said["size"], said["p_target"]) == (0.1, 0.9)
    months, weekdays = said["rings"]
    assert (months["own"], months["flag"], months["times_drawn"]) == (True, "norm blow-up", 4.0)
    assert (weekdays["own"], weekdays["flag"]) == (False, "loss of structure")
    assert months["by_size"] == pytest.approx(1.0)
    assert weekdays["by_size"] == 0.0


def test_rings_and_facts_of_ones_own(tmp_path: Path) -> None:
    words = tmp_path / "winds.txt"
    words.write_text("north\neast\n\nsouth\nwest\n")
    (ring,) = read_rings(words)
    assert (ring.name, ring.words) == ("winds", ("north", "east", "south", "west"))
    rows = write_jsonl(tmp_path / "r.jsonl", [{"name": "n", "words": ["1", "2", "3", "4"], "sentences": ["at {}"]}])
    assert read_rings(rows)[0].sentences == ("at {}",)
    facts = write_jsonl(tmp_path / "f.jsonl", [{"prompt": "a", "answer": "b", "subject": "c"}])
    assert read_facts(facts)[0].subject == "c"
    words.write_text("north\nnorth\neast\nwest\n")
    with pytest.raises(ConfigError, match="each word once"):
        read_rings(words)
    with pytest.raises(MissingFile):
        read_rings(tmp_path / "no.jsonl")
    facts.write_text("[1]\n")
    with pytest.raises(UsageError, match="line 1"):
        read_facts(facts)
    facts.write_text("\n")
    with pytest.raises(UsageError, match="is empty"):
        read_facts(facts)


def test_edits_that_come_with_it_are_wrong_ones_and_differ() -> None:
    found = known_edits(50)
    assert [e.family for e in found[:4]] == ["months", "capitals", "weekdays", "months"]
    assert len({(e.subject, e.target) for e in found}) == 50
    after = {ring.name: dict(zip(ring.words, ring.words[1:] + ring.words[:1], strict=True)) for ring in RINGS}
    truth = CAPITALS | after["months"] | after["weekdays"]
    assert all(e.target != truth[e.subject] for e in found)
    assert all(e.target in set(truth.values()) for e in found)
    for country in CAPITALS:
        assert len(sibling_facts(country)) == 12
        assert country not in {f.subject for f in sibling_facts(country)}
    assert len(MONTHS.words) == 12
    with pytest.raises(UsageError, match="from 1 to"):
        known_edits(0)


def test_presets() -> None:
    full = build(EditCheckConfig, with_edit_check_preset({"draws": 2}, "full"), "test")
    assert (full.edits, full.draws) == (50, 2)
    assert with_edit_check_preset({}, "quick") == {}
    with pytest.raises(UnknownName, match="fulll"):
        with_edit_check_preset({}, "fulll")


def test_openings_want_enough_documents() -> None:
    with pytest.raises(TooFewSamples, match="2 documents are wanted"):
        openings([Document("a", "one two", {})], 3, 2)
