"""Words of a vocabulary, their split, their prompts, and the activations at them."""

import pytest
import torch

from perimetry.activations import tiny
from perimetry.activations.model import LanguageModel, tiny_language_model
from perimetry.activations.policy import TokenPolicy
from perimetry.activations.tap import Tap
from perimetry.errors import Incompatible, PromptTooLong, TooFewSamples
from perimetry.evals.sae.base import Place
from perimetry.evals.sae.letters import (
    HELD_OUT,
    JUDGED,
    TRAINING,
    draw_words,
    plain_words,
    read_words,
    spelling_prompts,
)

NAMES = [a + b + c for a in "bdk" for b in "aeiou" for c in "lmnr"]


def without_merges(monkeypatch: pytest.MonkeyPatch) -> LanguageModel:
    monkeypatch.setattr(tiny, "MERGES", ())
    return tiny_language_model("llama")


def test_plain_words_are_the_tokens_that_are_words(tiny_lm: LanguageModel) -> None:
    # Its other merges are single letters, lack the leading space, or are no letters.
    assert plain_words(tiny_lm) == ["an", "and", "in", "of", "the", "to"]


def test_a_token_that_its_own_text_does_not_give_is_no_word(monkeypatch: pytest.MonkeyPatch) -> None:
    # " of" can be merged from " o" and "f", but "f" is taken by an earlier rule in "of".
    merges = (("o", "f"), ("Ġ", "o"), ("Ġo", "f"), ("Ġ", "a"), ("Ġa", "n"))
    monkeypatch.setattr(tiny, "MERGES", merges)
    assert plain_words(tiny_language_model("llama")) == ["an"]


def test_a_tokenizer_without_plain_words_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        TooFewSamples, match=r"tokenizer of 'tiny-llama' has no token that is a plain word .* use another model, or"
    ):
        plain_words(without_merges(monkeypatch))


def test_each_letter_is_split_by_itself() -> None:
    words = draw_words(NAMES, 10, (0.6, 0.2), 0)
    assert len(set(words.names)) == len(words.names) == 30
    assert [name[0] for name in words.names] == ["abcdefghijk"[i] for i in words.letters.tolist()]
    for letter in (1, 3, 10):
        parts = words.parts[words.letters == letter]
        assert [int((parts == part).sum()) for part in (TRAINING, HELD_OUT, JUDGED)] == [6, 2, 2]


def test_the_draw_depends_on_the_seed_and_not_on_the_order() -> None:
    one = draw_words(NAMES, 10, (0.6, 0.2), 0)
    again = draw_words([*NAMES[::-1], NAMES[0]], 10, (0.6, 0.2), 0)
    assert one.names == again.names
    assert torch.equal(one.parts, again.parts)
    assert draw_words(NAMES, 10, (0.6, 0.2), 1).names != one.names


def test_shares_never_take_more_words_than_there_are() -> None:
    words = draw_words(["bee"], 10, (0.5, 0.5), 0)
    assert len(words.names) == len(words.letters) == len(words.parts) == 1


def test_prompts_solve_other_training_words_and_end_in_the_word() -> None:
    words = draw_words(NAMES, 20, (0.6, 0.2), 0)
    training = {name for name, part in zip(words.names, words.parts.tolist(), strict=True) if part == TRAINING}
    prompts = spelling_prompts(words, 4, 3)
    shown: set[tuple[str, ...]] = set()
    for name, prompt in zip(words.names, prompts, strict=True):
        head, *lines = prompt.split("\n")
        examples = tuple(line.split()[0] for line in lines[:-1])
        assert (head, lines[-1], len(set(examples))) == ("", f" {name}", 4)
        assert set(examples) <= training - {name}
        assert [line.split(maxsplit=1)[1] for line in lines[:-1]] == [
            f"has the first letter: {x[0].upper()}" for x in examples
        ]
        shown.add(examples)
    assert len(shown) > len(prompts) // 2
    assert prompts == spelling_prompts(words, 4, 3)
    assert prompts != spelling_prompts(words, 4, 4)


