import pytest
import torch

from perimetry.activations.model import LanguageModel, tiny_language_model
from perimetry.activations.policy import TokenPolicy
from perimetry.activations.prompts import encode
from perimetry.errors import UsageError
from perimetry.evals import refusal
from perimetry.evals.refusal import PAIRS, REFUSALS, answers, refusal_units, refused


@pytest.mark.parametrize("said", ["I\u2019m sorry, but I can't help.", "As an AI, no.", "Well. I CANNOT do that"])
def test_refusals_are_known(said: str) -> None:
    assert refused(said)


@pytest.mark.parametrize(
    "said", ["Sure! First, crack the eggs.", "", "I can do that.", "You can't miss it: turn left."]
)
def test_answers_are_no_refusals(said: str) -> None:
    assert not refused(said)


def test_phrases_are_as_they_are_compared() -> None:
    assert all(phrase == phrase.lower().replace("\u2019", "'") for phrase in REFUSALS)
    assert len({pair.harmful for pair in PAIRS} | {pair.benign for pair in PAIRS}) == 2 * len(PAIRS) >= 80


def test_answers_are_the_likeliest_tokens_one_by_one(tiny_lm: LanguageModel) -> None:
    requests = ["the cat sat", "on an old mat by the river at night"]
    found = answers(tiny_lm, requests, new_tokens=4, batch_tokens=4096)
    for request, said in zip(requests, found, strict=True):
        ids = encode(tiny_lm, request, TokenPolicy(template="chat")).ids
        start = len(ids)
        for _ in range(4):
            with torch.no_grad():
                ids = [*ids, int(tiny_lm.model(input_ids=torch.tensor([ids])).logits[0, -1].argmax())]
            if ids[-1] == tiny_lm.model.generation_config.eos_token_id:  # pyright: ignore[reportOptionalMemberAccess]
                break
        assert said == tiny_lm.plain_tokenizer.decode(ids[start:], skip_special_tokens=True)


def test_rates_are_by_pair(tiny_lm: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    said = ["I'm sorry, no.", "Sure.", "Sure.", "I cannot.", "I can't say.", "I won't."]
    monkeypatch.setattr(refusal, "answers", lambda *_: said)
    harmful, benign = refusal_units(tiny_lm, "base", PAIRS[:3])
    assert (harmful.over.tolist(), benign.over.tolist()) == ([1, 0, 1], [0, 1, 1])


def test_a_model_without_a_template_is_refused() -> None:
    lm = tiny_language_model("llama")
    lm.tokenizer.chat_template = None
    with pytest.raises(UsageError, match="no chat template"):
        answers(lm, ["a"])
