"""Run a lab job by job, keep what each gave, judge, draw. Killed at any moment, the same call goes on at the next job."""

import contextlib
import datetime
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import torch

from perimetry import __version__
from perimetry.errors import UsageError
from perimetry.labs.base import AbstractLab, Job, LabConfig, Outcome, Panel
from perimetry.labs.judging import answered, judged, rows_of
from perimetry.labs.pictures import keep_panels
from perimetry.pipeline.begun import require_same
from perimetry.report import keep_results
from perimetry.runtime import fingerprint
from perimetry.storage import lock, read_json, remove_stale, write_json

__all__ = ["failed", "run_lab"]

BEGUN = "lab.json"
POINTS = 240
"""Most points of a line that results hold; the CSV beside a picture holds all."""


def run_lab(
    lab: AbstractLab,
    config: LabConfig,
    out: Path,
    *,
    workers: int = 1,
    command: str = "perimetry lab run",
    progress: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Run every job of `lab` and return what `out/results.json` holds; `out/figures` has each figure and its data.

    `workers`: processes that jobs are spread over. Each computes with one thread, so that numbers do not depend on how many there are.
    Errors: `ConfigError` when `out` holds another run, `UsageError` where matplotlib is not installed, those of the lab.
    """
    jobs = lab.jobs(config)
    with lock(out):
        remove_stale(out)
        require_same(config, out / BEGUN, f"the lab {lab.name!r}")
        pending = [job for job in jobs if not _part(out, job).is_file()]
        for done, job in enumerate(
            _finished(lab, config, pending, out, workers, progress), len(jobs) - len(pending) + 1
        ):
            say(f"{done}/{len(jobs)}  {job.arm}, seed {job.seed}")
        found = {job: Outcome.of_json(read_json(_part(out, job))) for job in jobs}
        panels = [panel for panel in lab.panels(config, found) if panel.lines]
        keep_panels(panels, out / "figures")
        return keep_results(_results(lab, config, found, panels) | {"command": command}, out)


def _part(out: Path, job: Job) -> Path:
    return out / "parts" / f"{job.arm}-{job.seed}.json"


def _finished(
    lab: AbstractLab, config: LabConfig, jobs: Sequence[Job], out: Path, workers: int, progress: bool
) -> Iterator[Job]:
    """Run jobs, and hand out each as it ends."""
    if min(workers, len(jobs)) < 2:
        for job in jobs:
            with _one_thread():
                _run(lab, config, job, out, progress=progress)
            yield job
        return
    from perimetry.labs import LABS  # late: the table is made of what is made here

    if LABS.get(lab.name) is not lab:
        raise UsageError(
            f"the lab {lab.name!r} is not in the table and cannot be run in other processes; give workers = 1"
        )
    with ProcessPoolExecutor(min(workers, len(jobs)), multiprocessing.get_context("spawn"), _alone) as pool:
        begun = {pool.submit(_elsewhere, lab.name, config, job, out): job for job in jobs}
        try:
            for future in as_completed(begun):
                future.result()
                yield begun[future]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _alone() -> None:
    torch.set_num_threads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A process whose parent was killed would go on with what waits in the queue, and then wait for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _elsewhere(name: str, config: LabConfig, job: Job, out: Path) -> None:
    from perimetry.labs import LABS  # late, as above

    _run(LABS[name], config, job, out, progress=False)


def _run(lab: AbstractLab, config: LabConfig, job: Job, out: Path, *, progress: bool) -> None:
    made = lab.run(config, job, out / "runs" / f"{job.arm}-{job.seed}", progress=progress)
    file = _part(out, job)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, made.to_json(), indent=None)


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def failed(results: Mapping[str, Any]) -> list[str]:
    """The expectations that decide and do not hold."""
    return [one["said"] for one in results["claims"] if one["decides"] and one["verdict"] == "fails"]


def _results(
    lab: AbstractLab, config: LabConfig, found: Mapping[Job, Outcome], panels: Sequence[Panel]
) -> dict[str, Any]:
    rows = rows_of(found)
    drawn = [
        panel._asdict() | {"lines": [{k: _thin(v) for k, v in line._asdict().items()} for line in panel.lines]}
        for panel in panels
    ]
    return {
        "kind": "lab",
        "lab": lab.name,
        "title": lab.title,
        "subtitle": lab.question,
        "source": lab.source._asdict(),
        "version": __version__,
        "hardware": fingerprint(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "rows": [row._asdict() for row in rows],
        "claims": judged(lab.expected, rows, config.judged),
        "asked": answered(lab.asked, rows),
        "panels": drawn,
        "configuration": config.model_dump(mode="json"),
    }


def _thin(values: Any) -> Any:
    """At most so many points, evenly by number, the last one too."""
    if isinstance(values, str) or len(values) <= POINTS:
        return values if isinstance(values, str) else list(values)
    step = (len(values) - 1) / (POINTS - 1)
    return [values[round(i * step)] for i in range(POINTS)]
