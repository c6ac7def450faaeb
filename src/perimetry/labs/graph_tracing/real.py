"""The small real model on lists of words: walks on a graph, pairs of neighbours, ordinary words."""

import re
from collections.abc import Iterable
from typing import Final, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from perimetry.activations.model import LanguageModel
from perimetry.activations.tap import read_layers_with_logits
from perimetry.axes import TokenIds
from perimetry.errors import TooFewSamples
from perimetry.labs.graph_tracing.measures import Following, Shape, class_means, following, shape_of
from perimetry.labs.graph_tracing.world import Graph

__all__ = [
    "LINES",
    "SPELLINGS",
    "WORDS",
    "Read",
    "Spelling",
    "Traced",
    "ordinary_words",
    "read_words",
    "share_of_pairs",
    "trace",
    "usable_words",
]

WORDS: Final = (
    *("apple", "bird", "car", "egg", "house", "milk", "plane", "opera", "box", "sand", "sun", "mango", "rock", "math"),
    *("code", "phone", "tree", "dog", "metal", "water", "fire", "boat", "mouse", "cup", "book", "paper", "key", "tea"),
    *("shoe", "ball"),
)
"""Words of the study, in its order."""


class Spelling(NamedTuple):
    """How a list is written."""

    mark: str
    """What stands after a word; nothing or one token."""
    lead: str
    """What a word begins with, as part of its token."""


LINES: Final = Spelling("\n", "")
"""One word a line: small models do not continue bare lists."""
SPELLINGS: Final = {"new line": LINES, "comma": Spelling(",", " "), "none": Spelling("", " ")}
"""Name of a separator -> how a list is written with it."""

PAIRED: Final = SPELLINGS["none"]
"""How the words of a pair are written."""
BAR: Final = " /"
"""Between two pairs."""


class Read(NamedTuple):
    """What a model makes of lists of words."""

    states: dict[int, Float[Tensor, "walk step d"]]
    """Block -> its output at each word."""
    logs: Float[Tensor, "walk step node"]
    """Logarithm of the chance of each word asked about, where the word after this one is foretold."""
    nll: Float[Tensor, "walk step"]
    """Loss of each word but the first, given all before it, in nats; 0 at the first."""
    entropy: Float[Tensor, "walk step"]
    """Entropy of what was foretold of each word but the first, in nats; 0 at the first."""
    repetition: Float[Tensor, "walk step"]
    """Share of the words up to this one that had occurred before."""


class Traced(NamedTuple):
    """What the model makes of some walks."""

    follows: Following
    """How its predictions obey the graph."""
    shapes: dict[int, list[Shape]]
    """Block -> shape of the node means of each walk's last steps."""
    read: Read
    """States and likelihoods."""


def _ids(lm: LanguageModel, text: str) -> list[int]:
    return list(lm.plain_tokenizer.encode(text, add_special_tokens=False).ids)


def _behind(lm: LanguageModel, text: str) -> list[int]:
    """The tokens of a text behind a word."""
    return _ids(lm, f"a{text}")[len(_ids(lm, "a")) :]


def _token(lm: LanguageModel, word: str, spelling: Spelling) -> int | None:
    """The token of a word within such a list, or None where it is not one."""
    start, mark = _ids(lm, f"a{spelling.mark}"), len(_behind(lm, spelling.mark))
    whole = _ids(lm, f"a{spelling.mark}{spelling.lead}{word}{spelling.mark}")
    return whole[len(start)] if whole[: len(start)] == start and len(whole) == len(start) + 1 + mark else None


def usable_words(lm: LanguageModel, count: int, spelling: Spelling = LINES) -> list[tuple[str, int]]:
    """The first words that are one token in such a list, with that token. Errors: `TooFewSamples`."""
    found = [(word, token) for word in WORDS if (token := _token(lm, word, spelling)) is not None]
    if len(found) < count:
        raise TooFewSamples(f"{len(found)} words are one token of {lm.name!r} in a list and {count} are wanted")
    return found[:count]


def ordinary_words(lm: LanguageModel, texts: Iterable[str], count: int, steps: int) -> Int[Tensor, "walk step"]:
    """Words of ordinary text in their order, those that are one token on a line of their own. Errors: `TooFewSamples`."""
    known: dict[str, int | None] = {}
    found: list[int] = []
    for text in texts:
        for word in re.findall(r"[A-Za-z]+", text):
            if word not in known:
                known[word] = _token(lm, word, LINES)
            token = known[word]
            if token is not None:
                found.append(token)
            if len(found) == count * steps:
                return torch.tensor(found).view(count, steps)
    raise TooFewSamples(f"{len(found)} words of the text are one token and {count * steps} are wanted")


