"""The hooks of a watch: what the tapped block gave at each forward pass of a generation, kept on the device, and counted."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, final

import torch
from torch import Tensor, nn

from perimetry.activations.tap import Tap
from perimetry.axes import Residual, TokenIds
from perimetry.errors import ConfigError, UsageError
from perimetry.shift.watch_rules import refuse_compiled

__all__ = ["Columns", "Recorder", "join_columns"]


class Columns(NamedTuple):
    """Some tokens of every row, side by side, on the device."""

    ids: TokenIds
    """The tokens that the model read."""
    residual: Residual
    """What the tapped block gave for them."""
    hidden: Residual | None
    """The last hidden state, after the final norm; None where no score reads it."""

    @property
    def width(self) -> int:
        """Tokens of a row."""
        return self.ids.shape[1]

    def last(self, n: int) -> "Columns":
        """Copies of the last `n`, so that the others can be freed."""
        hidden = None if self.hidden is None else self.hidden[:, -n:].clone()
        return Columns(self.ids[:, -n:].clone(), self.residual[:, -n:].clone(), hidden)


def join_columns(parts: Sequence[Columns]) -> Columns:
    """One after the other."""
    if len(parts) == 1:
        return parts[0]
    hidden = [part.hidden for part in parts if part.hidden is not None]
    return Columns(
        torch.cat([part.ids for part in parts], 1),
        torch.cat([part.residual for part in parts], 1),
        torch.cat(hidden, 1) if hidden else None,
    )


def _first(output: Any) -> Tensor:
    return output if isinstance(output, Tensor) else output[0]


@final
class Recorder:
    """Sees every forward pass of a model while it is attached, in the thread that generates.

    The block and the model around it are counted apart: where one of them did not run, or ran twice, there is an error and
    no score.
    """

    def __init__(self, tap: Tap, *, hidden: bool) -> None:
        self.tap = tap
        self.seen = 0
        """Tokens of a row that were taken."""
        self._hidden = hidden
        self._residuals: list[Tensor] = []
        self._passes: list[Columns] = []

    @contextlib.contextmanager
    def attached(self) -> Iterator[None]:
        """Hook the tapped block and the model; both hooks go at the end."""
        base: Any = self.tap.lm.model.base_model
        handles = [
            self.tap.lm.blocks[self.tap.layer].register_forward_hook(self._after_block),
            base.register_forward_hook(self._after_model, with_kwargs=True),
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _after_block(self, module: nn.Module, inputs: Any, output: Any) -> None:  # noqa: ARG002
        residual = _first(output)
        if torch.compiler.is_compiling() or (residual.is_cuda and torch.cuda.is_current_stream_capturing()):
            refuse_compiled()
        self._residuals.append(residual.detach())

    def _after_model(self, module: nn.Module, inputs: Any, named: dict[str, Any], output: Any) -> None:  # noqa: ARG002
        found, self._residuals = self._residuals, []
        if len(found) != 1:
            raise UsageError(
                f"the hook on {self.tap.hook.hugging_face} ran {len(found)} times in one forward pass, wanted once; nothing was "
                "scored; is a part of the model compiled or replaced?"
            )
        ids = named.get("input_ids", inputs[0] if inputs else None)
        if not isinstance(ids, Tensor):
            raise ConfigError("the model was run on vectors in the place of tokens; wanted token ids")
        self._passes.append(Columns(ids, found[0], _first(output).detach() if self._hidden else None))

    def take(self, length: int) -> Columns:
        """The tokens of the passes since the last call, of which there must be `length` - `seen`: the last token of a row of
        `length` + 1 has not been read yet. Errors: `UsageError` where the hooks did not run, or over other tokens."""
        new, found = length - self.seen, self._passes
        self._passes = []
        widths = [part.width for part in found]
        if not found:
            raise UsageError(
                f"the model gave {new} more token(s) and the hook on {self.tap.hook.hugging_face} did not run; nothing was "
                "scored; is the forward pass compiled, or another model generating?"
            )
        self.seen = length
        if sum(widths) == new:
            return join_columns(found)
        if widths == [length]:
            # Without a cache all tokens are read again at each step.
            return found[0].last(new)
        raise UsageError(
            f"the model read {' + '.join(map(str, widths))} tokens where {new} were wanted; only one pass a step over the new "
            "tokens can be watched, as in plain greedy search or sampling"
        )
