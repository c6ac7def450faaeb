"""Token maps: heat follows the score, text stays text."""

import re

from perimetry.report.heatmap import example_section, scale_of, token_map
from perimetry.report.schema import Example, ReadingEntry
from report.parsing import Page
from report.samples import example, reading


def entry(text: str, hot: set[str]) -> ReadingEntry:
    return ReadingEntry.model_validate(reading("r", text, hot).to_json(tokens=True, concepts=True))


def test_hot_tokens_are_shaded_and_cold_ones_are_not() -> None:
    drawing = token_map(entry("a wrod here", {"wrod"}), (3.0, 9.0))
    heats = [float(value) for value in re.findall(r"--h:([\d.]+)", drawing)]
    assert heats[1] == 1.0
    assert max(heats[0], heats[2]) < 0.2


def test_the_text_can_be_read_back_and_mark_up_in_it_is_dead() -> None:
    text = 'one <script>alert(1)</script> & "two" three'
    page = Page(token_map(entry(text, set()), (0.0, 1.0)))
    assert page.text() == text
    assert page.count("script") == 0


def test_the_scale_rests_on_clean_tokens() -> None:
    one = Example.model_validate(example(1, 0.2))
    low, high = scale_of([one])
    assert one.clean
    clean = sorted(token.score for token in one.clean.tokens)
    assert low == clean[len(clean) // 2]
    assert high > 9
    flat = one.model_copy(update={"clean": None})
    assert scale_of([flat])[0] < scale_of([flat])[1]


def test_an_example_shows_both_sides_and_the_concepts() -> None:
    page = Page(example_section(Example.model_validate(example(1, 0.2)), (0.0, 10.0)))
    assert {"clean", "shifted", "no alarm", "alarm"} <= set(page.texts)
    marked = [t for t in page.texts if t in ("misspelt", "teh")]
    assert marked == ["misspelt", "teh"]
    assert page.count("mark") == 2
    assert "never fired on clean text" in page.texts
    assert any(row[0] == "#3921" and row[3] == "0.021 %" for row in page.rows)
