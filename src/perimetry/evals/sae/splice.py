"""What a model loses where something else takes the place of the activations at the positions that count.

The loss of a position is that of the token after it, and its divergence that of the distribution it gives: both are of the
positions whose activations were replaced. (SAELens counts the same positions: it masks by the token that predicts.)
"""

from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from perimetry.activations.model import LanguageModel
from perimetry.activations.prompts import PromptBatch
from perimetry.activations.tap import CHUNK_BYTES, Tap, TapLogits
from perimetry.axes import Residual, TokenMask
from perimetry.evals.sae.base import Place
from perimetry.evals.sae.held_out import HeldRows, counted
from perimetry.ui import track

__all__ = ["Effect", "effect", "floors", "spliced"]

PerRow = Float[Tensor, " row"]


class Effect(NamedTuple):
    """Sums over the counted positions of each row of a batch, float64."""

    loss: PerRow
    """Cross-entropy of the next token, nats."""
    divergence: PerRow
    """Kullback-Leibler divergence from what the model says untouched, nats; 0 where nothing was replaced."""
    predicted: PerRow
    """Counted positions that have a next token."""
    positions: PerRow
    """Counted positions."""


def spliced(residual: Residual, where: TokenMask, new: Float[Tensor, "token d_model"]) -> Residual:
    """The activations with `new`, row by row, at the positions of `where`."""
    out = residual.clone()
    out[where] = new.to(out.dtype)
    return out


def _logits(lm: LanguageModel, hidden: Float[Tensor, "token d_last"]) -> Float[Tensor, "token vocab"]:
    return TapLogits(lm, hidden[None], hidden[None]).logits()[0].float()


@torch.no_grad()
def effect(lm: LanguageModel, batch: PromptBatch, where: TokenMask, clean: Residual, hidden: Residual) -> Effect:
    """Losses of a pass whose last hidden states are `hidden`, where those of the untouched pass are `clean`."""
    where = where.to(hidden.device)
    row, column = where.nonzero(as_tuple=True)
    ids, attention = batch.ids.to(hidden.device), batch.attention.to(hidden.device).bool()
    last = ids.shape[1] - 1
    following = (column + 1).clamp(max=last)
    has_next = (column < last) & attention[row, following]
    targets = ids[row, following]
    sums = torch.zeros(2, where.shape[0], dtype=torch.float64, device=hidden.device)
    head: Any = lm.model.get_output_embeddings()
    chunk = max(1, CHUNK_BYTES // (4 * head.weight.shape[0]))
    for start in range(0, row.shape[0], chunk):
        part = slice(start, start + chunk)
        before = _logits(lm, clean[row[part], column[part]]).log_softmax(1)
        after = _logits(lm, hidden[row[part], column[part]]).log_softmax(1)
        loss = -after.gather(1, targets[part, None])[:, 0]
        divergence = (before.exp() * (before - after)).sum(1)
        sums[0].index_add_(0, row[part], torch.where(has_next[part], loss, 0).double())
        sums[1].index_add_(0, row[part], divergence.double())
    predicted = torch.zeros_like(sums[0]).index_add_(0, row, has_next.double())
    return Effect(*(x.cpu() for x in (sums[0], sums[1], predicted, where.sum(1).double())))


def floors(place: Place, held: HeldRows, size: int, *, progress: bool = False) -> dict[str, Tensor]:
    """What is measured of the rows without a dictionary, for `Shelf.get`.

    `hidden`: last hidden states of the untouched pass, padded to the longest row, and `raw/loss`; then `zero/loss` and
    `zero/divergence` with zeros at every position of a row, those that do not count too, as SAELens has it; `mean/loss` and
    `mean/divergence` with the mean of all counted activations at the counted positions only; `predicted` and `positions`.
    """
    tap, lm = Tap(place.lm, place.layer), place.lm
    longest = max(len(row.ids) for row in held.rows)
    hidden: list[Tensor] = []
    masks: list[Tensor] = []
    effects: dict[str, list[Effect]] = {"raw": [], "zero": [], "mean": []}
    total = torch.zeros(lm.d_model, dtype=torch.float64)
    for _, batch in _tracked(held, size, lm.pad_id, "the model untouched", progress):
        seen = tap.run_replaced(batch.ids, batch.attention, None)
        where = counted(seen.residual, batch.countable, place)
        effects["raw"].append(effect(lm, batch, where, seen.hidden, seen.hidden))
        total += seen.residual[where].double().sum(0).cpu()
        hidden.append(pad(seen.hidden.cpu(), (0, 0, 0, longest - seen.hidden.shape[1])))
        masks.append(where)
    mean = (total / max(1, sum(int(where.sum()) for where in masks))).to(lm.device)
    for i, (_, batch) in enumerate(_tracked(held, size, lm.pad_id, "the model ablated", progress)):
        where, clean = masks[i], hidden[i][:, : batch.ids.shape[1]].to(lm.device)
        replaced = {
            "zero": torch.zeros_like,
            "mean": partial(spliced, where=where, new=mean.expand(int(where.sum()), -1)),
        }
        for name, function in replaced.items():
            seen = tap.run_replaced(batch.ids, batch.attention, function)
            effects[name].append(effect(lm, batch, where, clean, seen.hidden))
    found = {"hidden": torch.cat(hidden)}
    for name, parts in effects.items():
        found[f"{name}/loss"] = torch.cat([part.loss for part in parts])
        found[f"{name}/divergence"] = torch.cat([part.divergence for part in parts])
    found["predicted"] = torch.cat([part.predicted for part in effects["raw"]])
    found["positions"] = torch.cat([part.positions for part in effects["raw"]])
    return found


def _tracked(held: HeldRows, size: int, pad_id: int, what: str, progress: bool) -> Iterator[tuple[slice, PromptBatch]]:
    return track(held.batches(size, pad_id), what, len(held.rows), progress, lambda item: len(item[1].ids))