def _row(lm: LanguageModel, words: Int[Tensor, "walk step"], mark: list[int]) -> TokenIds:
    """Beginning of sequence, then each word with its mark."""
    marks = torch.tensor(mark, dtype=words.dtype).expand(*words.shape, len(mark))
    pairs = torch.cat([words[..., None], marks], 2).flatten(1)
    first = lm.bos_id if lm.bos_id is not None else int(pairs[0, -1])
    return torch.cat([torch.full((words.shape[0], 1), first), pairs], 1)


def read_words(
    lm: LanguageModel,
    words: Int[Tensor, "walk step"],
    layers: tuple[int, ...],
    asked: list[int],
    spelling: Spelling = LINES,
) -> Read:
    """Read lists of word tokens. `asked`: tokens whose chances are kept."""
    mark = _behind(lm, spelling.mark)
    stride = 1 + len(mark)
    states: dict[int, list[Tensor]] = {layer: [] for layer in layers}
    logs, nll, entropy = [], [], []
    for row, own in zip(_row(lm, words, mark).to(lm.device), words, strict=True):
        read = read_layers_with_logits(lm, layers, row[None], torch.ones_like(row[None]))
        for layer, found in read.items():
            states[layer].append(found.residual[0, 1::stride].float().cpu())
        # A word is foretold at the token before it.
        told = read[layers[0]].logits()[0, stride::stride].float().log_softmax(-1).cpu()
        logs.append(told[:, asked])
        nll.append(-told[:-1].gather(1, own[1:, None])[:, 0])
        entropy.append(-(told[:-1].exp() * told[:-1]).sum(1))
    again = torch.tril(words[:, :, None] == words[:, None], -1).any(2).float()
    return Read(
        {layer: torch.stack(parts) for layer, parts in states.items()},
        torch.stack(logs),
        torch.nn.functional.pad(torch.stack(nll), (1, 0)),
        torch.nn.functional.pad(torch.stack(entropy), (1, 0)),
        again.cumsum(1) / torch.arange(1, words.shape[1] + 1),
    )


def trace(
    lm: LanguageModel,
    graph: Graph,
    walk: Int[Tensor, "walk step"],
    layers: tuple[int, ...],
    *,
    window: int,
    spelling: Spelling = LINES,
) -> Traced:
    """Read walks whose nodes are words; the states of their last `window` steps are held against the graph."""
    tokens = [token for _, token in usable_words(lm, graph.nodes, spelling)]
    read = read_words(lm, torch.tensor(tokens)[walk], layers, tokens, spelling)
    chances = read.logs.double().exp()
    shapes: dict[int, list[Shape]] = {}
    for layer, rows in read.states.items():
        means = [class_means(row[-window:], own[-window:], graph.nodes) for row, own in zip(rows, walk, strict=True)]
        shapes[layer] = [shape_of(m, graph) for m in means if m is not None]
    return Traced(following(chances, chances.sum(2), graph, walk), shapes, read)


def share_of_pairs(
    lm: LanguageModel, graph: Graph, count: int, pairs: int, draw: torch.Generator, spelling: Spelling = PAIRED
) -> Float[Tensor, "list pair"]:
    """Chance of a neighbour, among the nodes, after the first word of each pair; pairs of neighbours are drawn evenly."""
    tokens = torch.tensor([token for _, token in usable_words(lm, graph.nodes, spelling)])
    edges = graph.adjacency.nonzero()
    nodes = edges[torch.randint(0, len(edges), (count, pairs), generator=draw)]
    bar = torch.tensor(_behind(lm, BAR))
    rows = torch.cat([tokens[nodes], bar.expand(count, pairs, len(bar))], 2).flatten(1)
    ids = _row(lm, rows, []).to(lm.device)
    found: list[Tensor] = []
    for row, own in zip(ids, nodes, strict=True):
        read = read_layers_with_logits(lm, (0,), row[None], torch.ones_like(row[None]))
        told = read[0].logits()[0, 1 :: 2 + len(bar)].float().softmax(-1).cpu()[:, tokens].double()
        found.append((told * graph.adjacency[own[:, 0]]).sum(1) / told.sum(1))
    return torch.stack(found)
