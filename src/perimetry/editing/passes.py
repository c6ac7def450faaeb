"""Forward passes that editors need: keys and values at a token, and the model's answers with something added at a token."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from perimetry.activations.model import LanguageModel
from perimetry.activations.prompts import HasTokens, collate, position_ids
from perimetry.axes import PerPrompt, Residual
from perimetry.editing.places import projection
from perimetry.editing.requests import KeyedRow
from perimetry.editing.values import Terms

__all__ = [
    "KeyValues",
    "Run",
    "Writing",
    "answer_logs",
    "block_values",
    "hooked_pass",
    "read_keys",
    "target_objective",
]

Hook = Callable[[nn.Module, Any, Any], Any]


class _Stop(Exception):
    """Leaves the forward pass; never leaves this module."""


class Run(NamedTuple):
    """One forward pass."""

    hidden: Residual | None
    """Last hidden state after the final norm; None where the pass was stopped."""
    ids: Int[Tensor, "batch seq"]
    """Tokens, padded on the right."""


def hooked_pass(
    lm: LanguageModel,
    rows: Sequence[HasTokens],
    hooks: Sequence[tuple[nn.Module, Hook]],
    *,
    stop: nn.Module | None = None,
) -> Run:
    """Run rows, padded on the right, with forward hooks, to the end or until `stop` has run; gradients as they are switched."""
    batch = collate(rows, lm.pad_id)
    ids, attention = batch.ids.to(lm.device), batch.attention.to(lm.device)
    hidden: Residual | None = None
    with lm.lock, _attached(hooks, stop), suppress(_Stop):
        hidden = lm.model.base_model(
            input_ids=ids, attention_mask=attention, position_ids=position_ids(attention), use_cache=False
        ).last_hidden_state
    return Run(hidden, ids)


@contextmanager
def _attached(hooks: Sequence[tuple[nn.Module, Hook]], stop: nn.Module | None) -> Iterator[None]:
    def leave(module: nn.Module, inputs: Any, output: Any) -> None:  # noqa: ARG001
        raise _Stop

    every = [*hooks, *([(stop, leave)] if stop is not None else [])]
    handles = [module.register_forward_hook(hook) for module, hook in every]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _first(output: Any) -> Tensor:
    return output[0] if isinstance(output, tuple) else output


class KeyValues(NamedTuple):
    """What the projection of one block reads and gives at the key token of each row, in float64 on the CPU."""

    keys: Float[Tensor, "row key"]
    """Its input."""
    values: Float[Tensor, "row value"]
    """Its output, the bias included."""


@torch.no_grad()
def read_keys(lm: LanguageModel, layers: Sequence[int], rows: Sequence[KeyedRow]) -> dict[int, KeyValues]:
    """Keys and values of several blocks from one forward pass that stops after the last of them."""
    found: dict[int, KeyValues] = {}
    at = torch.tensor([row.key for row in rows])
    which = torch.arange(len(rows))

    def keep(layer: int) -> Hook:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:  # noqa: ARG001
            key, value = (x[which, at].double().cpu() for x in (inputs[0], _first(output)))
            found[layer] = KeyValues(key, value)

        return hook

    places = [projection(lm, layer) for layer in layers]
    hooked_pass(lm, rows, [(p.module, keep(p.layer)) for p in places], stop=lm.blocks[max(layers)])
    return found


@torch.no_grad()
def block_values(lm: LanguageModel, layer: int, rows: Sequence[KeyedRow]) -> Float[Tensor, "row value"]:
    """Output of a block at the key token of each row, in float64 on the CPU."""
    found: list[Tensor] = []
    at = torch.tensor([row.key for row in rows])

    def hook(module: nn.Module, inputs: Any, output: Any) -> None:  # noqa: ARG001
        found.append(_first(output)[torch.arange(len(rows)), at].double().cpu())

    hooked_pass(lm, rows, [(lm.blocks[layer], hook)], stop=lm.blocks[layer])
    return found[0]


def _logs(lm: LanguageModel, hidden: Float[Tensor, "n d_last"]) -> Float[Tensor, "n vocab"]:
    head: Any = lm.model.get_output_embeddings()
    logits = head(hidden).float()
    cap: float | None = getattr(lm.model.config, "final_logit_softcapping", None)
    return (logits if cap is None else torch.tanh(logits / cap) * cap).log_softmax(1)


def _answers(lm: LanguageModel, run: Run, rows: Sequence[KeyedRow]) -> Float[Tensor, " answer_token"]:
    """Log-probability of each answer token, row by row."""
    assert run.hidden is not None
    row, column = _answer_places(rows)
    logs = _logs(lm, run.hidden[row, column - 1])
    return logs.gather(1, run.ids[row, column][:, None])[:, 0]


def _answer_places(rows: Sequence[KeyedRow]) -> tuple[Int[Tensor, " n"], Int[Tensor, " n"]]:
    places = [(i, c) for i, r in enumerate(rows) for c in range(len(r.ids) - r.answer, len(r.ids))]
    row, column = torch.tensor(places).unbind(1)
    return row, column


@torch.no_grad()
def answer_logs(lm: LanguageModel, rows: Sequence[KeyedRow], *, batch: int = 16) -> PerPrompt:
    """Log-probability of the whole answer of each row, in nats."""
    out: list[Tensor] = []
    for start in range(0, len(rows), batch):
        part = rows[start : start + batch]
        logs = _answers(lm, hooked_pass(lm, part, ()), part).float().cpu()
        out.append(torch.zeros(len(part)).index_add(0, _answer_places(part)[0], logs))
    return torch.cat(out)


class Writing(NamedTuple):
    """What the search for a value runs on."""

    told: list[KeyedRow]
    """Rows that end in the new answer."""
    neutral: KeyedRow
    """The row whose continuation is to stay."""
    module: nn.Module
    """Whose output something is added to, at the key token."""


def target_objective(lm: LanguageModel, writing: Writing) -> Callable[[Float[Tensor, " value"]], Terms]:
    """Minus the mean log-probability an answer token, mean over rows, and KL(before || after) on the neutral row (Meng et al. 2022).

    What it is given is added to the output of the module at the key token of every row.
    """
    rows = [*writing.told, writing.neutral]
    at, which = torch.tensor([row.key for row in rows]), torch.arange(len(rows))
    owner, _ = _answer_places(writing.told)
    share = torch.tensor([1 / (len(writing.told) * row.answer) for row in writing.told])[owner].to(lm.device)
    end = len(writing.neutral.ids) - 1
    before: list[Tensor] = []

    def objective(delta: Float[Tensor, " value"]) -> Terms:
        def add(module: nn.Module, inputs: Any, output: Any) -> Any:  # noqa: ARG001
            old = _first(output)
            new = old.index_put((which, at), old[which, at] + delta.to(old.dtype))
            return (new, *output[1:]) if isinstance(output, tuple) else new

        run = hooked_pass(lm, rows, [(writing.module, add)])
        assert run.hidden is not None
        after = _logs(lm, run.hidden[-1:, end])[0]
        if not before:
            before.append(after.detach())
        nll = -(_answers(lm, run, writing.told) * share).sum()
        return Terms(nll, (before[0].exp() * (before[0] - after)).sum())

    return objective
