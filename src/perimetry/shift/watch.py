"""Scores while transformers generates: a hook on the tapped block, a stopping criterion that counts its calls, no other change.

    with perimetry.watch(model, "runs/demo/meter", on_flag="stop") as w:
        out = model.generate(**inputs, max_new_tokens=200, stopping_criteria=[w])
    for row in w.rows:
        print(row.prompt.p_value, row.running_score, row.stopped)

Activations are kept on the device and brought over once in `every` tokens; then the meter scores them as it scores prompts.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, final

from jaxtyping import Bool
from torch import Tensor
from transformers import PreTrainedModel, StoppingCriteria

from perimetry.activations.model import LanguageModel
from perimetry.axes import TokenIds
from perimetry.errors import ConfigError, UsageError
from perimetry.shift.meter import Meter
from perimetry.shift.responses import ResponseCalibration
from perimetry.shift.watch_model import meter_of
from perimetry.shift.watch_rows import WatchedRow
from perimetry.shift.watch_rules import eager_only, replaced, understand
from perimetry.shift.watch_session import OnFlag, Session, Watching

__all__ = ["Watch", "watch"]


@final
class Watch(StoppingCriteria):
    """The stopping criterion that `watch` gives; good for any number of calls of `generate`, one at a time."""

    def __init__(self, watching: Watching) -> None:
        self._watching = watching
        self._session: Session | None = None
        self._rows: tuple[WatchedRow, ...] = ()

    @property
    def meter(self) -> Meter:
        """The meter that scores."""
        return self._watching.meter

    @property
    def rows(self) -> tuple[WatchedRow, ...]:
        """One row a response of the last call, as far as it is scored; all of it when `generate` has returned. After an error:
        what was scored before it."""
        return self._rows if self._session is None else self._session.rows

    def __call__(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        input_ids: TokenIds,
        scores: Any,  # noqa: ARG002
        **kwargs: Any,  # noqa: ARG002
    ) -> Bool[Tensor, " batch"]:
        """Which rows shall stop. Called by `generate` after each token. Errors: `UsageError` and those of `watch`."""
        if self._session is None:
            raise UsageError(
                "the watch was asked to judge a generation that it does not see; call generate of the watched model, inside the "
                "with block"
            )
        return self._session.step(input_ids)

    @contextlib.contextmanager
    def attached(self) -> Iterator[None]:
        """Watch every call of the model's `generate`."""
        model: Any = self.meter.lm.model
        generate = model.generate

        @functools.wraps(generate)
        def watched(*args: Any, **named: Any) -> Any:
            return self._generate(generate, args, named)

        with replaced(model, "generate", watched):
            yield

    def _generate(self, generate: Callable[..., Any], args: tuple[Any, ...], named: dict[str, Any]) -> Any:
        lm = self.meter.lm
        if self._session is not None:
            raise UsageError("generate was called while the watch follows another call; wanted one at a time")
        call = understand(lm.model, generate, args, named)
        if not any(criterion is self for criterion in call.arguments.get("stopping_criteria") or ()):
            raise ConfigError(
                "generate was called without the watch, which then cannot count; pass stopping_criteria=[w], w being what "
                "`with watch(...) as w` gives"
            )
        # The lock keeps the taps of other threads, which stop the forward pass, away from this one.
        with lm.lock:
            self._session = session = Session(self._watching, call)
            try:
                with eager_only(lm.model), session.recorder.attached():
                    out = generate(**call.arguments)
                sequences = out if isinstance(out, Tensor) else out.sequences
                session.finish(sequences.shape[1])
            finally:
                self._rows, self._session = session.rows, None
        return out


@contextlib.contextmanager
def watch(
    model: LanguageModel | PreTrainedModel,
    meter: Meter | Path | str,
    *,
    every: int = 32,
    on_flag: OnFlag = "record",
    alpha: float = 0.05,
    responses: ResponseCalibration | Path | str | None = None,
) -> Iterator[Watch]:
    """Score what a model reads and writes while its `generate` runs, token by token, and stop rows that are flagged if asked to.

    `meter` is a `Meter` that reads this model, or the folder of one: the model must be of the same revision and dtype. Prompts must
    be made as its token policy says, with padding on the left. A row is flagged where the p-value of its prompt is at most
    `alpha`; with `responses`, a calibration on clean responses of the same sampling, also where that of its response is, so that
    the two together raise at most 2 `alpha` false alarms. Without it a response has raw running scores and no p-value. Scores come
    once in `every` tokens, so that a flagged row stops up to so many tokens late (prompts are judged after the first token).
    `on_flag="stop"` ends the flagged rows and leaves the others alone; transformers then fills them with padding, provided that
    an end-of-text token is set.

    Sampled tokens are those of a call without the watch. While `generate` runs, other threads that score with the same model wait.
    Errors, at once or from within `generate`: `ConfigError` for beams,
    assisted decoding, compiled forward passes and others that are no plain continuation; `UsageError` where the hook did not
    run once a step; `PolicyMismatch`, `PromptTooLong`, `NoScorableToken`, `NonFinite` for prompts; those of `load_meter`;
    `Incompatible` for responses of another meter or sampling.
    """
    if every < 1:
        raise ConfigError(f"every {every} tokens is no rhythm; wanted at least 1, such as 32")
    if not 0 < alpha < 1:
        raise ConfigError(f"the false-alarm rate {alpha} is outside (0, 1); wanted one such as 0.05")
    if on_flag not in ("record", "stop"):
        raise ConfigError(f"on_flag is {on_flag!r}; wanted 'record' or 'stop'")
    if responses is not None and not isinstance(responses, ResponseCalibration):
        responses = ResponseCalibration.load(Path(responses))
    w = Watch(Watching(meter_of(model, meter), every, on_flag, alpha, responses))
    with w.attached():
        yield w
