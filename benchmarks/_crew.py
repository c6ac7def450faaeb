"""Worker processes, one a library, that take turns: one computes, the others wait."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from peers.environments import python_of
from peers.jobs import Job

__all__ = ["Crew", "Turns", "Worker", "WorkerFailed"]

SCRIPT = Path(__file__).resolve().parent / "peers" / "worker.py"


class WorkerFailed(RuntimeError):
    """A worker answered with an error, or went away."""


class Turns(NamedTuple):
    """What came of taking turns."""

    seconds: dict[str, list[float]]
    """Arm -> seconds of a step in each turn."""
    active: dict[str, float | None]
    """Arm -> mean active count of the last step, where it is known."""
    failed: dict[str, str]
    """Arm -> why it is not among them."""


class Worker:
    """A process that answers requests."""

    def __init__(self, python: Path, threads: int) -> None:
        quiet = os.environ | {"HF_HUB_OFFLINE": "1", "WANDB_MODE": "disabled", "TOKENIZERS_PARALLELISM": "false"}
        if python != Path(sys.executable):
            quiet.pop("PYTHONPATH", None)
        self.process = subprocess.Popen(
            [str(python), str(SCRIPT)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=quiet,
        )
        self.about = self.ask("threads", n=threads)

    def ask(self, do: str, **request: Any) -> dict[str, Any]:
        """The answer to a request. Errors: `WorkerFailed`."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps({"do": do, **request}) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError as error:
            raise WorkerFailed(f"the worker is gone (exit {self.process.wait()})") from error
        line = self.process.stdout.readline()
        if not line:
            raise WorkerFailed(f"the worker went away at {do!r} (exit {self.process.wait()}); -9 is a lack of memory")
        answer = json.loads(line)
        if "error" in answer:
            raise WorkerFailed(answer["error"])
        return answer["ok"]

    def close(self) -> None:
        """End it."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()


class Crew:
    """One process an environment, started when first needed."""

    def __init__(self, peers: Path | None, threads: int) -> None:
        self.peers, self.threads = peers, threads
        self.workers: dict[str, Worker] = {}

    def __enter__(self) -> "Crew":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for worker in self.workers.values():
            worker.close()

    def python(self, environment: str) -> Path:
        """The interpreter of an environment; of "" this one."""
        return python_of(self.peers, environment) if environment and self.peers else Path(sys.executable)

    def start(self, environment: str) -> Worker:
        """A process of its own, that the caller closes."""
        return Worker(self.python(environment), self.threads)

    def of(self, environment: str) -> Worker:
        """The process of an environment."""
        if environment not in self.workers:
            self.workers[environment] = self.start(environment)
        return self.workers[environment]

    def take_turns(self, jobs: Mapping[str, tuple[str, Job]], repeats: int) -> Turns:
        """Time a step of each arm in each turn; `jobs` is arm -> (environment, job).

        Two steps go before the clock, as they allocate what stays. An arm that fails is left out of the turns.
        """
        turns = Turns({arm: [] for arm in jobs}, {}, {})

        def ask(do: str, arm: str, **more: Any) -> dict[str, Any] | None:
            environment = jobs[arm][0]
            try:
                return self.of(environment).ask(do, arm=arm, **more) if arm not in turns.failed else None
            except WorkerFailed as error:
                turns.failed[arm] = str(error)
                return None

        for arm, (_, job) in jobs.items():
            ask("open", arm, job=job.to_json())
        for turn in range(-2, repeats):
            for arm in jobs:
                found = ask("step", arm)
                if found is not None:
                    turns.active[arm] = found["l0"]
                    turns.seconds[arm] += [found["seconds"]] if turn >= 0 else []
        for arm in jobs:
            ask("close", arm)
        self.bury()
        return turns

    def bury(self) -> None:
        """Forget processes that are gone; the next request starts new ones."""
        self.workers = {k: worker for k, worker in self.workers.items() if worker.process.poll() is None}

    def versions(self, packages: Mapping[str, Sequence[str]]) -> dict[str, str]:
        """Versions of packages by environment."""
        return {k: v for env, names in packages.items() for k, v in self.of(env).ask("versions", names=names).items()}
