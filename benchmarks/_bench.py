"""What the sections of a benchmark of training share: workers, data, and what had to be left out."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from _arms import ARMS, Arm, Size
from _crew import Crew, WorkerFailed
from _data import Files, write_rows
from _kept import Kept
from peers.jobs import Job

__all__ = ["Bench"]

HELD_OUT = 4096


class Bench:
    """One run of a benchmark."""

    def __init__(
        self, arguments: argparse.Namespace, crew: Crew, folder: Path, device: torch.device, kept: Kept | None = None
    ) -> None:
        self.arguments, self.crew, self.folder, self.device = arguments, crew, folder, device
        self.kept = kept or Kept(None, {})
        self.skipped: list[dict[str, Any]] = []
        self.names: set[str] = set()
        self._files: dict[tuple[int, int], Files] = {}

    @property
    def tiny(self) -> bool:
        """Whether the run only shows that the script runs."""
        return self.arguments.tiny

    def present(self, names: tuple[str, ...]) -> list[str]:
        """Those of the arms whose environment there is."""
        return [name for name in names if not ARMS[name].environment or self.crew.peers is not None]

    def files(self, size: Size, steps: int = 1) -> Files:
        """Rows for some steps; written once, so that everybody reads the same."""
        key = (size.d_model, size.batch * steps)
        if key not in self._files:
            held_out = 256 if self.tiny else HELD_OUT
            self._files[key] = write_rows(self.folder, key[1], held_out, size.d_model, self.arguments.store)
        self.names.add(self._files[key].name)
        return self._files[key]

    def part(self, measure: Callable[[], list[dict[str, Any]]], *name: object) -> list[dict[str, Any]]:
        """Rows of a part of the run, measured once even if the run is killed and started again."""
        return self.kept.part(" ".join(map(str, name)), measure, lambda: self.skipped)

    def job(self, arm: Arm, size: Size, *, rows: int = 1, **more: Any) -> Job:
        """The job of an arm, on rows for so many steps."""
        files = self.files(size, rows)
        return arm.job(size, files.data, files.held_out, device=str(self.device), **more)

    def skip(self, section: str, arm: str, size: Size, reason: str, architecture: str = "topk") -> None:
        """Write down what was left out, and why. Errors: `WorkerFailed` where it is what all else is compared with."""
        if arm == "perimetry" and section in ("speed", "training"):
            raise WorkerFailed(f"perimetry itself fails: {reason}")
        found = {"section": section, "arm": arm, "architecture": architecture, **size._asdict(), "reason": reason}
        if found not in self.skipped:
            self.skipped.append(found)
