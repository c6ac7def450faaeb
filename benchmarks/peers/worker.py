"""One library in its own interpreter, driven by lines of JSON: `python worker.py`.

Each line on standard input is a request with `do`; each gives one line on the real standard output, `{"ok": ...}` or
`{"error": ...}`. Whatever a library prints goes to standard error. The clock runs around the step alone: a batch is in
memory before it starts.
"""

import ctypes
import gc
import importlib
import json
import os
import sys
import time
import traceback
from contextlib import suppress
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jobs import Job

__all__ = ["Worker", "main"]

STATUS = Path("/proc/self/status")
PEAK_RESET = Path("/proc/self/clear_refs")
WARM = {"batch": 128, "d_model": 16, "width": 64, "k": 4}


class Rows:
    """The rows of a file, batch after batch, for ever."""

    def __init__(self, job: Job) -> None:
        self.job, self.next = job, 0
        mapped = np.load(job.data, mmap_mode="r")
        self.n, self.offset = len(mapped), mapped.offset

    def take(self) -> torch.Tensor:
        """The next batch, copied into memory."""
        n, d, first = self.job.batch, self.job.d_model, self.next
        self.next = first + n if first + 2 * n <= self.n else 0
        # Read, not mapped: pages of a map would count as memory of the step.
        values = np.fromfile(self.job.data, dtype=np.float32, count=n * d, offset=self.offset + first * d * 4)
        return torch.from_numpy(values.reshape(n, d)).to(self.job.device)


def memory_kib(field: str) -> int:
    """A field of the process's status, in KiB."""
    line = next(x for x in STATUS.read_text().splitlines() if x.startswith(field))
    return int(line.split()[1])


def give_back() -> None:
    """Free what the allocator still holds of making the weights, where it is that of glibc: it is no part of a step."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def make(job: Job, sample: torch.Tensor) -> Any:
    """The arm of a job, ready to step."""
    return importlib.import_module(f"arm_{job.library}").Arm(job, sample)


class Worker:
    """What the process holds between requests."""

    def __init__(self) -> None:
        self.arms: dict[str, Any] = {}
        self.rows: dict[str, Rows] = {}
        self.batch: dict[str, torch.Tensor] = {}

    def threads(self, n: int) -> dict[str, Any]:
        """Set the threads; say what computes here."""
        torch.set_num_threads(n)
        return {"torch": torch.__version__, "threads": torch.get_num_threads()}

    def versions(self, names: list[str]) -> dict[str, str]:
        """Of installed packages."""
        return {name: version(name) for name in names}

    def open(self, arm: str, job: dict[str, Any]) -> dict[str, Any]:
        """Make an arm; it has not stepped yet."""
        wanted = Job.of_json(job)
        self.rows[arm] = Rows(wanted)
        self.batch[arm] = self.rows[arm].take()
        self.arms[arm] = make(wanted, self.batch[arm])
        return {}

    def close(self, arm: str) -> dict[str, Any]:
        """Forget an arm and give its memory back."""
        for held in (self.arms, self.rows, self.batch):
            held.pop(arm, None)
        gc.collect()
        return {}

    def step(self, arm: str) -> dict[str, Any]:
        """Seconds of one step on the first batch, and the mean active count where the arm has one."""
        one, batch = self.arms[arm], self.batch[arm]
        began = time.perf_counter()
        l0 = one.step(batch)
        self._wait(batch)
        return {"seconds": time.perf_counter() - began, "l0": l0}

    def train(self, arm: str, steps: int) -> dict[str, Any]:
        """Seconds of some more steps, each on new rows; then the FVU on the rows that are held out."""
        one, rows, seconds = self.arms[arm], self.rows[arm], 0.0
        for _ in range(steps):
            batch = rows.take()
            began = time.perf_counter()
            one.step(batch)
            self._wait(batch)
            seconds += time.perf_counter() - began
        return {"seconds": seconds, "fvu": self._fvu(one, rows.job)}

    def open_reader(self, arm: str, library: str, job: dict[str, Any]) -> dict[str, Any]:
        """Make what reads activations of texts: `read_<library>.py`."""
        self.arms[arm] = importlib.import_module(f"read_{library}").Reader(job)
        return {}

    def read(self, arm: str) -> dict[str, Any]:
        """Seconds of one reading, and how many tokens it gave."""
        began = time.perf_counter()
        tokens = self.arms[arm].read()
        return {"seconds": time.perf_counter() - began, "tokens": tokens}

    def memory(self, job: dict[str, Any]) -> dict[str, Any]:
        """Peak bytes of a step beyond the libraries, in a process that did nothing else.

        A small SAE of the same kind goes first, so that what is loaded and set up once is in the baseline.
        """
        wanted = Job.of_json(job)
        small = replace(wanted, **WARM)
        few = torch.randn(small.batch, small.d_model, generator=torch.Generator().manual_seed(0)).to(wanted.device)
        first = make(small, few)
        first.step(few)
        first.step(few)
        del first
        gc.collect()
        give_back()
        on_cpu = torch.device(wanted.device).type == "cpu"
        before = memory_kib("VmRSS") * 1024 if on_cpu else torch.cuda.memory_allocated(wanted.device)
        batch = Rows(wanted).take()
        one = make(wanted, batch)
        one.step(batch)
        gc.collect()
        give_back()
        method = self._reset_peak(wanted.device)
        one.step(batch)
        one.step(batch)
        self._wait(batch)
        peak = memory_kib("VmHWM") * 1024 if on_cpu else torch.cuda.max_memory_allocated(wanted.device)
        return {"peak_bytes": peak - before, "parameter_bytes": one.parameter_bytes(), "method": method}

    @staticmethod
    def _reset_peak(device: str) -> str:
        if torch.device(device).type != "cpu":
            torch.cuda.reset_peak_memory_stats(device)
            return "largest allocation of two steps over that before the SAE was made"
        with suppress(OSError):
            PEAK_RESET.write_text("5")
            return "largest resident size of two steps over that before the SAE was made"
        return "largest resident size of making the SAE and two steps over that before"

    @staticmethod
    def _wait(batch: torch.Tensor) -> None:
        if batch.device.type == "cuda":
            torch.cuda.synchronize(batch.device)

    @staticmethod
    @torch.no_grad()
    def _fvu(one: Any, job: Job) -> float:
        rows = torch.from_numpy(np.load(job.held_out)).to(job.device)
        left = sum(float((x - one.reconstruct(x)).double().square().sum()) for x in rows.split(job.batch))
        return left / float((rows - rows.mean(0)).double().square().sum())


def main() -> None:
    """Answer requests until the input ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    worker = Worker()
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = {"ok": getattr(worker, request.pop("do"))(**request)}
        except Exception as error:
            at = traceback.extract_tb(error.__traceback__)[-1]
            first = str(error).partition("\n")[0].partition(". ")[0][:160]
            answer = {"error": f"{type(error).__name__} at {Path(at.filename).name}:{at.lineno}: {first}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
