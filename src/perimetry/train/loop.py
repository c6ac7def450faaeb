"""Training, as a table of its steps: find what is there, fit, step through the batches, save, finish."""

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from perimetry.errors import ConfigError
from perimetry.storage import lock
from perimetry.train.progress import TrainProgress
from perimetry.train.recipe import TrainConfig
from perimetry.train.run import Job, Run, TrainResult
from perimetry.train.source import AHEAD, Feed, Source, View

__all__ = ["train", "train_jobs", "train_many"]

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
    if len(configs) != len(outs):
        raise ConfigError(f"{len(configs)} configs and {len(outs)} folders; give each config a folder of its own")
    jobs = [Job(config, out, View(), model_info or {}) for config, out in zip(configs, outs, strict=True)]
    return train_jobs(jobs, source, resume=resume, progress=progress)


def train_jobs(
    jobs: Sequence[Job], source: Source, *, resume: bool = True, progress: bool = False, ahead: int = AHEAD
) -> list[TrainResult]:
    """As `train_many`, each SAE on columns of its own of the rows of `source`, with its own `SAEInfo`.

    `ahead` batches are read by another thread while the SAEs learn; the batches are the same with any number.
    """
    _require_shared(jobs)
    with contextlib.ExitStack() as stack:
        for job in jobs:
            stack.enter_context(lock(job.out))
        runs = [Run(job, resume=resume) for job in jobs]
        pending = [run for run in runs if run.result is None]
        if pending:
            feed = stack.enter_context(contextlib.closing(Feed(source, pending[0].config, ahead)))
            _begin(pending, feed)
            _step_through(pending, feed, stack.enter_context(TrainProgress(shown=progress)))
            held = feed.held_out()
            for run in pending:
                run.result = run.finish(held)
        return [run.result for run in runs if run.result is not None]


def _require_shared(jobs: Sequence[Job]) -> None:
    if not jobs or len({job.out.absolute() for job in jobs}) != len(jobs):
        raise ConfigError(
            f"{len(jobs)} SAEs to train in {len({job.out.absolute() for job in jobs})} folders; give one or more, each with a "
            "folder of its own"
        )
    for name in SHARED:
        values = {getattr(job.config, name) for job in jobs}
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
