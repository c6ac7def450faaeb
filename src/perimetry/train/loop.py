"""Training, as a table of its steps: find what is there, fit, step through the batches, save, finish."""

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from perimetry.errors import ConfigError
from perimetry.storage import lock
from perimetry.train.progress import TrainProgress
from perimetry.train.recipe import TrainConfig
from perimetry.train.run import Run, TrainResult
from perimetry.train.source import Feed, Source

__all__ = ["train", "train_many"]

SHARED = ("batch", "data_seed", "fit_tokens", "paired", "threshold_tokens", "tokens")


def train(
    config: TrainConfig,
    source: Source,
    out: Path,
    *,
    resume: bool = True,
    progress: bool = False,
    model_info: Mapping[str, Any] | None = None,
) -> TrainResult:
    """Train one SAE on `source` and write it to `out/sae`.

    Killed at any moment, the same call continues from the last checkpoint and ends with the same bytes as an
    uninterrupted one with as many threads. A finished training is returned as it is. `model_info` are fields of
    `SAEInfo` that say what the activations are: model, revision, layer, policy, dtype ...

    Errors: `ConfigError` (what lies in `out` has another config, model or data), `NonFinite`, `TooFewSamples` (the
    source ended early), `StorageFull`, `Locked`.
    """
    return train_many([config], source, [out], resume=resume, progress=progress, model_info=model_info)[0]


def train_many(
    configs: Sequence[TrainConfig],
    source: Source,
    outs: Sequence[Path],
    *,
    resume: bool = True,
    progress: bool = False,
    model_info: Mapping[str, Any] | None = None,
) -> list[TrainResult]:
    """Train several SAEs on the same batches, which are read once; each ends as if it had been trained alone.

    The configs must agree on what decides the batches and their number. Errors: as `train`.
    """
    _require_shared(configs, outs)
    with contextlib.ExitStack() as stack:
        for out in outs:
            stack.enter_context(lock(out))
        runs = [Run(c, out, model_info or {}, resume=resume) for c, out in zip(configs, outs, strict=True)]
        pending = [run for run in runs if run.result is None]
        if pending:
            feed = stack.enter_context(contextlib.closing(Feed(source, pending[0].config)))
            _begin(pending, feed)
            _step_through(pending, feed, stack.enter_context(TrainProgress(shown=progress)))
            held = feed.held_out()
            for run in pending:
                run.result = run.finish(held)
        return [run.result for run in runs if run.result is not None]


def _require_shared(configs: Sequence[TrainConfig], outs: Sequence[Path]) -> None:
    if not configs or len(configs) != len(outs) or len({out.absolute() for out in outs}) != len(outs):
        raise ConfigError(
            f"{len(configs)} configs and {len(outs)} folders; give one or more configs, each with a folder of its own"
        )
    for name in SHARED:
        values = {getattr(config, name) for config in configs}
        if len(values) > 1:
            raise ConfigError(
                f"SAEs that are trained on the same batches need the same {name}, these have {sorted(values)}; train "
                "them one after the other"
            )


def _begin(runs: list[Run], feed: Feed) -> None:
    checkpoints = [run.find_checkpoint() for run in runs]
    known = [c for c in checkpoints if c is not None]
    feed.restore(max(known, key=lambda c: c.step).document["source"] if known else None)
    for run, checkpoint in zip(runs, checkpoints, strict=True):
        if checkpoint is None:
            run.begin(feed.sample())
        else:
            run.resume(checkpoint)
    for run in runs:
        run.require_data(feed.first())


def _step_through(runs: list[Run], feed: Feed, bars: TrainProgress) -> None:
    steps = runs[0].config.steps
    for run in runs:
        bars.begin(run.out.name, steps, run.step)
    for step in range(min(run.step for run in runs), steps):
        acts = feed.take(step)
        for run in runs:
            # A run that was checkpointed later than another waits for it; it has seen this batch already.
            if run.step == step:
                bars.step(run.out.name, run.advance(acts))
                if run.checkpoint_due():
                    run.save(feed.state())
