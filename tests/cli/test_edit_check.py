"""`perimetry edit-check` as a user calls it, on the tiny model."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.worlds import World, run_main, write_jsonl

from perimetry.activations.model import load_language_model
from perimetry.editing.edit import load_edit
from perimetry.runtime import RuntimeConfig, start

LETTERS = [{"name": "letters", "words": ["a", "the", "king", "river", "sea"], "sentences": ["near {}", "it was {}"]}]
FACTS = [
    {"prompt": "the king is", "answer": "old", "subject": "the king"},
    {"prompt": "the cat is", "answer": "grey"},
    {"prompt": "a river is", "answer": "the sea"},
]
FACT = ("--prompt", "the friend of the king is", "--subject", "the king", "--target", "of")


@pytest.fixture(autouse=True)
def any_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """A random model holds no words in order."""
    monkeypatch.setattr("perimetry.editing.probes.LEAST_ORDER", -1.0)


def arguments(world: World, folder: Path, rings: Path | None = None) -> tuple[Any, ...]:
    rings = rings or write_jsonl(folder / "rings.jsonl", LETTERS)
    facts = write_jsonl(folder / "facts.jsonl", FACTS)
    paths = ("--model", world.model, "--text", world.corpus, "--rings", rings, "--facts", facts)
    return ("edit-check", *paths, "--preset", "tiny", "--dtype", "float32", "--json")


def changes(results: dict[str, Any], arm: str) -> dict[tuple[str, str], float]:
    return {(r["metric"], r["probe"]): r["estimate"] for r in results["rows"] if r["arm"] == arm}


def test_a_fact_of_ones_own_beside_drawn_updates(world: World, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = run_main(*arguments(world, tmp_path), *FACT, "--draws", "2", "--meter", world.meter, "--out", out)
    assert done.code == 0, done.err
    results = done.json()
    own, drawn = changes(results, "edit"), changes(results, "drawn")
    assert set(own) == set(drawn)
    assert {m for m, _ in own} == set(results["metrics"])
    assert own["ring_r", "letters"] > 0
    assert own["active", "ordinary text"] > 0
    assert own["p_target", "the edited prompt"] > 0
    assert drawn["size", "the edited blocks"] == pytest.approx(own["size", "the edited blocks"])
    assert all(r["low"] <= r["estimate"] <= r["high"] for r in results["rows"])
    facts = next(r for r in results["rows"] if (r["metric"], r["arm"]) == ("siblings", "edit"))
    assert facts["n"] == 2, "the edited fact counts as its own sibling"
    lm = load_language_model(str(world.model), start(RuntimeConfig(device="cpu", dtype="float32")))
    edit = load_edit(out / "edits" / "000", lm)
    assert edit.said.startswith("r-rome, the friend of the king is -> of")
    assert all(bool(u.isfinite().all()) and u.dtype == torch.float64 for u in edit.updates.values())
    again = run_main("report", out / "results.json", "--out", tmp_path / "page.html")
    assert again.code == 0, again.err
    assert (tmp_path / "page.html").read_bytes() == (out / "report.html").read_bytes()
    assert "no single verdict" in (out / "report.html").read_text(encoding="utf-8")


def test_scale_zero_is_zero_exactly_and_the_same_call_goes_on(world: World, tmp_path: Path) -> None:
    call = (*arguments(world, tmp_path), *FACT, "--scale", "0", "--out", tmp_path / "out")
    results = run_main(*call).json()
    assert set(changes(results, "edit").values()) == {0.0}
    part = tmp_path / "out" / "parts" / "000.json"
    stamp = part.stat().st_mtime_ns
    assert run_main(*call).json()["rows"] == results["rows"]
    assert part.stat().st_mtime_ns == stamp
    kind, message = run_main(*call, "--draws", "3").error()
    assert (kind, "draws" in message) == ("ConfigError", True)


def test_edits_that_come_with_it_and_their_means(world: World, tmp_path: Path) -> None:
    call = arguments(world, tmp_path)[:-1]
    done = run_main(*call, "--edits", "4", "--method", "memit", "--out", tmp_path / "out", "--quiet")
    assert done.code == 0, done.err
    assert "The month after March is -> October" in " ".join(done.out.split())
    assert "drawn, same norm" in done.out
    results = run_main(*call, "--edits", "4", "--method", "memit", "--out", tmp_path / "out", "--json").json()
    pooled = [r for r in results["rows"] if r["edit"] == "all"]
    assert {r["family"] for r in pooled} == {"months"}
    assert {r["n"] for r in pooled} == {2}


def test_a_ring_that_is_none_is_refused_with_its_reason(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("perimetry.editing.probes.LEAST_ORDER", 0.99)
    words = tmp_path / "colours.txt"
    words.write_text("red\norange\nyellow\n\ngreen\nblue\n")
    call = arguments(world, tmp_path, words)
    done = run_main(*call, *FACT, "--out", tmp_path / "out")
    assert done.code == 0, done.err
    results = done.json()
    (ring,) = results["rings"]
    assert (ring["ring"], ring["words"], ring["layers"]) == ("colours", 5, [])
    assert "does not hold these words in order" in ring["refusal"]
    assert not [r for r in results["rows"] if r["metric"].startswith("ring")]
    shown = run_main(*call[:-1], *FACT, "--out", tmp_path / "out")
    assert "colours is refused" in shown.out


def test_what_is_refused(world: World, tmp_path: Path) -> None:
    call = arguments(world, tmp_path)
    kind, message = run_main(*call, "--subject", "the king").error()
    assert (kind, "together" in message) == ("UsageError", True)
    kind, message = run_main(*call, "--prompt", "it is", "--subject", "the king", "--target", "of").error()
    assert (kind, "put {} where" in message) == ("ConfigError", True)
    kind, message = run_main(*call, "--method", "romme", "--out", tmp_path / "a").error()
    assert (kind, "method" in message) == ("ConfigError", True)
    kind, message = run_main(*call, "--layer", "9", "--out", tmp_path / "b").error()
    assert (kind, "block 9" in message) == ("ConfigError", True)
    kind, message = run_main(*call, "--edits", "999", "--out", tmp_path / "c").error()
    assert (kind, "999 edits" in message) == ("UsageError", True)
    bad = write_jsonl(tmp_path / "bad.jsonl", [{"name": "x", "words": ["a", "b"]}])
    kind, message = run_main(*arguments(world, tmp_path, bad)).error()
    assert (kind, "line 1" in message) == ("ConfigError", True)