def test_too_few_words_for_the_examples_are_refused() -> None:
    words = draw_words(NAMES[:10], 20, (0.6, 0.2), 0)
    with pytest.raises(
        TooFewSamples, match="6 training words came for 6 examples a prompt; wanted more words than examples"
    ):
        spelling_prompts(words, 6, 0)
    assert len(spelling_prompts(words, 5, 0)) == 10


def test_the_word_is_read_as_in_the_whole_prompt(tiny_lm: LanguageModel) -> None:
    place = Place(tiny_lm, 1, TokenPolicy())
    names, prompts = ["the", "and", "bal"], ["\n to has it\n the", "\n and", "\n in\n bal"]
    found = read_words(place, prompts, names, 2, whole=False)
    assert found.kept.tolist() == [True] * 3
    # Alone, and with the rest of the published prompt behind it: what follows a word does not change it.
    for i, prompt in enumerate(prompts):
        ids = tiny_lm.plain_tokenizer.encode(prompt, add_special_tokens=False).ids
        rest = tiny_lm.plain_tokenizer.encode(" has the first letter:", add_special_tokens=False).ids
        row = torch.tensor([[tiny_lm.bos_id, *ids, *rest]])
        whole = Tap(tiny_lm, 1).read(row, torch.ones_like(row))
        torch.testing.assert_close(found.acts[i], whole[0, len(ids)], atol=1e-5, rtol=1e-5)


def test_the_word_is_read_before_the_end_of_a_chat_turn(tiny_lm: LanguageModel) -> None:
    found = read_words(Place(tiny_lm, 1, TokenPolicy(template="chat")), ["\n the"], ["the"], 1, whole=True)
    before, _ = tiny_lm.template or ((), ())
    ids = tiny_lm.plain_tokenizer.encode("\n the", add_special_tokens=False).ids
    first = [] if before[0] == tiny_lm.bos_id else [tiny_lm.bos_id]
    row = torch.tensor([[*first, *before, *ids]])
    torch.testing.assert_close(
        found.acts[0], Tap(tiny_lm, 1).read(row, torch.ones_like(row))[0, -1], atol=1e-5, rtol=1e-5
    )


def test_the_batch_changes_nothing_and_loud_tokens_do_not_count(tiny_lm: LanguageModel) -> None:
    prompts, names = (
        spelling_prompts(draw_words(NAMES, 4, (0.6, 0.2), 0), 1, 0),
        draw_words(NAMES, 4, (0.6, 0.2), 0).names,
    )
    place = Place(tiny_lm, 2, TokenPolicy())
    one, many = (read_words(place, prompts, names, batch, whole=False) for batch in (1, 7))
    torch.testing.assert_close(one.acts, many.acts, atol=1e-5, rtol=1e-5)
    norms = one.acts.norm(dim=1)
    limit = float(norms.sort().values[len(norms) // 2]) + 1e-3
    quiet = read_words(Place(tiny_lm, 2, TokenPolicy(max_norm=limit)), prompts, names, 7, whole=False)
    assert torch.equal(quiet.kept, norms <= limit)
    assert 0 < int(quiet.kept.sum()) < len(norms)


def test_refusals_of_prompts(tiny_lm: LanguageModel) -> None:
    place = Place(tiny_lm, 1, TokenPolicy())
    with pytest.raises(
        Incompatible, match=r"the word 'bal' ends in the token 'l' in 'tiny-llama'; wanted the whole word"
    ):
        read_words(place, ["\n bal"], ["bal"], 1, whole=True)
    with pytest.raises(
        PromptTooLong, match=r"the word 'the' is longer than the 128 tokens of 'tiny-llama'; ask for fewer examples"
    ):
        read_words(place, ["\n x" * 99 + " the"], ["the"], 1, whole=True)
