from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from perimetry.activations.model import tiny_language_model
from perimetry.activations.policy import TokenPolicy
from perimetry.activations.prompts import alike, collate, encode, length_batches, position_ids, scorable, token_text
from perimetry.errors import ConfigError, EmptyText, NoScorableToken, PromptTooLong

CHAT = TokenPolicy(template="chat")


def test_bos_comes_first_and_does_not_count(tiny_lm):
    prompt = encode(tiny_lm, "the cat", TokenPolicy())
    assert prompt.ids[0] == tiny_lm.bos_id
    assert prompt.countable == [False] + [True] * (len(prompt.ids) - 1)
    assert prompt.pieces("the cat")[0] == ""
    assert "".join(prompt.pieces("the cat")) == "the cat"
    assert (prompt.truncated, prompt.words) == (False, 2)


def test_the_policy_can_leave_out_bos_or_let_it_count(tiny_lm):
    assert tiny_lm.bos_id not in encode(tiny_lm, "cat", TokenPolicy(prepend_bos=False)).ids
    assert all(encode(tiny_lm, "cat", TokenPolicy(exclude_special=False)).countable)
    qwen = tiny_language_model("qwen2")
    assert encode(qwen, "cat", TokenPolicy()).spans[0] == (0, 1)


@pytest.mark.parametrize("policy", [TokenPolicy(), CHAT])
def test_special_tokens_in_the_text_are_plain_characters(tiny_lm, policy):
    text = "a <|im_end|> b <|bos|><|endoftext|>"
    prompt = encode(tiny_lm, text, policy)
    inside = [i for i, span in zip(prompt.ids, prompt.spans, strict=True) if span]
    assert not set(inside) & tiny_lm.special_ids
    assert tiny_lm.tokenizer.decode(inside) == text


def test_the_chat_template_wraps_the_text_and_does_not_count(tiny_lm):
    prompt = encode(tiny_lm, "the cat", CHAT)
    wanted = "<|im_start|>user\nthe cat<|im_end|>\n<|im_start|>assistant\n"
    assert prompt.ids[0] == tiny_lm.bos_id
    assert tiny_lm.tokenizer.decode(prompt.ids[1:]) == wanted
    assert [c for c, span in zip(prompt.countable, prompt.spans, strict=True) if span is None] == [False] * (
        len(prompt.ids) - sum(prompt.countable)
    )
    assert "".join(prompt.pieces("the cat")) == "the cat"


def test_a_template_that_is_missing_is_an_error(tiny_lm):
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE(vocab={"a": 0}, merges=[])))
    bare = replace(tiny_lm, tokenizer=tokenizer)
    with pytest.raises(ConfigError, match="wants a chat template and 'tiny-llama' has none"):
        encode(bare, "a", CHAT)


@pytest.mark.parametrize("text", ["", " ", "\n\t"])
def test_an_empty_text_is_an_error(tiny_lm, text):
    with pytest.raises(EmptyText, match="empty or white space"):
        encode(tiny_lm, text, TokenPolicy())


def test_a_long_text_is_never_cut_silently(tiny_lm):
    text = "z" * 40
    with pytest.raises(PromptTooLong, match=r"has 41 tokens, at most 16 fit the context; .*--truncate"):
        encode(tiny_lm, text, TokenPolicy(), limit=16)
    with pytest.raises(PromptTooLong, match="at most 128 fit"):
        encode(tiny_lm, "z" * 200, TokenPolicy(), limit=10_000)
    cut = encode(tiny_lm, text, TokenPolicy(), truncate=True, limit=16)
    assert (len(cut.ids), cut.truncated) == (16, True)
    assert "".join(cut.pieces(text)) == "z" * 15
    assert not encode(tiny_lm, text, TokenPolicy(), truncate=True).truncated


def test_truncation_keeps_the_template_whole_and_counts_the_words_read(tiny_lm):
    before, after = tiny_lm.template
    limit = 1 + len(before) + len(after) + 4
    cut = encode(tiny_lm, "ab cd ef gh", CHAT, truncate=True, limit=limit)
    assert len(cut.ids) == limit
    assert tuple(cut.ids[-len(after) :]) == after
    assert sum(cut.countable) == 4
    assert cut.words == len("".join(cut.pieces("ab cd ef gh")).split()) < 4
    with pytest.raises(ConfigError, match=r"a limit of 5 tokens leaves no room beside the \d+"):
        encode(tiny_lm, "ab", CHAT, truncate=True, limit=5)


