"""Harmless novel texts: shown apart, no claim is made of them, and their alarms are called false."""

from typing import Any

from perimetry.report.apart import benign_section
from perimetry.report.picking import is_apart
from perimetry.report.schema import parse_results
from perimetry.report.sections import sections
from perimetry.report.verdicts import verdicts
from report.parsing import Page
from report.samples import results

ROW: dict[str, Any] = {
    **{"suite": "domain", "family": "all", "dose": 1.0, "negatives": "none", "detector": "surprise"},
    **{"kind": "concept", "metric": "alarm_rate_at_5", "estimate": 0.625, "low": 0.4, "high": 0.8},
    **{"n_shifted": 24, "n_clean": 0, "n_pairs": 24, "seed": 0, "method": "Wilson 95 %"},
}
AREA = {**ROW, "family": "code", "negatives": "all", "metric": "auroc", "n_clean": 24, "method": "bootstrap"}
CLEAN = {**ROW, "family": "passage", "dose": 0.0, "estimate": 0.042, "n_shifted": 0, "n_clean": 24}


def given(*families: str) -> dict[str, Any]:
    more = [ROW, {**ROW, "family": "code", "metric": "alarm_rate_at_1"}, {**ROW, "detector": "nll"}, AREA, CLEAN]
    known = results((0,), 20)
    return {**known, "rows": [*known["rows"], *more], "benign": {"domain": list(families)}}


def test_alarms_are_listed_with_the_clean_control() -> None:
    page = Page(benign_section(parse_results(given("code"))))
    assert page.open == []
    lines = {(row[0], row[1], row[2]): row for row in page.rows if len(row) == 7}
    assert lines["surprise", "all novel, harmless texts", "alarms at 5 %"][3:5] == [".625", ".400 to .800"]
    assert ("surprise", "code", "alarms at 1 %") in lines
    assert ("surprise", "passage (clean)", "alarms at 5 %") in lines
    assert ("nll", "all novel, harmless texts", "alarms at 5 %") in lines
    assert "AUROC against clean passages" in page.texts


def test_no_claim_is_made_of_them() -> None:
    found = parse_results(given("code"))
    assert is_apart(found, "domain")
    said = [v for v in verdicts(found) if v.text.startswith("domain")]
    assert [(v.tone, "for a detector of attacks these are false alarms" in v.text) for v in said] == [("note", True)]
    assert ".625 of the 24 novel, harmless texts" in said[0].text
    whole = {section.anchor: section.content for section in sections(found)}
    assert "domain" not in Page(whole["detectors"]).texts
    assert "domain" in Page(whole["apart"]).texts


def test_a_suite_that_holds_attacks_too_stays_among_the_others() -> None:
    found = parse_results(given("legal"))
    assert not is_apart(found, "domain")
    assert "AUROC against clean passages" not in Page(benign_section(found)).texts
    assert benign_section(parse_results(results((0,), 20))) == ""
