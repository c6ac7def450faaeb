"""Tasks of the lm-evaluation-harness, put to a model that is loaded already: where a hub is reachable, or on tasks of one's own.

The harness is the extra `harness`. A task's documents become units, so that its accuracy is compared pair by pair like everything else.
"""

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from perimetry.activations.model import LanguageModel
from perimetry.errors import UsageError
from perimetry.evals.sae.units import Cell, Units, means

__all__ = ["harness_units", "require_harness"]


def require_harness() -> Any:
    """The module `lm_eval`. Errors: `UsageError` where it is not installed."""
    try:
        # By name: what is not installed for development cannot be resolved by a type checker.
        found = import_module("lm_eval")
        for part in ("models.huggingface", "tasks"):
            import_module(f"lm_eval.{part}")
    except ImportError as error:
        raise UsageError(
            f"tasks of the lm-evaluation-harness want lm-eval, which cannot be imported ({error}); pip install 'perimetry[harness]'"
        ) from error
    return found


def harness_units(
    lm: LanguageModel,
    arm: str,
    tasks: Sequence[str],
    *,
    limit: int | None = None,
    folder: Path | None = None,
    batch: int = 8,
) -> list[Units]:
    """Accuracy on each task, a unit a document; `limit`: the first so many. `folder` holds tasks of one's own (YAML).

    Errors: `UsageError` where the harness is missing, does not know a task, or a task has no accuracy.
    """
    lm_eval = require_harness()
    manager = lm_eval.tasks.TaskManager(include_path=None if folder is None else str(folder))
    unknown = [task for task in tasks if task not in manager.all_tasks]
    if unknown:
        raise UsageError(
            f"the harness has no task {unknown[0]!r}; `lm_eval ls tasks` lists them, or give the folder of your own"
        )
    model = lm_eval.models.huggingface.HFLM(pretrained=lm.model, tokenizer=lm.tokenizer, batch_size=batch)
    with lm.lock, torch.no_grad():
        made: Any = lm_eval.simple_evaluate(
            model=model, tasks=list(tasks), limit=limit, task_manager=manager, log_samples=True, bootstrap_iters=0
        )
    found: list[Units] = []
    for task, samples in made["samples"].items():
        if not samples or "acc" not in samples[0]:
            raise UsageError(f"the task {task!r} has no accuracy `acc`; choose one of multiple choice")
        right = torch.tensor([float(sample["acc"]) for sample in samples], dtype=torch.float64)
        found.append(means(Cell("harness", case=str(task), arm=arm), [str(s["doc_id"]) for s in samples], right))
    return found
