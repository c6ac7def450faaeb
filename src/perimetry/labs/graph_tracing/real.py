"""The small real model on walks whose nodes are words, one a line."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from perimetry.activations.model import LanguageModel
from perimetry.activations.tap import read_layers_with_logits
from perimetry.axes import TokenIds
from perimetry.errors import TooFewSamples
from perimetry.labs.graph_tracing.measures import Following, Shape, class_means, following, shape_of
from perimetry.labs.graph_tracing.world import Graph

__all__ = ["SEPARATOR", "WORDS", "Traced", "trace", "usable_words"]

WORDS = (
    *("apple", "bird", "car", "egg", "house", "milk", "plane", "opera", "box", "sand", "sun", "mango", "rock", "math"),
    *("code", "phone", "tree", "dog", "metal", "water", "fire", "boat", "mouse", "cup", "book", "paper", "key", "tea"),
    *("shoe", "ball"),
)
"""Words of the study, in its order."""
SEPARATOR = "\n"
"""Between two words: small models do not continue bare lists."""


class Traced(NamedTuple):
    """What the model makes of some walks."""

    follows: Following
    """How its predictions obey the graph."""
    shapes: dict[int, list[Shape]]
    """Block -> shape of the node means of each walk's last steps."""
    states: dict[int, Float[Tensor, "walk step d"]]
    """Block -> its output at each word."""
    nll: Float[Tensor, "walk step"]
    """Loss of each word but the first, given all before it; 0 at the first."""


def usable_words(lm: LanguageModel, count: int) -> list[tuple[str, int]]:
    """The first words that are one token after the separator, with that token. Errors: `TooFewSamples`."""
    start = _ids(lm, f"a{SEPARATOR}")
    found: list[tuple[str, int]] = []
    for word in WORDS:
        whole = _ids(lm, f"a{SEPARATOR}{word}{SEPARATOR}")
        if whole[: len(start)] == start and len(whole) == len(start) + 2:
            found.append((word, whole[len(start)]))
    if len(found) < count:
        raise TooFewSamples(f"{len(found)} words are one token of {lm.name!r} after a new line and {count} are wanted")
    return found[:count]


def _ids(lm: LanguageModel, text: str) -> list[int]:
    return list(lm.plain_tokenizer.encode(text, add_special_tokens=False).ids)


def _row(lm: LanguageModel, tokens: list[int], walk: Int[Tensor, "walk step"]) -> TokenIds:
    """Beginning of sequence, then word and separator in turn."""
    separator = _ids(lm, f"a{SEPARATOR}")[-1]
    words = torch.tensor(tokens)[walk]
    pairs = torch.stack([words, torch.full_like(words, separator)], 2).flatten(1)
    bos = lm.bos_id if lm.bos_id is not None else separator
    return torch.cat([torch.full((walk.shape[0], 1), bos), pairs], 1)


def trace(
    lm: LanguageModel,
    graph: Graph,
    walk: Int[Tensor, "walk step"],
    layers: tuple[int, ...],
    *,
    window: int,
    against: Int[Tensor, "walk step"] | None = None,
) -> Traced:
    """Read walks. `against`: nodes by which predictions and states are judged, where these are not the walk itself."""
    tokens = [token for _, token in usable_words(lm, graph.nodes)]
    ids = _row(lm, tokens, walk).to(lm.device)
    nodes = walk if against is None else against
    chances, full, nll = [], [], []
    states: dict[int, list[Tensor]] = {layer: [] for layer in layers}
    for row in ids:
        attention = torch.ones_like(row[None])
        read = read_layers_with_logits(lm, layers, row[None], attention)
        for layer, found in read.items():
            states[layer].append(found.residual[0, 1::2].float().cpu())
        # A word is foretold at the separator before it.
        logs = read[layers[0]].logits()[0].float().log_softmax(-1)[2::2].cpu()
        chances.append(logs.exp()[:, tokens].double())
        full.append(chances[-1].sum(1))
        nll.append(torch.nn.functional.pad(-logs[:-1].gather(1, row[3::2, None].cpu())[:, 0], (1, 0)))
    held = {layer: torch.stack(parts) for layer, parts in states.items()}
    shapes: dict[int, list[Shape]] = {}
    for layer, rows in held.items():
        means = [class_means(row[-window:], own[-window:], graph.nodes) for row, own in zip(rows, nodes, strict=True)]
        shapes[layer] = [shape_of(m, graph) for m in means if m is not None]
    return Traced(following(torch.stack(chances), torch.stack(full), graph, nodes), shapes, held, torch.stack(nll))
