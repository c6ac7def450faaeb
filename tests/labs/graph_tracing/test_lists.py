"""What is read of lists of words, against the model asked token by token."""

import pytest
import torch
from torch.nn import functional

from perimetry.activations.model import LanguageModel
from perimetry.errors import TooFewSamples
from perimetry.labs.graph_tracing import real
from perimetry.labs.graph_tracing.real import (
    Spelling,
    ordinary_words,
    read_words,
    share_of_pairs,
    trace,
    usable_words,
)
from perimetry.labs.graph_tracing.world import ring, walks
from perimetry.runtime import generator

BARE = Spelling("", "")


@pytest.fixture
def letters(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tokens of the small model are bytes: words of one letter."""
    monkeypatch.setattr(real, "WORDS", tuple("bcdefghijk"))


def _row(lm: LanguageModel, text: str) -> torch.Tensor:
    ids = lm.plain_tokenizer.encode(text, add_special_tokens=False).ids
    return torch.tensor([[lm.bos_id, *ids]])


@torch.no_grad()
def _logs(lm: LanguageModel, ids: torch.Tensor) -> torch.Tensor:
    return lm.model(input_ids=ids).logits[0].float().log_softmax(-1)


def test_words_must_be_one_token(tiny_lm: LanguageModel) -> None:
    with pytest.raises(TooFewSamples, match="are one token"):
        usable_words(tiny_lm, 4)


@pytest.mark.usefixtures("letters")
def test_a_word_is_read_where_it_stands_and_foretold_at_the_token_before(tiny_lm: LanguageModel) -> None:
    words = usable_words(tiny_lm, 10)
    ids = _row(tiny_lm, "b\nc\nb\nd\n")
    logs = _logs(tiny_lm, ids)
    tokens = torch.tensor([[dict(words)[letter] for letter in "bcbd"]])
    read = read_words(tiny_lm, tokens, (1,), tokens[0].tolist())
    torch.testing.assert_close(read.logs[0], logs[2::2][:, tokens[0]], atol=1e-4, rtol=1e-4)
    expected = functional.cross_entropy(logs[2:-1:2], tokens[0, 1:], reduction="none")
    torch.testing.assert_close(read.nll[0], functional.pad(expected, (1, 0)), atol=1e-4, rtol=1e-4)
    entropy = -(logs.exp() * logs).sum(1)[2:-1:2]
    torch.testing.assert_close(read.entropy[0], functional.pad(entropy, (1, 0)), atol=1e-4, rtol=1e-4)
    assert read.repetition[0].tolist() == pytest.approx([0, 0, 1 / 3, 1 / 4])
    with torch.no_grad():
        states = tiny_lm.model(input_ids=ids, output_hidden_states=True).hidden_states[2][0]
    torch.testing.assert_close(read.states[1][0], states[1::2].float(), atol=1e-4, rtol=1e-4)


@pytest.mark.usefixtures("letters")
def test_lists_without_a_mark_are_read_at_every_token(tiny_lm: LanguageModel) -> None:
    tokens = torch.tensor([[dict(usable_words(tiny_lm, 10, BARE))[letter] for letter in "bcbd"]])
    read = read_words(tiny_lm, tokens, (0,), tokens[0].tolist(), BARE)
    logs = _logs(tiny_lm, _row(tiny_lm, "bcbd"))
    torch.testing.assert_close(read.logs[0], logs[1:][:, tokens[0]], atol=1e-4, rtol=1e-4)


@pytest.mark.usefixtures("letters")
def test_walks_over_words_give_shares_and_shapes(tiny_lm: LanguageModel) -> None:
    graph = ring(5)
    walk = walks(graph, 2, 60, generator(0))
    found = trace(tiny_lm, graph, walk, (0, 1), window=40)
    assert found.follows.among.shape == (2, 59)
    assert bool(((found.follows.among > 0) & (found.follows.among < 1)).all())
    assert bool((found.follows.full <= found.follows.among).all())
    assert {layer: len(shapes) for layer, shapes in found.shapes.items()} == {0: 2, 1: 2}


@pytest.mark.usefixtures("letters")
def test_pairs_are_asked_after_their_first_word(tiny_lm: LanguageModel) -> None:
    graph = ring(5)
    shares = share_of_pairs(tiny_lm, graph, 2, 6, generator(3), BARE)
    words = usable_words(tiny_lm, 5, BARE)
    edges = graph.adjacency.nonzero()
    nodes = edges[torch.randint(0, len(edges), (2, 6), generator=generator(3))]
    text = "".join(f"{words[a][0]}{words[b][0]} /" for a, b in nodes[1].tolist())
    logs = _logs(tiny_lm, _row(tiny_lm, text))
    start = 1 + 4 * 3  # after the beginning and three pairs of two words and two bytes of the bar
    chances = logs[start].exp()[[token for _, token in words]]
    expected = float(chances[graph.adjacency[nodes[1, 3, 0]]].sum() / chances.sum())
    assert float(shares[1, 3]) == pytest.approx(expected, abs=1e-4)


def test_ordinary_words_keep_their_order(tiny_lm: LanguageModel) -> None:
    found = ordinary_words(tiny_lm, ["I saw a b and a c"], 2, 2)
    assert [tiny_lm.plain_tokenizer.decode([token]) for token in found.flatten().tolist()] == ["I", "a", "b", "a"]
    with pytest.raises(TooFewSamples, match="4 are wanted"):
        ordinary_words(tiny_lm, ["many longer words"], 2, 2)
