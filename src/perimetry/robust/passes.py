"""Forward passes with a graph: the output of the tap, and the last hidden state where a term reads it."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from perimetry.activations.model import LanguageModel
from perimetry.activations.policy import TokenPolicy
from perimetry.activations.prompts import collate, position_ids, scorable
from perimetry.activations.twins import Row
from perimetry.axes import Residual

__all__ = ["Found", "head", "run"]


class Found(NamedTuple):
    """What a pass gave, with a graph where gradients are on."""

    residual: Residual
    """Output of the tap."""
    hidden: Residual | None
    """Last hidden state after the final norm; None where the pass stopped at the tap."""
    counts: Bool[Tensor, "batch seq"]
    """Positions that the token policy lets count."""


class _Stop(Exception):
    """Leaves the forward pass; never leaves this module."""


def run(lm: LanguageModel, rows: Sequence[Row], layer: int, policy: TokenPolicy, *, to_the_end: bool) -> Found:
    """Run the model over rows, padded on the right, up to the tap or to the end."""
    batch = collate(rows, lm.pad_id)
    ids, attention = batch.ids.to(lm.device), batch.attention.to(lm.device)
    found: list[Tensor] = []

    def hook(module: nn.Module, inputs: Any, output: Any) -> None:  # noqa: ARG001
        found.append(output[0] if isinstance(output, tuple) else output)
        if not to_the_end:
            raise _Stop

    hidden = None
    with lm.lock:
        handle = lm.blocks[layer].register_forward_hook(hook)
        try:
            hidden = lm.model.base_model(
                input_ids=ids, attention_mask=attention, position_ids=position_ids(attention), use_cache=False
            ).last_hidden_state
        except _Stop:
            pass
        finally:
            handle.remove()
    return Found(found[0], hidden, scorable(found[0].detach(), batch.countable, policy).to(found[0].device))


def head(lm: LanguageModel, hidden: Float[Tensor, "n d_last"]) -> Float[Tensor, "n vocab"]:
    """Log-probabilities of the next token with a graph, float32; give the states of one text at a time."""
    output: Any = lm.model.get_output_embeddings()
    logits = output(hidden).float()
    cap: float | None = getattr(lm.model.config, "final_logit_softcapping", None)
    return (logits if cap is None else torch.tanh(logits / cap) * cap).log_softmax(1)
