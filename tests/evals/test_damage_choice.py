"""Multiple choice: questions as they are read, answers against plain transformers, accuracy with intervals."""

import random

import pytest
import torch
from tests.worlds import text_of

from perimetry.activations.model import LanguageModel
from perimetry.activations.text import Passage
from perimetry.assets.documents import Document
from perimetry.errors import PromptTooLong, TooFewSamples, UnknownName, UsageError
from perimetry.evals.damage_choice import Question, choice_damage, chosen_options, cloze_questions, probe_questions
from perimetry.runtime import generator

ROWS = {
    "55_open_qa": ("Which is a good example? (A) smoke (B) litter (C) short showers (D) cars", "C"),
    "86_social_iqa": (
        "The following is a multiple choice question. Context: Kim ran.| Question: Why?| Option A: fun| Option B: fear| "
        "Option C: to win. The correct answer is ",
        "3",
    ),
    "44_phys_tf": ("Fire a crossbow.\n\nA.Look for an ignition.\nB.Look for a release.", "1"),
}
WANTED = {
    "55_open_qa": ("Which is a good example?", ("smoke", "litter", "short showers", "cars"), 2),
    "86_social_iqa": ("Kim ran. Why?", ("fun", "fear", "to win"), 2),
    "44_phys_tf": ("Fire a crossbow.", ("Look for an ignition.", "Look for a release."), 1),
}
PASSAGES = [Passage(f"d{i}#0", text_of(f"cloze{i}", 14), f"d{i}") for i in range(12)]


@pytest.mark.parametrize("dataset", ROWS)
def test_questions_that_people_wrote(dataset: str) -> None:
    text, label = ROWS[dataset]
    rows = [
        Document("bad", "no question at all", {"label": "?"}),
        Document("none", text, {}),
        Document("ok", text, {"label": label}),
    ]
    assert probe_questions(rows, dataset, 1) == [Question("ok", *WANTED[dataset])]
    with pytest.raises(TooFewSamples, match=f"{dataset} gives 1 questions, 2 were wanted"):
        probe_questions(rows, dataset, 2)
    with pytest.raises(UnknownName, match="nearest name is '55_open_qa'"):
        probe_questions(rows, "55_openqa", 1)


def test_cloze_options_are_ends_of_like_length() -> None:
    found = cloze_questions(PASSAGES, words=5, seed=1)
    assert [q.id for q in found] == [p.id for p in PASSAGES]
    for question, passage in zip(found, PASSAGES, strict=True):
        assert f"{question.context} {question.options[question.answer]}" == passage.text
        assert {len(o.split()) for o in question.options} == {5}
        assert len(question.options) == 4
    assert len({q.answer for q in found}) > 1
    assert cloze_questions(PASSAGES, words=5, seed=1) == found
    assert cloze_questions(PASSAGES, words=5, seed=2) != found
    with pytest.raises(UsageError, match="has 14 words, more than 14 are wanted"):
        cloze_questions(PASSAGES, words=14)
    with pytest.raises(TooFewSamples, match="4 options need as many passages, got 3"):
        cloze_questions(PASSAGES[:3])


def plain_choice(lm: LanguageModel, question: Question) -> int:
    costs = []
    for option in question.options:
        parts = [lm.plain_tokenizer.encode(t, add_special_tokens=False).ids for t in (question.context, " " + option)]
        ids = [lm.bos_id or 0, *parts[0], *parts[1]]
        with torch.no_grad():
            table = lm.model(input_ids=torch.tensor([ids])).logits[0].double().log_softmax(1)
        start = 1 + len(parts[0])
        costs.append(-sum(float(table[i - 1, ids[i]]) for i in range(start, len(ids))) / len(parts[1]))
    return costs.index(min(costs))


@pytest.mark.parametrize("batch_tokens", [1, 500])
def test_answers_equal_plain_transformers(tiny_lm: LanguageModel, batch_tokens: int) -> None:
    questions = [*cloze_questions(PASSAGES, words=5), Question("two", "the cat", ("sat", "flew away"), 0)]
    wanted = [plain_choice(tiny_lm, q) for q in questions]
    assert chosen_options(tiny_lm, questions, batch_tokens=batch_tokens) == wanted
    assert len(set(wanted)) > 1


def test_damage_by_corruption_of_the_context(tiny_lm: LanguageModel) -> None:
    base = cloze_questions(PASSAGES, words=5)
    # Declare right what the model says, so that the clean accuracy is 1 and the loss is known.
    said = chosen_options(tiny_lm, base)
    questions = [q._replace(answer=a) for q, a in zip(base, said, strict=True)]
    changed = {q.id: "".join(random.Random(q.id).sample(q.context, len(q.context))).strip() for q in questions}
    found = choice_damage(tiny_lm, questions, lambda q: changed[q.id], generator(0))
    after = [plain_choice(tiny_lm, q._replace(context=changed[q.id])) for q in questions]
    share = sum(a == b for a, b in zip(after, said, strict=True)) / len(said)
    assert found.clean.estimate == 1.0
    assert found.corrupted.estimate == pytest.approx(share)
    assert share < 1
    assert found.loss.estimate == pytest.approx(1 - share)
    assert found.loss.low <= found.loss.estimate <= found.loss.high
    assert found.chance == 0.25
    assert found.right.tolist() == [[True] * 12, [a == b for a, b in zip(after, said, strict=True)]]
    same = choice_damage(tiny_lm, questions, lambda q: q.context, generator(0))
    assert (same.loss.estimate, same.loss.low, same.loss.high) == (0.0, 0.0, 0.0)
    assert same.clean.method == "Wilson 95 %"


def test_refusals(tiny_lm: LanguageModel) -> None:
    with pytest.raises(TooFewSamples, match="at least 2, got 1"):
        choice_damage(tiny_lm, [Question("q", "a", ("b", "c"), 0)], lambda q: q.context, generator(0))
    with pytest.raises(PromptTooLong, match="question 'q': the text has"):
        chosen_options(tiny_lm, [Question("q", text_of(1, 200), ("b", "c"), 0)])
