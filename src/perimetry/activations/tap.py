"""Read or replace the output of one decoder block of a plain Hugging Face causal language model.

A read stops the forward pass after the block: nothing above it runs. Tensors that leave are ordinary ones (a trainer
may keep them for its backward pass), although the model itself runs in inference mode.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, NoReturn, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from perimetry.activations.model import LanguageModel
from perimetry.activations.prompts import position_ids
from perimetry.activations.site import HookName, Site, hook_name
from perimetry.axes import Attention, PerToken, Residual, TokenIds, TokenMask
from perimetry.errors import ConfigError, WidthMismatch

__all__ = [
    "HookName",
    "NextToken",
    "Tap",
    "TapLogits",
    "hook_name",
    "read_layers",
    "read_layers_with_logits",
    "read_sites",
]

CHUNK_BYTES = 2**26
Hook = Callable[[nn.Module, Any, Any], Any]


class NextToken(NamedTuple):
    """What the model expected at some tokens, in nats; flat, row by row."""

    nll: PerToken
    """Negative log-likelihood of the token given what precedes it; higher = less expected."""
    entropy: PerToken
    """Entropy of the distribution that the token was drawn from; higher = less sure."""
    energy: PerToken
    """Minus the log-sum-exp of the logits that the token was drawn from; higher = less sure."""


class _Places(NamedTuple):
    """Where the tokens under a mask stand, row by row."""

    row: Int[Tensor, " token"]
    column: Int[Tensor, " token"]
    first: Bool[Tensor, " token"]
    """Whether no real token stands before."""


class _Stop(Exception):
    """Leaves the forward pass; never leaves this module."""


def _residual_of(output: Any) -> Tensor:
    return output[0] if isinstance(output, tuple) else output


def _with_residual(output: Any, residual: Tensor) -> Any:
    return (residual, *output[1:]) if isinstance(output, tuple) else residual


class _Attached(NamedTuple):
    module: nn.Module
    hook: Hook
    before: bool = False
    """Called with what the module is given, before it runs."""


def _attach(attached: _Attached) -> Any:
    if not attached.before:
        return attached.module.register_forward_hook(attached.hook)

    def hook(module: nn.Module, inputs: Any) -> None:
        attached.hook(module, inputs, inputs)

    return attached.module.register_forward_pre_hook(hook)


@contextmanager
def _hooked(hooks: Sequence[_Attached]) -> Iterator[None]:
    handles = [_attach(attached) for attached in hooks]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _require_layer(lm: LanguageModel, layer: int) -> int:
    if not 0 <= layer < lm.n_layers:
        raise ConfigError(
            f"layer {layer} is not in {lm.name!r}, which has {lm.n_layers} blocks; choose a layer from 0 to "
            f"{lm.n_layers - 1}"
        )
    return layer


def _forward(lm: LanguageModel, ids: TokenIds, attention: Attention, hooks: Sequence[_Attached]) -> Tensor | None:
    """Run the base model; the last hidden state after the final norm, or None where a hook stopped the pass."""
    if ids.shape[1] > lm.context:
        raise ConfigError(
            f"the batch has {ids.shape[1]} positions and {lm.name!r} has a context of {lm.context}; use shorter rows"
        )
    attention = attention.to(lm.device)
    with lm.lock, torch.inference_mode(), _hooked(hooks):
        try:
            output = lm.model.base_model(
                input_ids=ids.to(lm.device),
                attention_mask=attention,
                position_ids=position_ids(attention),
                use_cache=False,
            )
        except _Stop:
            return None
    return output.last_hidden_state


def read_sites(lm: LanguageModel, sites: Sequence[Site], ids: TokenIds, attention: Attention) -> dict[Site, Residual]:
    """The activations at several places from one forward pass that stops at the deepest of them. Errors: `ConfigError`."""
    last = max(sites, key=lambda site: site.depth)
    found: dict[Site, Tensor] = {}

    def keep(site: Site) -> _Attached:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:  # noqa: ARG001
            found[site] = _residual_of(output)
            if site == last:
                raise _Stop

        block: Any = lm.blocks[_require_layer(lm, site.layer)]
        return _Attached(block if site.place == "resid_post" else block.mlp, hook, before=site.place == "mlp_in")

    _forward(lm, ids, attention, [keep(site) for site in dict.fromkeys(sites)])
    return {site: found[site].clone() for site in sites}


def read_layers(lm: LanguageModel, layers: Sequence[int], ids: TokenIds, attention: Attention) -> dict[int, Residual]:
    """The outputs of several blocks from one forward pass that stops after the last of them. Errors: `ConfigError`."""
    found = read_sites(lm, [Site(layer) for layer in layers], ids, attention)
    return {site.layer: residual for site, residual in found.items()}


@final
class TapLogits:
    """One full forward pass: the tapped block's output, and the next-token distributions on demand."""

    def __init__(self, lm: LanguageModel, residual: Residual, hidden: Residual) -> None:
        self.residual = residual
        """Output of the tapped block (after the replacement, where there was one)."""
        self.hidden = hidden
        """Last hidden state after the final norm."""
        self._head: Any = lm.model.get_output_embeddings()
        self._cap: float | None = getattr(lm.model.config, "final_logit_softcapping", None)
        self._vocabulary: int = self._head.weight.shape[0]

    def _project(self, hidden: Tensor) -> Tensor:
        logits = self._head(hidden)
        return logits if self._cap is None else torch.tanh(logits / self._cap) * self._cap

    def logits(self) -> Float[Tensor, "batch seq vocab"]:
        """All logits at once, in the compute dtype; large."""
        with torch.no_grad():
            return self._project(self.hidden)

    def logit_stats(self, ids: TokenIds, attention: Attention, mask: TokenMask) -> NextToken:
        """Statistics of the tokens under `mask`, row by row; only a chunk of logits exists at a time.

        The token at position t is judged by the distribution after position t - 1. The first real token of a row has
        no distribution before it (with a BOS it is the BOS, which does not count): it gets the uniform one, so nll =
        entropy = log(vocabulary) and energy = -log(vocabulary).
        """
        device = self.hidden.device
        row, column, first = self._places(attention, mask)
        targets = ids.to(device)[row, column]
        out = torch.empty(3, row.shape[0], device=device)
        chunk = max(1, CHUNK_BYTES // (4 * self._vocabulary))
        for start in range(0, row.shape[0], chunk):
            part = slice(start, start + chunk)
            out[:, part] = self._chunk(self.hidden[row[part], (column[part] - 1).clamp(min=0)], targets[part])
        neutral = math.log(self._vocabulary)
        out[:, first] = torch.tensor([[neutral], [neutral], [-neutral]], device=device)
        return NextToken(*out.unbind(0))

    def foresight(self, attention: Attention, mask: TokenMask) -> Float[Tensor, "token d_last"]:
        """The last hidden state at the token before each token under `mask`, row by row; zeros where there is none."""
        row, column, first = self._places(attention, mask)
        return self.hidden[row, (column - 1).clamp(min=0)].masked_fill(first[:, None], 0)

    def _places(self, attention: Attention, mask: TokenMask) -> _Places:
        device = self.hidden.device
        where = mask.to(device) & attention.to(device).bool()
        if not torch.equal(where, mask.to(device)):
            raise ConfigError("the mask of tokens to judge covers padding; mask real tokens only")
        row, column = where.nonzero(as_tuple=True)
        return _Places(row, column, position_ids(attention.to(device))[row, column] == 0)

    def _chunk(self, hidden: Tensor, targets: Tensor) -> Tensor:
        with torch.no_grad():
            logits = self._project(hidden).float()
            total = logits.logsumexp(1)
            nll = total - logits.gather(1, targets[:, None])[:, 0]
            entropy = total - (logits - total[:, None]).exp_().mul_(logits).sum(1)
            return torch.stack([nll, entropy, -total])


def read_layers_with_logits(
    lm: LanguageModel, layers: Sequence[int], ids: TokenIds, attention: Attention
) -> dict[int, TapLogits]:
    """The outputs of several blocks and the next-token distributions, from one full forward pass. Errors: `ConfigError`."""
    found: dict[int, Tensor] = {}

    def keep(layer: int) -> _Attached:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:  # noqa: ARG001
            found[layer] = _residual_of(output)

        return _Attached(lm.blocks[_require_layer(lm, layer)], hook)

    hidden = _forward(lm, ids, attention, [keep(layer) for layer in dict.fromkeys(layers)])
    assert hidden is not None
    hidden = hidden.clone()
    return {layer: TapLogits(lm, found[layer].clone(), hidden) for layer in layers}


@final
class Tap:
    """The output of block `layer` (0-based), `blocks.L.hook_resid_post`, equal to `hidden_states[layer + 1]`.

    For the last block Hugging Face puts the final norm on that entry; the tap gives the block's own output.
    Errors: `ConfigError` for a layer that the model does not have.
    """

    def __init__(self, lm: LanguageModel, layer: int) -> None:
        self.lm = lm
        """The model that is read."""
        self.layer = _require_layer(lm, layer)
        """The block whose output is read."""

    @property
    def hook(self) -> HookName:
        """Names of the place that is read."""
        return hook_name(self.layer, self.lm.family)

    def read(self, ids: TokenIds, attention: Attention) -> Residual:
        """The block's output in the compute dtype; no later block runs."""
        return read_layers(self.lm, [self.layer], ids, attention)[self.layer]

    def read_with_logits(self, ids: TokenIds, attention: Attention) -> TapLogits:
        """The block's output and the next-token distributions, from one full forward pass."""
        return self.run_replaced(ids, attention, None)

    def run_replaced(
        self, ids: TokenIds, attention: Attention, function: Callable[[Residual], Residual] | None
    ) -> TapLogits:
        """A full pass in which `function` of the block's output takes its place (padding positions included).

        The result is cast to the compute dtype. Errors: `WidthMismatch` when `function` changes the shape.
        """
        found: list[Tensor] = []

        def hook(module: nn.Module, inputs: Any, output: Any) -> Any:  # noqa: ARG001
            residual = _residual_of(output)
            if function is None:
                found.append(residual)
                return None
            new = function(residual)
            if new.shape != residual.shape:
                _refuse_shape(self.hook.hugging_face, residual, new)
            found.append(new.to(residual.dtype))
            return _with_residual(output, found[0])

        hidden = _forward(self.lm, ids, attention, [_Attached(self.lm.blocks[self.layer], hook)])
        assert hidden is not None
        return TapLogits(self.lm, found[0].clone(), hidden.clone())

    def replace(
        self, ids: TokenIds, attention: Attention, function: Callable[[Residual], Residual]
    ) -> Float[Tensor, "batch seq vocab"]:
        """The logits of a full pass in which `function` of the block's output takes its place.

        `run_replaced` gives the same pass without holding all logits. Errors: `WidthMismatch`.
        """
        return self.run_replaced(ids, attention, function).logits()


def _refuse_shape(place: str, wanted: Tensor, came: Tensor) -> NoReturn:
    raise WidthMismatch(
        f"the replacement at {place} has shape {tuple(came.shape)}, wanted {tuple(wanted.shape)}; keep the shape"
    )
