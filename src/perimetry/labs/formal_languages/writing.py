"""What a model writes token by token, with something spliced in, and whether the grammar gives it."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from perimetry.labs.formal_languages.grammars import BOS, EOS, PAD, AbstractLanguage
from perimetry.labs.formal_languages.models import SITE, Splice
from perimetry.labs.nano import Nano
from perimetry.runtime import generator

__all__ = ["validity", "write"]


class _Past(NamedTuple):
    keys: Float[Tensor, "string head position d_head"]
    values: Float[Tensor, "string head position d_head"]


def _through(
    block: Any, x: Float[Tensor, "string 1 d"], turn: Tensor, past: _Past | None
) -> tuple[Float[Tensor, "string 1 d"], _Past]:
    """One token of each string through a block; its keys and values are put behind those of the tokens before it."""
    q, k, v = block.split(x, turn)
    if past is not None:
        k, v = torch.cat([past.keys, k], 2), torch.cat([past.values, v], 2)
    mixed = functional.scaled_dot_product_attention(q, k, v)
    x = x + block.out(mixed.transpose(1, 2).reshape(x.shape))
    return x + block.down(functional.gelu(block.up(block.norm_2(x)))), _Past(k, v)


def _next(
    model: Nano, tokens: Int[Tensor, " string"], place: int, past: list[_Past | None], splice: Splice | None
) -> Float[Tensor, "string vocab"]:
    """Scores of what follows; `past` is brought up to date."""
    x, turn = model.embed(tokens)[:, None], model.turn[place : place + 1]
    for number, block in enumerate(model.blocks):
        x, past[number] = _through(block, x, turn, past[number])
        if number == SITE and splice is not None and place:
            x = splice(x[:, 0])[:, None]
    return model.unembed(model.norm(x[:, 0]))


@torch.no_grad()
def write(
    model: Nano,
    beginnings: Sequence[Sequence[int]],
    seed: int,
    splice: Splice | None = None,
) -> list[list[int] | None]:
    """A string from each beginning (all of one length), token by token as the model draws them; None where it does not end in time.

    Each string has its own random numbers by the seed, so that two splices that say the same write the same.
    """
    given = torch.tensor([[BOS, *one] for one in beginnings])
    context = model.config.context
    ids = torch.full((len(given), context), PAD)
    ids[:, : given.shape[1]] = given
    noise = torch.rand(ids.shape, generator=generator(seed))
    alive = torch.arange(len(ids))
    past: list[_Past | None] = [None] * len(model.blocks)
    for place in range(context - 1):
        logits = _next(model, ids[alive, place], place, past, splice)
        if place + 1 < given.shape[1]:
            continue
        levels = logits.softmax(-1).cumsum(-1)
        token = (levels < noise[alive, place, None]).sum(-1).clamp_max(levels.shape[1] - 1)
        ids[alive, place + 1] = token
        kept = token != EOS
        alive = alive[kept]
        past = [None if one is None else _Past(one.keys[kept], one.values[kept]) for one in past]
        if not len(alive):
            break
    return [_string(row) for row in ids.tolist()]


def _string(row: list[int]) -> list[int] | None:
    return row[1 : row.index(EOS)] if EOS in row else None


def validity(language: AbstractLanguage, written: Sequence[Sequence[int] | None]) -> float:
    """Share of what was written that ends and that the grammar gives."""
    return sum(one is not None and language.valid(one) for one in written) / len(written)
