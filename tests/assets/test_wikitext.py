import pytest
from hypothesis import given
from hypothesis import strategies as st

from perimetry.assets.wikitext import LEFT_OVER, SHORTEST_ARTICLE, clean, is_redirect

FILL = "\n\nThis closing paragraph is only here so that the article is long enough to be kept at all. " * 6


TAIL = "It ends with ordinary words."


def first(markup: str) -> str:
    """The first paragraph of an article that begins with `markup`, or "" when it was left out."""
    lines = clean(markup + FILL).split("\n")
    return "" if lines[0].startswith("This closing") else lines[0]


@pytest.mark.parametrize(
    ("markup", "plain"),
    [
        ("'''Bold''' and ''italic'' and '''''both''''' words in it.", "Bold and italic and both words in it."),
        ("A [[link]], a [[target|label]], [[two words]]s.", "A link, a label, two wordss."),
        ("The pipe trick of [[Paris (Texas)|]] and [[Wikipedia:Rules|]] works.", "The pipe trick of Paris and Rules works."),
        ("Cats [[Image:A.jpg|thumb|left|A [[cat]] with [http://x.y its] hat]]sleep much of the day.", "Cats sleep much of the day."),
        ("See [[:Category:Cats]] and [[fr:Chat]][[Category:Pets]] for more about all of them.", "See Category:Cats and for more about all of them."),
        ("A template {{inner|{{deep|x}}|y}}is gone from this sentence entirely.", "A template is gone from this sentence entirely."),
        ("A note<ref name=\"a\">Some [[book]], p. 3</ref> and another<ref name=b /> are gone.", "A note and another are gone."),
        ("A comment <!-- [[not]] seen\nby readers -->is gone from this sentence.", "A comment is gone from this sentence."),
        ("Entities &mdash; &amp;quot;twice&amp;quot; &amp; &#233;t&eacute; are decoded to characters.", 'Entities — "twice" & été are decoded to characters.'),
        ("Tags like <b>bold</b>, <sup>up</sup> and <font color=\"red\">red</font> vanish.", "Tags like bold, up and red vanish."),
        ("A site [http://a.example/b the label] is kept without its address.", "A site the label is kept without its address."),
        ("A bare link in brackets [http://a.example/b] is left out of the text.", "A bare link in brackets is left out of the text."),
        ("* A bullet that is long enough to be kept as a sentence.", "A bullet that is long enough to be kept as a sentence."),
        (":::An indented reply that is long enough to be kept.", "An indented reply that is long enough to be kept."),
        ("Empty brackets ({{IPA|x}}) and ( {{lang|y}}, open) ones are tidied.", "Empty brackets and (open) ones are tidied."),
        ("Numbered notes[12] lose their marks [3] in the clean text.", "Numbered notes lose their marks in the clean text."),
        ("One paragraph that was broken\nby its author into two lines.", "One paragraph that was broken by its author into two lines."),
    ],
)  # fmt: skip
def test_what_a_reader_sees(markup: str, plain: str) -> None:
    assert first(f"{markup} {TAIL}") == f"{plain} {TAIL}"


@pytest.mark.parametrize(
    "markup",
    [
        "== A heading that is quite long enough to count as text ==",
        "#A short line",
        "A formula <math>a^2 + b^2</math> leaves a hole in this sentence of text.",
        "{| class=\"x\"\n|-\n| A cell that holds text which is long enough\n{| \n| An inner table of great and sufficient length\n|}\n|}",
        "{| \n| A cell of a table that never ends, which is long enough",
        "An unbalanced [[link that never ends and so is left out of the text",
        "An unbalanced {{template that never ends and so is left out of the text",
        "A bare address http://example.com/a/b/c in a sentence of text leaves a hole.",
        "12 345 678 901 234 567 890 123 456 789 012 345 678 numbers only",
        "<gallery>\nImage:A.jpg|A caption that is long enough to be kept\n</gallery>",
        "<pre>\nfor (i = 0; i < 10; i++) print an indented line of code\n</pre>",
        "== References ==\n* Some Author, A Book About Many Things, Publisher\n\n== Text ==",
    ],
)  # fmt: skip
def test_what_is_left_out(markup: str) -> None:
    assert first(markup) == ""


def test_the_text_behind_a_table_stays() -> None:
    table = "{| border=1\n! head\n|-\n| {{cell|a}} || b\n|}\nThe sentence behind the table is an ordinary one."
    assert first(table) == "The sentence behind the table is an ordinary one."


def test_paragraphs_do_not_run_together() -> None:
    text = clean("One paragraph stands here and it is long enough.<br>Another one follows behind a break of line."
                 "\n\nA third one comes after an empty line, as usual.\n* And a bullet that belongs to no paragraph." + FILL)  # fmt: skip
    assert text.split("\n")[:4] == [
        "One paragraph stands here and it is long enough.",
        "Another one follows behind a break of line.",
        "A third one comes after an empty line, as usual.",
        "And a bullet that belongs to no paragraph.",
    ]


def test_lists_of_books_and_links_end_with_the_next_heading() -> None:
    text = clean("==See also==\n* A link to another article of some length\n===Further reading===\n* A book of some length by a man\n"
                 "== Life ==\nThe text of a section that is no list is kept." + FILL)  # fmt: skip
    assert text.startswith("The text of a section that is no list is kept.")


def test_short_articles_are_nothing() -> None:
    assert clean("A sentence that is long enough to be kept by itself.") == ""
    assert clean("x" * SHORTEST_ARTICLE) == "x" * SHORTEST_ARTICLE
    assert clean("x" * (SHORTEST_ARTICLE - 1)) == ""


def test_redirects() -> None:
    assert is_redirect(" # redirect [[B]]")
    assert not is_redirect("A #REDIRECT")


pieces = st.sampled_from(
    ["[[", "]]", "{{", "}}", "{|", "|}", "|", "''", "'''", "==", "<ref>", "</ref>", "<br/>", "<!--", "-->", "&quot;", "\n", " ",
     "*", "[http://a.b ", "]", "<math>", "</math>", "Image:", "an ordinary run of words that is kept. ", "\x00", "é"]
)  # fmt: skip


@given(st.lists(pieces, max_size=40).map("".join))
def test_no_mark_up_survives(markup: str) -> None:
    for line in filter(None, clean(markup + FILL).split("\n")):  # an open comment may take everything with it
        assert LEFT_OVER.search(line) is None
        assert "''" not in line
        assert len(line) >= 40
        assert line == line.strip()
