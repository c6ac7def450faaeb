"""Persuasion: the texts of one asset against the negatives of jailbreaks."""

from perimetry.suites import SuiteInputs
from perimetry.suites.persuasion import REWRITTEN, build
from suites.samples import documents, length, read


def test_every_rewritten_request_has_negatives_of_its_length() -> None:
    suite = build(SuiteInputs(documents("wiki", 10, 500), [], [], length, 90, 30, 12, 3, read))
    shifted = [c for c in suite.cases if c.shifted]
    assert {c.text for c in shifted} <= {d.text for d in read(REWRITTEN)}
    assert (suite.name, len(shifted), {c.family for c in shifted}) == ("persuasion", 12, {"persuasion"})
    assert {c.family for c in suite.cases if not c.shifted} == {"passage", "prompt", "role_play"}
    assert "persuade" in suite.description
