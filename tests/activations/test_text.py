import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perimetry.activations.model import tiny_language_model
from perimetry.activations.policy import TokenPolicy
from perimetry.activations.text import (
    PackCursor,
    documents_digest,
    pack,
    passages,
    shuffled,
    split_of,
    take_split,
)
from perimetry.errors import ConfigError, TooFewSamples

from .documents import Doc, make_documents

POLICY = TokenPolicy()


def test_splits_are_golden_disjoint_and_of_the_wanted_size():
    assert split_of("Anarchism") == pytest.approx(GOLDEN_SPLIT, abs=1e-12)
    many = [Doc(f"d{i}", "x") for i in range(4000)]
    low, middle, high = (take_split(many, a, b) for a, b in ((0.0, 0.8), (0.8, 0.9), (0.9, 1.0)))
    assert not {d.id for d in low} & {d.id for d in middle}
    assert sorted([*low, *middle, *high]) == sorted(many)
    assert 3100 < len(low) < 3300
    assert take_split(many, 0.0, 0.5) != take_split(many, 0.0, 0.5, seed="1")


GOLDEN_SPLIT = 0.6006488192545326


@given(st.text(), st.text(max_size=3))
def test_a_split_lies_in_the_unit_interval(name, seed):
    assert 0 <= split_of(name, seed) < 1


def test_the_order_is_seeded_and_does_not_depend_on_the_order_given(documents):
    assert shuffled(documents, 1) == shuffled(documents[::-1], 1)
    assert shuffled(documents, 1) != shuffled(documents, 2)
    assert sorted(shuffled(documents, 1)) == sorted(documents)


def test_the_digest_sees_ids_texts_order_and_their_border():
    one = [Doc("a", "bc"), Doc("d", "e")]
    assert documents_digest(one) == documents_digest(list(one))
    for other in ([Doc("ab", "c"), Doc("d", "e")], one[::-1], [Doc("a", "bc"), Doc("d", "f")], one[:1]):
        assert documents_digest(other) != documents_digest(one)


def test_rows_hold_all_tokens_in_order(tiny_lm, documents):
    rows = list(pack(documents, tiny_lm, POLICY, 32))
    assert all(len(row.ids) == 32 for row in rows[:-1])
    assert all(row.ids[0] == tiny_lm.bos_id and not row.countable[0] for row in rows)
    wanted = []
    for document in documents:
        wanted += [*tiny_lm.tokenizer(document.text)["input_ids"], tiny_lm.separator_id]
    assert [i for row in rows for i in row.ids[1:]] == wanted
    for row in rows:
        assert [c for i, c in zip(row.ids, row.countable, strict=True) if i == tiny_lm.separator_id] == [
            False
        ] * row.ids.count(tiny_lm.separator_id)
        assert all(c for i, c in zip(row.ids, row.countable, strict=True) if i not in tiny_lm.special_ids)
        assert row.document_ids == tuple(dict.fromkeys(documents[i].id for i in row.source))
        assert len(row.source) == len(row.ids)


def test_rows_without_bos_or_separator(tiny_lm, documents):
    rows = list(pack(documents[:5], tiny_lm, TokenPolicy(prepend_bos=False), 32, separator=False))
    assert "".join(tiny_lm.tokenizer.decode(row.ids) for row in rows) == "".join(d.text for d in documents[:5])
    assert all(all(row.countable) for row in rows)


def test_packing_goes_on_from_any_row(tiny_lm, documents):
    rows = list(pack(documents, tiny_lm, POLICY, 17))
    for at in (0, 1, 7, len(rows) - 1):
        assert list(pack(documents, tiny_lm, POLICY, 17, start=rows[at].start)) == rows[at:]


def test_a_text_cannot_forge_a_separator_and_empty_ones_are_skipped(tiny_lm):
    rows = list(pack([Doc("a", "x<|endoftext|>y"), Doc("b", ""), Doc("c", "z")], tiny_lm, POLICY, 64))
    assert len(rows) == 1
    assert rows[0].ids.count(tiny_lm.separator_id) == 2
    assert rows[0].document_ids == ("a", "c")


def test_with_a_template_every_document_is_a_row(tiny_lm, documents):
    chat = TokenPolicy(template="chat")
    some = [*documents[:3], Doc("empty", " "), documents[3]]
    rows = list(pack(some, tiny_lm, chat, 64))
    assert [row.document_ids for row in rows] == [(d.id,) for d in documents[:4]]
    assert list(pack(some, tiny_lm, chat, 64, start=PackCursor(2, 0))) == rows[2:]
    assert all(tuple(row.ids[-len(tiny_lm.template[1]) :]) == tiny_lm.template[1] for row in rows)


def test_a_context_that_does_not_exist_is_refused(tiny_lm, documents):
    for context in (1, 129):
        with pytest.raises(ConfigError, match=rf"rows of {context} tokens were asked for; .* at most 128"):
            list(pack(documents, tiny_lm, POLICY, context))


def test_a_model_without_bos_packs_from_the_first_token():
    lm = tiny_language_model("qwen2")
    row = next(pack([Doc("a", "the cat")], lm, POLICY, 16))
    assert row.countable[0]


def prose(n: int) -> list[Doc]:
    filler = make_documents(n, seed=3, longest=400)
    return [Doc(d.id, "Ships sail on. " + d.text) for d in filler]


def test_passages_are_seeded_one_a_document_and_start_sentences(tiny_lm):
    texts = {d.id: d.text for d in prose(80)}
    found = passages(prose(80), tiny_lm, words=12, n=30, seed=5)
    assert found == passages(prose(80)[::-1], tiny_lm, words=12, n=30, seed=5)
    assert found != passages(prose(80), tiny_lm, words=12, n=30, seed=6)
    assert len({p.document for p in found}) == len(found) == 30
    for passage in found:
        before, inside, _ = texts[passage.document].partition(passage.text)
        assert inside == passage.text
        assert len(passage.text.split()) == 12
        assert re.match("[A-Z0-9]", passage.text)
        assert not before or before.rstrip()[-1] in ".?!"
        assert passage.id == f"{passage.document}#{len(before.split())}"
    assert any(not p.id.endswith("#0") for p in found)


def test_too_few_documents_for_the_passages(tiny_lm):
    with pytest.raises(TooFewSamples, match="only 1 documents hold a passage of 3 words, 2 were wanted"):
        passages([Doc("a", "One two three."), Doc("b", "Too short")], tiny_lm, words=3, n=2)


def test_a_passage_that_does_not_fit_the_context_is_left_out(tiny_lm):
    with pytest.raises(TooFewSamples, match="only 0"):
        passages([Doc("a", "A" + "z" * 300 + " b")], tiny_lm, words=2, n=1)
