"""The training log: one JSON object a line, steps strictly rising, whatever was killed and resumed in between."""

import json
import time
from pathlib import Path
from typing import Any

from perimetry.sae.steps.base import StepResult
from perimetry.storage import append_line, write_bytes
from perimetry.train.trainer import Trainer

__all__ = ["TrainLog", "read_log"]


def read_log(path: Path) -> list[dict[str, Any]]:
    """The lines of a log; a torn last line is left out."""
    rows: list[dict[str, Any]] = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows


class TrainLog:
    """Writes a line every so many steps. `start` removes what an earlier run wrote after its last checkpoint."""

    def __init__(self, path: Path, every: int) -> None:
        self.path, self.every = path, every
        self.since, self.tokens_then = time.monotonic(), 0

    def start(self, step: int) -> None:
        """Keep only the lines of the first `step` steps."""
        kept = [row for row in read_log(self.path) if row["step"] <= step]
        text = "".join(json.dumps(row, sort_keys=True) + "\n" for row in kept)
        write_bytes(self.path, text.encode())
        self.since = time.monotonic()
        self.tokens_then = -1

    def add(self, trainer: Trainer, result: StepResult) -> dict[str, Any] | None:
        """Write the line of the step that `trainer` has just made, where one is due; returns it then."""
        if trainer.step % self.every and trainer.step != trainer.config.steps:
            return None
        now, before = time.monotonic(), self.tokens_then
        seen = trainer.tokens - before if before >= 0 else self.every * trainer.config.batch
        row = {
            "step": trainer.step,
            "tokens": trainer.tokens,
            "loss": result.loss,
            "reconstruction": result.reconstruction,
            "sparsity": result.sparsity,
            "aux": result.aux,
            "further": result.further,
            "fvu": result.fvu,
            "l0": result.l0,
            "dead": float(trainer.dead().double().mean()),
            "lr": trainer.config.lr_at(trainer.step - 1),
            "threshold": trainer.threshold,
            "audited_rows": trainer.audited.rows,
            "missed_entries": trainer.audited.missed,
            "tokens_per_s": seen / max(1e-9, now - self.since),
        }
        if trainer.interpolation is not None:
            row |= {"causal": float(trainer.interpolation.error), "causal_relative": trainer.interpolation.relative}
        self.since, self.tokens_then = now, trainer.tokens
        append_line(self.path, row)
        return row