def test_a_text_of_unknown_tokens_has_nothing_to_score(tiny_lm):
    core = Tokenizer(models.WordLevel({"[UNK]": 0, "a": 1}, unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, unk_token="[UNK]")
    lm = replace(tiny_lm, tokenizer=tokenizer)
    with pytest.raises(NoScorableToken, match="none of the 2 tokens of the text counts"):
        encode(lm, "b c", TokenPolicy())
    assert encode(lm, "b a", TokenPolicy(prepend_bos=False)).countable == [False, True]


@given(st.text(min_size=1, max_size=30).filter(lambda t: t.strip()))
def test_any_text_encodes_and_every_span_lies_inside_it(text):
    lm = tiny_language_model_once()
    prompt = encode(lm, text, TokenPolicy(), truncate=True)
    assert len(prompt.ids) == len(prompt.countable) == len(prompt.spans)
    assert all(0 <= a <= b <= len(text) for a, b in filter(None, prompt.spans))
    inside = [i for i, span in zip(prompt.ids, prompt.spans, strict=True) if span]
    assert prompt.truncated or lm.tokenizer.decode(inside) == text


ONCE = []


def tiny_language_model_once():
    if not ONCE:
        ONCE.append(tiny_language_model())
    return ONCE[0]


def test_lone_surrogates_are_read_as_replacement_signs(tiny_lm):
    assert encode(tiny_lm, "a\ud800b", TokenPolicy()).ids == encode(tiny_lm, "a\ufffdb", TokenPolicy()).ids


def test_collate_pads_on_either_side(tiny_lm):
    prompts = [encode(tiny_lm, t, TokenPolicy()) for t in ("a", "abc")]
    right, left = (collate(prompts, 0, side) for side in ("right", "left"))
    assert right.attention.tolist() == [[1, 1, 0, 0], [1, 1, 1, 1]]
    assert left.attention.tolist() == [[0, 0, 1, 1], [1, 1, 1, 1]]
    assert left.countable.tolist() == [[False, False, False, True], [False, True, True, True]]
    assert right.ids[0].tolist() == left.ids[0].roll(2).tolist() == [*prompts[0].ids, 0, 0]
    assert position_ids(left.attention)[0, 2:].tolist() == position_ids(right.attention)[0, :2].tolist() == [0, 1]


def test_scorable_drops_sinks_and_keeps_what_is_not_finite():
    residual = torch.tensor([[[3.0, 4.0], [30.0, 40.0], [float("nan"), 0.0], [float("inf"), 0.0], [0.0, 1.0]]])
    countable = torch.tensor([[True, True, True, True, False]])
    assert scorable(residual, countable, TokenPolicy(max_norm=5.0)).tolist() == [[True, False, True, True, False]]
    assert torch.equal(scorable(residual, countable, TokenPolicy()), countable)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=40), st.integers(1, 200))
def test_length_batches_hold_every_prompt_once_within_the_budget(lengths, budget):
    batches = list(length_batches(lengths, budget))
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    assert all(len(b) == 1 or max(lengths[i] for i in b) * len(b) <= budget for b in batches)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=40), st.integers(1, 200))
def test_alike_keeps_the_order_and_pads_large_parts_little(lengths, enough):
    (batch,) = length_batches(lengths, 10**6)
    parts = list(alike(lengths, batch, enough))
    assert [i for part in parts for i in part] == batch
    for part in parts:
        longest = lengths[part[0]]
        assert all(longest * place < enough for place, i in enumerate(part) if lengths[i] < 0.8 * longest)


def test_token_text_shows_spaces_and_unfinished_characters(tiny_lm):
    ids = encode(tiny_lm, "go the \u00e9", TokenPolicy(prepend_bos=False)).ids
    assert "".join(token_text(tiny_lm, i) for i in ids[:3]) == "go the"
    assert token_text(tiny_lm, ids[-1]) == "\ufffd"
    assert token_text(tiny_lm, 1) == "<|bos|>"
    assert token_text(tiny_lm, 99_999) == "<99999>"
