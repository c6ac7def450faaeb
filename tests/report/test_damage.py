"""Damage: means, points and rank correlations are printed as they are in the results."""

from typing import Any

from perimetry.report.damage import damage_section
from perimetry.report.schema import parse_results
from report.parsing import Page
from report.samples import results

ENTRY = {
    **{"suite": "typos", "family": "typos", "dose": 0.2, "measure": "kl", "estimate": 1.234, "low": 1.1, "high": 1.4},
    **{"n_pairs": 30, "method": "bootstrap by pair 95 %"},
}
LOST = {
    **ENTRY,
    "suite": "questions",
    "family": "55_open_qa",
    "measure": "accuracy_loss",
    "estimate": 0.125,
    "chance": 0.25,
}
POINTS = {
    **{"suite": "typos", "detector": "surprise", "kind": "concept"},
    **{"dose": [0.05, 0.2, 0.2], "score": [1.0, 2.0, 3.0], "kl": [0.0, 0.5, 2.0]},
}
ROW: dict[str, Any] = {
    **{"suite": "typos", "family": "typos", "dose": 0.0, "negatives": "none", "detector": "surprise"},
    **{"kind": "concept", "metric": "damage_kl_spearman", "estimate": 0.654, "low": 0.5, "high": 0.8},
    **{"n_shifted": 60, "n_clean": 0, "n_pairs": 30, "seed": 0, "method": "paired bootstrap 95 %"},
}


def page() -> Page:
    known = results((0,), 20)
    rows = [ROW, {**ROW, "detector": "nll", "kind": "baseline", "dose": 0.2, "estimate": 0.321}]
    damage = {"damage": [ENTRY, LOST], "damage_points": [POINTS]}
    return Page(damage_section(parse_results({**known, **damage, "rows": [*known["rows"], *rows]})))


def test_means_and_accuracies_have_their_lines() -> None:
    rows = page().rows
    assert [
        "typos",
        "typos",
        "20 %",
        "KL of the next-token distributions, nats",
        "1.234",
        "1.100 to 1.400",
        "30",
        "–",
    ] in rows
    assert any(row[:2] == ["questions", "55_open_qa"] and row[4] == ".125" and row[7] == ".250" for row in rows)


def test_every_text_is_a_mark_and_every_dose_has_its_name() -> None:
    found = page()
    assert found.open == []
    names = [str(a["aria-label"]) for name, a in found.tags if name == "svg"]
    assert names == ["typos: damage against surprise"]
    marks = [a for name, a in found.tags if name == "g" and a.get("class") == "mark"]
    assert len(marks) == 3 + 2, "three texts and a key for each of two doses"
    assert {"5 %", "20 %"} <= set(found.texts)


def test_rank_correlations_say_over_which_doses() -> None:
    rows = page().rows
    assert any(row[:4] == ["surprise", "typos, all doses", "rank correlation with KL", ".654"] for row in rows)
    assert any(row[:4] == ["nll", "typos, 20 %", "rank correlation with KL", ".321"] for row in rows)


def test_without_damage_there_is_no_section() -> None:
    assert damage_section(parse_results(results((0,), 20))) == ""
