"""Tune a model: updates, looks at guarded clean text, checkpoints, and a stop where the run diverges.

What an update reads depends on its number alone, and a checkpoint holds what learns, the moments of the optimiser and the number of
updates: a run that goes on after any stop ends with the same bits as one that was never stopped (same machine, versions and threads).
"""

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from perimetry.activations.prompts import length_batches
from perimetry.activations.twins import TwinRows
from perimetry.errors import Diverged, TooFewSamples
from perimetry.robust.adapter import Tunable
from perimetry.robust.guard import Guard, Look
from perimetry.robust.objectives import Objective, backward
from perimetry.robust.texts import order_of
from perimetry.storage import append_line, hash_json, write_bytes
from perimetry.train.checkpoint import Checkpoint, latest_checkpoint, remove_checkpoints, save_checkpoint
from perimetry.train.log import read_log

__all__ = ["LOG", "Tuned", "tune"]

LOG = "log.jsonl"
CHECKPOINTS = "checkpoints"


class Tuned(NamedTuple):
    """What a run left in the model."""

    updates: int
    """Updates done."""
    look: Look
    """The last look at the guarded text."""
    log: list[dict[str, Any]]
    """A line an update: every term, gradient norm, learning rate, and the look where there was one."""


class _Run:
    """The state of a run."""

    def __init__(self, tunable: Tunable, objective: Objective, twins: Sequence[TwinRows], folder: Path) -> None:
        self.tunable, self.objective, self.twins, self.folder = tunable, objective, twins, folder
        config = objective.config
        self.parameters = tunable.parameters()
        self.optimiser = torch.optim.AdamW(
            list(self.parameters.values()),
            lr=config.lr,
            betas=(config.beta1, config.beta2),
            weight_decay=config.weight_decay,
        )
        self.done = 0
        settings = objective.config.model_dump(mode="json")
        self.identity = hash_json([settings, [[t.clean.ids, t.corrupted.ids] for t in twins], objective.place.layer])

    def update(self) -> dict[str, Any]:
        """One update; returns its line of the log."""
        config = self.objective.config
        rate = config.lr_at(self.done)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        chosen = [self.twins[i] for i in order_of(self.done, len(self.twins), config.batch, config.seed)]
        lengths = [2 * max(len(t.clean.ids), len(t.corrupted.ids)) for t in chosen]
        terms: dict[str, float] = {}
        for members in length_batches(lengths, config.tokens):
            part = [chosen[i] for i in members]
            for name, value in backward(self.tunable, self.objective, part, len(part) / len(chosen)).items():
                terms[name] = terms.get(name, 0.0) + value
        norm = float(torch.nn.utils.clip_grad_norm_(self.parameters.values(), config.clip))
        weights = config.weights.model_dump()
        line = {"step": self.done + 1, "loss": sum(weights[name] * value for name, value in terms.items())}
        if math.isfinite(norm):
            self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        self.done += 1
        tokens = sum(len(t.corrupted.ids) for t in chosen)
        return {**line, **terms, "gradient": norm, "lr": rate, "tokens": tokens}

    def save(self) -> None:
        """A checkpoint of now."""
        tensors = {f"parameter|{name}": p.detach() for name, p in self.parameters.items()}
        for name, parameter in self.parameters.items():
            for key, value in self.optimiser.state[parameter].items():
                tensors[f"{key}|{name}"] = value
        save_checkpoint(self.folder / CHECKPOINTS, Checkpoint(self.done, tensors, {"run": self.identity}))

    def resume(self) -> bool:
        """Go back to the newest checkpoint of this run; False where there is none."""
        found = latest_checkpoint(self.folder / CHECKPOINTS)
        if found is None or found.document.get("run") != self.identity:
            return False
        parts: dict[str, dict[str, torch.Tensor]] = {}
        for key, value in found.tensors.items():
            kind, _, name = key.partition("|")
            parts.setdefault(kind, {})[name] = value
        self.tunable.load(parts.pop("parameter"))
        for name, parameter in self.parameters.items():
            self.optimiser.state[parameter] = {kind: values[name].clone() for kind, values in parts.items()}
        self.done = found.step
        return True


def tune(
    tunable: Tunable,
    objective: Objective,
    twins: Sequence[TwinRows],
    guard: Guard,
    folder: Path,
    *,
    progress: Callable[[dict[str, Any]], None] = lambda _: None,
) -> Tuned:
    """Tune on pairs of texts, with checkpoints and `log.jsonl` in `folder`; goes on where an earlier call was stopped.

    Every `check_every` updates, and at the end, the guarded text is looked at and a checkpoint kept. Errors: `TooFewSamples`
    without texts; `Diverged` where a term is not finite or the guarded text passes a limit: what learns is then that of the last
    good checkpoint, which stays in `folder`.
    """
    if not twins:
        raise TooFewSamples("no text to tune on; give some")
    run, config = _Run(tunable, objective, twins, folder), objective.config
    folder.mkdir(parents=True, exist_ok=True)
    resumed = run.resume()
    if not resumed:
        _remove(folder)
        run.save()
    log = [row for row in read_log(folder / LOG) if row["step"] <= run.done]
    write_bytes(folder / LOG, "".join(json.dumps(row, sort_keys=True) + "\n" for row in log).encode())
    look = guard.look()
    while run.done < config.updates:
        line = run.update()
        bad = [name for name, value in line.items() if isinstance(value, float) and not math.isfinite(value)]
        if bad:
            raise _diverged(run, f"update {run.done} gives {' and '.join(bad)} that is not finite", guard)
        if run.done % config.check_every == 0 or run.done == config.updates:
            look = guard.look()
            why = _too_far(objective, look)
            if why:
                raise _diverged(run, f"after update {run.done} {why}", guard)
            line |= {"guard_clean": look.clean, "guard_rise": look.rise, "guard_retain": look.retain}
        append_line(folder / LOG, line)
        log.append(line)
        progress(line)
        if "guard_clean" in line:
            run.save()
    return Tuned(run.done, look, log)


def _remove(folder: Path) -> None:
    if (folder / CHECKPOINTS).is_dir():
        remove_checkpoints(folder / CHECKPOINTS)
    (folder / LOG).unlink(missing_ok=True)


def _too_far(objective: Objective, look: Look) -> str:
    config = objective.config
    if not (math.isfinite(look.clean) and math.isfinite(look.retain)):
        return "the loss on clean text is not finite"
    if look.rise > config.clean_limit:
        return f"the loss on clean text lies {100 * look.rise:.1f} % above that of the untuned model, {100 * config.clean_limit:g} % are allowed"
    if look.retain > config.retain_limit:
        return f"clean text lies {look.retain:.3f} from where it was at the tap (share of its squared norm), {config.retain_limit:g} is allowed"
    return ""


def _diverged(run: _Run, what: str, guard: Guard) -> Diverged:
    run.resume()
    good = guard.look()
    return Diverged(
        f"{what}: the run diverged; the checkpoint of update {run.done} (clean loss {100 * good.rise:+.1f} %) is kept in "
        f"{run.folder / CHECKPOINTS}; lower lr, give `retain` a higher weight, or raise clean_limit and retain_limit",
        run.done,
    )
