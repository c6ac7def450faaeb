"""Nothing that came from outside becomes mark-up."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perimetry.report.markup import Html, join, number, tag
from report.parsing import Page


@given(st.text(), st.text())
def test_any_text_comes_back_as_text(text: str, value: str) -> None:
    page = Page(tag("p", text, title=value))
    assert [name for name, _ in page.tags] == ["p"]
    bad = [c for c in text if (ord(c) < 32 and c not in "\n\t") or 127 <= ord(c) < 160 or c in "\ufffe\uffff"]
    expected = "".join("\ufffd" if c in bad or "\ud800" <= c <= "\udfff" else c for c in text)
    assert page.text() == expected
    assert set(page.tags[0][1]) == {"title"}


def test_mark_up_is_kept_and_none_is_nothing() -> None:
    assert tag("p", Html("<b>x</b>"), None, "<b>", 3, hidden=None) == "<p><b>x</b>&lt;b&gt;3</p>"
    assert join(["a<", Html("<i/>")], between="&") == "a&lt;&amp;<i/>"
    assert tag("rect", x=1, stroke_width=2) == '<rect x="1" stroke-width="2"/>'


def test_an_attribute_name_cannot_carry_mark_up() -> None:
    with pytest.raises(ValueError, match="is no name of an attribute"):
        tag("p", **{'x" onload="': "1"})


def test_numbers() -> None:
    assert [number(v) for v in (0.5, 1.0, -0.25, 12.3456, -0.0001)] == [".500", "1.000", "−.250", "12.346", ".000"]
