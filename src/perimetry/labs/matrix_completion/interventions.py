"""What a completer's parts do: each taken away or put back to what it was before, and what its states hold."""

import copy
from typing import Final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from perimetry.labs.base import Measured
from perimetry.labs.matrix_completion.completer import Completer, looked_at
from perimetry.labs.matrix_completion.world import Masked
from perimetry.runtime import generator

__all__ = ["intervened", "probed", "without_positions", "without_selection"]

RIDGE: Final = 1e-3
"""Weight of a probe's squared norm, in units of the mean variance of a state's coordinate."""


def _blocks(model: Completer) -> list[nn.TransformerEncoderLayer]:
    return [block for block in model.blocks.layers if isinstance(block, nn.TransformerEncoderLayer)]


@torch.no_grad()
def without_selection(model: Completer, block: int, head: int) -> Completer:
    """A copy in which one head attends evenly to all entries: its queries are 0."""
    made = copy.deepcopy(model)
    attention = _blocks(made)[block].self_attn
    width = attention.embed_dim // attention.num_heads
    rows = slice(head * width, (head + 1) * width)
    assert attention.in_proj_weight is not None, "queries, keys and values are of one width"
    attention.in_proj_weight[rows] = 0
    attention.in_proj_bias[rows] = 0
    return made


@torch.no_grad()
def without_positions(model: Completer, seed: int) -> Completer:
    """A copy in which rows, and columns, have each other's places."""
    made, draw = copy.deepcopy(model), generator(seed)
    made.row.copy_(made.row[_moved(made.row.shape[0], draw)])
    made.column.copy_(made.column[:, _moved(made.column.shape[1], draw)])
    return made


def _moved(count: int, draw: torch.Generator) -> Int[Tensor, " place"]:
    """An order that is not the first one."""
    order = torch.randperm(count, generator=draw)
    return order.roll(1) if torch.equal(order, torch.arange(count)) else order


def _swapped(model: Completer, before: Completer, part: str) -> Completer:
    """A copy whose attention, or whose MLPs, are those of an earlier step."""
    made = copy.deepcopy(model)
    names = ("self_attn",) if part == "attention" else ("linear1", "linear2")
    for own, old in zip(_blocks(made), _blocks(before), strict=True):
        for name in names:
            getattr(own, name).load_state_dict(getattr(old, name).state_dict())
    return made


def intervened(model: Completer, before: Completer, given: Masked, seed: int) -> list[Measured]:
    """Error of the masked entries after each intervention."""
    changed = {f"without {part} learned later": _swapped(model, before, part) for part in ("attention", "MLPs")}
    changed["places exchanged"] = without_positions(model, seed)
    for number, block in enumerate(_blocks(model)):
        for head in range(block.self_attn.num_heads):
            changed[f"block {number}, head {head} even"] = without_selection(model, number, head)
    return [
        Measured("error of masked entries after an intervention", looked_at(own, given).hidden, name)
        for name, own in changed.items()
    ]


def probed(model: Completer, given: Masked, layers: int) -> list[Measured]:
    """Share of the variance of a masked entry that a linear probe reads from the state there, after each block; halves of the matrices
    fit and test it."""
    hidden = ~given.observed
    half = len(given.values) // 2
    device = model.out.weight.device
    found: list[Measured] = []
    for layer in range(1, layers + 1):
        with torch.no_grad():
            states = model.read(given.values.to(device), given.observed.to(device), layer)[1].float().cpu()
        states = states.view(*given.values.shape, -1)
        fit, test = (
            (states[part][hidden[part]], given.values[part][hidden[part]]) for part in (slice(half), slice(half, None))
        )
        found.append(Measured("probe of a masked entry", _explained(*fit, *test), f"block {layer}"))
    return found


def _explained(
    x: Float[Tensor, "entry d"], y: Float[Tensor, " entry"], other: Float[Tensor, "new d"], truth: Float[Tensor, " new"]
) -> float:
    """Explained variance on new entries, of ridge regression."""
    mean, level = x.double().mean(0), y.double().mean()
    centred = x.double() - mean
    gram = centred.T @ centred
    size = gram.diagonal().mean().clamp_min(1e-12)
    weights = torch.linalg.solve(gram + RIDGE * size * torch.eye(len(gram)), centred.T @ (y.double() - level))
    error = (other.double() - mean) @ weights + level - truth.double()
    return 1 - float(error.square().mean() / truth.double().var(unbiased=False).clamp_min(1e-12))
