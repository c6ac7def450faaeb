"""The editors on a real model: from a fact to what is added to its matrices."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Final, Literal, NamedTuple

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from perimetry.activations.model import LanguageModel
from perimetry.config import Config
from perimetry.editing.edit import Edit, edited, scaled
from perimetry.editing.moments import KeyMoments
from perimetry.editing.passes import Writing, block_values, read_keys, target_objective
from perimetry.editing.places import edit_layer, projection
from perimetry.editing.requests import EditRequest, KeyedRow, keyed_row, prefix_rows
from perimetry.editing.updates import Keys, alphaedit, free_directions, memit, rome
from perimetry.editing.values import BLOCK_VALUE, LAYER_VALUE, ValueConfig, find_value
from perimetry.errors import ConfigError

__all__ = ["EditorConfig", "Method", "edited_layers", "make_edit"]

Method = Literal["rome", "r-rome", "p-rome", "memit", "alphaedit"]
"""`rome` mixes keys as released; `r-rome` uses the mean key throughout, `p-rome` the plain one; `memit` and `alphaedit` spread an edit
over several blocks."""
KEYS: Final[dict[str, Keys]] = {"rome": "mixed", "r-rome": "mean", "p-rome": "plain"}
SPREAD: Final = 3


class EditorConfig(Config):
    """How a fact is written into a model."""

    method: Method = "r-rome"
    """Which editor."""
    layer: int | None = Field(default=None, ge=0)
    """Block whose MLP is edited, the last of them where there are several; None: block 6 of 30, and so on."""
    spread: int = Field(default=SPREAD, ge=1)
    """Blocks over which MEMIT and AlphaEdit spread an edit, up to and with that one."""
    value: ValueConfig | None = None
    """How the value is looked for; None: as the study of that editor has it."""
    hold: float = Field(default=0.05, gt=0)
    """How much MEMIT and AlphaEdit hold back, as a share of the key's own size; 0.05 reaches 95 % of the value at one layer. Published
    weights (15,000 and 10) depend on the scale of the keys and mean nothing on another model."""
    free: float = Field(default=0.3, gt=0, lt=1)
    """AlphaEdit changes only directions that together hold at most this share of the trace of the moments: two thirds of them at block 6 of
    SmolLM2-135M, about what the published threshold on eigenvalues (0.02), which depends on the scale of the keys, keeps there."""
    scale: float = 1.0
    """How many times the update is added."""
    bos: bool = False
    """Whether prompts begin with the beginning-of-sequence token."""


class _Rows(NamedTuple):
    plain: KeyedRow
    prefixed: list[KeyedRow]
    writing: Callable[[torch.nn.Module], Writing]


def edited_layers(lm: LanguageModel, config: EditorConfig) -> list[int]:
    """The blocks that an editor changes, lowest first."""
    last = edit_layer(lm) if config.layer is None else config.layer
    return [last] if config.method in KEYS else list(range(max(0, last - config.spread + 1), last + 1))


def make_edit(
    lm: LanguageModel,
    requests: Sequence[EditRequest],
    moments: KeyMoments,
    prefixes: Sequence[str],
    config: EditorConfig | None = None,
    *,
    earlier: Edit | None = None,
) -> Edit:
    """What the editor adds, so that the model gives the new answers; the model is as it was when this returns.

    `moments`: of the blocks of `edited_layers`, on ordinary text. `prefixes`: what is put before the prompt, the empty one among
    them. `earlier`: an edit whose keys AlphaEdit is to leave alone. Errors: `ConfigError` for several facts at once where the editor
    takes one, for moments of other blocks; those of `keyed_row` and `find_value`.
    """
    config = config or EditorConfig()
    layers = edited_layers(lm, config)
    missing = [i for i in layers if i not in moments.matrices]
    if missing or not prefixes:
        raise ConfigError(
            f"the editor changes blocks {layers}: wanted their moments (blocks {missing or 'none'} lack) and {len(prefixes) or 'no'} "
            "prefixes; read the moments of those blocks, and give prefixes, the empty one at least"
        )
    said = f"{config.method}, {'; '.join(r.said for r in requests)}"
    if config.method in KEYS:
        if len(requests) != 1:
            raise ConfigError(
                f"{config.method} takes one fact and {len(requests)} were given; edit one after the other, or take memit"
            )
        found = _rome(lm, requests[0], moments, prefixes, config)
    else:
        found = _spread(lm, requests, moments, prefixes, config, earlier)
    return scaled(found, config.scale)._replace(said=said + (f", times {config.scale:g}" if config.scale != 1 else ""))


def _rows(lm: LanguageModel, request: EditRequest, prefixes: Sequence[str], config: EditorConfig) -> _Rows:
    told = prefix_rows(lm, request, prefixes, answer=True, bos=config.bos)
    neutral = keyed_row(lm, request.neutral, request.subject, bos=config.bos)
    return _Rows(
        keyed_row(lm, request.prompt, request.subject, bos=config.bos),
        prefix_rows(lm, request, prefixes, answer=False, bos=config.bos),
        lambda module: Writing(told, neutral, module),
    )


def _rome(
    lm: LanguageModel, request: EditRequest, moments: KeyMoments, prefixes: Sequence[str], config: EditorConfig
) -> Edit:
    (layer,) = edited_layers(lm, config)
    place, rows = projection(lm, layer), _rows(lm, request, prefixes, config)
    plain = read_keys(lm, [layer], [rows.plain])[layer]
    mean = read_keys(lm, [layer], rows.prefixed)[layer].keys.mean(0)
    start = plain.values[0].float().to(lm.device)
    objective = target_objective(lm, rows.writing(place.module))
    value = find_value(start, objective, config.value or LAYER_VALUE).double().cpu() - place.bias
    keys = KEYS[config.method]
    update = rome(place.weight, value, plain.keys[0], mean, moments.matrices[layer], keys)
    key = plain.keys[0] if keys == "plain" else mean
    return Edit({layer: update}, {layer: key[:, None]}, "")


def _spread(
    lm: LanguageModel,
    requests: Sequence[EditRequest],
    moments: KeyMoments,
    prefixes: Sequence[str],
    config: EditorConfig,
    earlier: Edit | None,
) -> Edit:
    """Every block takes its part of what is still missing at the last one, in the model that has the parts below."""
    layers = edited_layers(lm, config)
    rows = [_rows(lm, request, prefixes, config) for request in requests]
    plain = [r.plain for r in rows]
    start = block_values(lm, layers[-1], plain)
    wanted = torch.stack(
        [
            find_value(
                before.float().to(lm.device),
                target_objective(lm, r.writing(lm.blocks[layers[-1]])),
                config.value or BLOCK_VALUE,
            )
            .double()
            .cpu()
            for r, before in zip(rows, start, strict=True)
        ]
    )
    updates: dict[int, Tensor] = {}
    keys: dict[int, Tensor] = {}
    with ExitStack() as stack:
        for left, layer in zip(range(len(layers), 0, -1), layers, strict=True):
            now = torch.stack([read_keys(lm, [layer], r.prefixed)[layer].keys.mean(0) for r in rows], 1)
            residuals = (wanted - block_values(lm, layers[-1], plain)).T / left
            known = None if earlier is None else earlier.keys.get(layer)
            keys[layer], updates[layer] = now, _part(config, now, residuals, moments.matrices[layer], known)
            stack.enter_context(edited(lm, Edit({layer: updates[layer]}, {}, "")))
    return Edit(updates, keys, "")


def _part(
    config: EditorConfig,
    keys: Float[Tensor, "key edit"],
    residuals: Float[Tensor, "value edit"],
    moments: Float[Tensor, "key key"],
    known: Float[Tensor, "key earlier"] | None,
) -> Float[Tensor, "value key"]:
    """What one block adds; weights are shares of the keys' size in the metric of the editor."""
    if config.method == "memit":
        size = (keys * torch.linalg.solve(moments, keys)).sum(0).mean()
        return memit(keys, residuals, moments, config.hold * float(size))
    free = free_directions(moments, config.free)
    size = (keys * (free @ keys)).sum(0).mean()
    return alphaedit(keys, residuals, free, earlier=known, ridge=config.hold * float(size))
