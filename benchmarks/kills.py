"""Whether a training that is killed with signal 9 goes on and ends with the bytes of an uninterrupted one.

Each of several short trainings (see `_victims.py`) runs once to its end. Then the same trainings are started and killed again
and again, as processes of their own: at a random moment of the whole run, or as soon as a checkpoint or the SAE is
being written and a random part of that later. Some resumptions are killed too. When a training has come to its end,
every file of it but the log, which holds times, must hash as those of the uninterrupted run, the log must have the
same steps, and nothing may lie around. Where a kill hit is read off the folder, not off the aim.

The processes are forked from this one, which has imported everything and never starts a thread: a start takes no
time, and a kill hits the training, not an import. Everything is computed by one thread.
"""

import argparse
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from _common import Spread, finish, row
from _victims import VICTIMS, Ground, Victim
from perimetry.measures.stats import wilson
from perimetry.storage import hash_file
from perimetry.train.log import read_log

__all__ = ["AIMS", "PHASES", "Hit", "Snapshot", "State", "main", "phase_of"]

AIMS = {"anywhere": 0.6, "save": 0.25, "end": 0.15}
"""Aim -> share of the kills: the whole run, a checkpoint's write, what comes after the last checkpoint."""
AGAIN = 0.4
"""How likely a resumption is killed too."""
PHASES = (
    *("before the first checkpoint", "in a save", "between checkpoints"),
    *("after the last checkpoint", "in the final write", "after the final write"),
)
POLL_S = 0.0002
PATIENCE_S = 300.0
ENOUGH = 10
"""Trainings that went wrong, after which nothing is learned from more."""
KEPT = ".lock"
LOG = "log.jsonl"


class Hung(Exception):
    """A process that did not come to its end."""


class State(NamedTuple):
    """What the folder of one SAE shows while it is trained."""

    saving: frozenset[str]
    """Temporary folders of checkpoints."""
    torn: frozenset[str]
    """Checkpoints whose removal has begun."""
    steps: tuple[int, ...]
    """Steps of the checkpoints that are there."""
    writing: frozenset[str]
    """Temporary folders of the SAE."""
    written: bool
    """Whether the SAE is there."""

    @classmethod
    def of(cls, out: Path) -> "State":
        """Look."""
        root = out / "checkpoints"
        entries = names(root)
        steps = [name for name in entries if name.startswith("step-")]
        whole = [name for name in steps if (root / name / "manifest.json").is_file()]
        return cls(
            frozenset(name for name in entries if name.startswith(".tmp-")),
            frozenset(steps) - frozenset(whole),
            tuple(sorted(int(name.removeprefix("step-")) for name in whole)),
            frozenset(name for name in names(out) if name.startswith(".tmp-sae.")),
            (out / "sae" / "manifest.json").is_file(),
        )


def names(folder: Path) -> list[str]:
    """What lies in a folder that may vanish."""
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []


def phase_of(before: Sequence[State], after: Sequence[State], steps: int) -> str:
    """Where a kill hit, by what the folders of the SAEs showed before the start and show now; `steps` are those of the run."""
    pairs = list(zip(before, after, strict=True))
    if any(a.writing - b.writing for b, a in pairs):
        return "in the final write"
    if any(a.saving - b.saving or a.torn - b.torn for b, a in pairs if not a.written):
        return "in a save"
    if any(a.written for _, a in pairs):
        return "after the final write"
    newest = newest_of(after)
    if newest == steps:
        return "after the last checkpoint"
    return "between checkpoints" if newest else "before the first checkpoint"


def newest_of(states: Sequence[State]) -> int:
    """Step of the newest whole checkpoint, 0 without one."""
    return max((state.steps[-1] for state in states if state.steps), default=0)


class Snapshot(NamedTuple):
    """What a finished training left."""

    files: dict[str, str]
    """Path -> SHA-256 of every file but lock and log; of a folder nothing, but it counts too."""
    steps: tuple[tuple[int, ...], ...]
    """Steps in the log of each SAE."""

    @classmethod
    def of(cls, folder: Path, outs: Sequence[Path]) -> "Snapshot":
        """Hash."""
        found = [p for p in sorted(folder.rglob("*")) if p.name not in (KEPT, LOG)]
        hashes = {p.relative_to(folder).as_posix(): hash_file(p) if p.is_file() else "" for p in found}
        return cls(hashes, tuple(tuple(r["step"] for r in read_log(out / LOG)) for out in outs))


class Whole(NamedTuple):
    """An uninterrupted training."""

    end: Snapshot
    """What it left."""
    seconds: float
    """How long it took."""
    save_s: float
    """How long one write of a checkpoint took, at most."""
    end_s: float
    """From the beginning of the final write to the end of the process."""

    @property
    def steps(self) -> int:
        """Steps of the whole run."""
        return self.end.steps[0][-1]


class Hit(NamedTuple):
    """One kill."""

    training: int
    """Number of the training."""
    victim: str
    """Name of the training."""
    aim: str
    """What was aimed at."""
    phase: str
    """What was hit."""
    after_s: float
    """Seconds after the start of the process."""
    checkpoint: int
    """Step of the newest whole checkpoint then, 0 without one."""


class Process:
    """A training in a process of its own."""

    def __init__(self, ground: Ground, victim: Victim, folder: Path) -> None:
        """Fork."""
        self.errors = folder.with_suffix(".errors")
        sys.stdout.flush()
        sys.stderr.flush()
        self.began = time.monotonic()
        self.pid = os.fork()
        if self.pid == 0:
            self._child(ground, victim, folder)
        self.status: int | None = None

    def _child(self, ground: Ground, victim: Victim, folder: Path) -> None:
        status = 1
        try:
            ground.train(victim, folder)
            status = 0
        except BaseException:
            self.errors.write_text(traceback.format_exc())
        finally:
            os._exit(status)

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self.began

    def running(self) -> bool:
        """Whether it has not ended. Errors: `Hung`."""
        if self.status is None:
            found, status = os.waitpid(self.pid, os.WNOHANG)
            if found:
                self.status = os.waitstatus_to_exitcode(status)
        if self.status is None and self.seconds > PATIENCE_S:
            self.kill()
            raise Hung(f"no end after {PATIENCE_S:.0f} s")
        return self.status is None

    def wait(self, until: Callable[[], bool]) -> bool:
        """Wait for a moment; False where the process ends before."""
        while self.running():
            if until():
                return True
            time.sleep(POLL_S)
        return False

    def kill(self) -> bool:
        """Signal 9; False where the process had ended before."""
        if self.status is None:
            os.kill(self.pid, signal.SIGKILL)
            self.status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.status == -signal.SIGKILL

    def failure(self) -> str | None:
        """Why it ended otherwise than well."""
        if self.status == 0:
            return None
        said = self.errors.read_text().strip() if self.errors.is_file() else ""
        return said or f"exit status {self.status}"


def run_whole(ground: Ground, victim: Victim, folder: Path) -> Whole:
    """Run a training to its end, with an eye on its writes. Errors: `RuntimeError` when it fails."""
    outs = ground.outs(victim, folder)
    process = Process(ground, victim, folder)
    save_s, since, end = 0.0, None, None
    while process.running():
        states = [State.of(out) for out in outs]
        saving = any(s.saving for s in states)
        since = (since or time.monotonic()) if saving else None
        save_s = max(save_s, 0.0 if since is None else time.monotonic() - since)
        if end is None and any(s.writing or s.written for s in states):
            end = process.seconds
        time.sleep(POLL_S)
    if (why := process.failure()) is not None:
        raise RuntimeError(f"the uninterrupted training fails: {why}")
    took = process.seconds
    return Whole(Snapshot.of(folder, outs), took, save_s, took - (took if end is None else end))


class Killer:
    """Kills trainings, and keeps the count."""

    def __init__(self, ground: Ground, folder: Path, seed: int) -> None:
        self.ground, self.folder, self.rng = ground, folder, random.Random(seed)
        self.hits: list[Hit] = []
        self.unequal: dict[int, str] = {}
        """Number of a training -> how it differs from the uninterrupted one."""
        self.trainings = 0
        """Those that were looked at; not all of them came to be killed before their end."""
        self.resumed = 0
        """Starts after a kill."""

    def _start(self, name: str, folder: Path) -> Process:
        """Start a training, or let it go on where a kill left something."""
        self.resumed += bool(self.hits) and self.hits[-1].training == self.trainings
        return Process(self.ground, VICTIMS[name], folder)

    def _anywhere(self, states: Sequence[State], whole: Whole, process: Process) -> bool:
        """Wait for a random moment of what is left of the run."""
        at = self.rng.uniform(0, whole.seconds * (1 - newest_of(states) / whole.steps))
        return process.wait(lambda: process.seconds >= at)

    def _save(self, outs: Sequence[Path], whole: Whole, process: Process) -> bool:
        """Wait for the beginning of a write of a checkpoint, and a random part of one."""
        seen: set[str] = {name for out in outs for name in State.of(out).saving}
        old, skip = set(seen), self.rng.randrange(6)

        def begun() -> bool:
            seen.update(name for out in outs for name in names(out / "checkpoints") if name.startswith(".tmp-"))
            return len(seen - old) > skip

        return process.wait(begun) and self._then(whole.save_s, process)

    def _end(self, outs: Sequence[Path], whole: Whole, process: Process) -> bool:
        """Wait for the beginning of the final write, and a random part of what is left of the run."""
        old = {name for out in outs for name in State.of(out).writing}

        def begun() -> bool:
            found = {name for out in outs for name in names(out) if name.startswith(".tmp-sae.")}
            return bool(found - old) or all((out / "sae").exists() for out in outs)

        return process.wait(begun) and self._then(whole.end_s, process)

    def _then(self, span: float, process: Process) -> bool:
        at = process.seconds + self.rng.uniform(0, span)
        return process.wait(lambda: process.seconds >= at)

    def strike(self, name: str, folder: Path, whole: Whole) -> bool:
        """Start, or go on, and kill; False where the training came to its end before. Errors: `Hung`, `RuntimeError`."""
        outs = self.ground.outs(VICTIMS[name], folder)
        aim = self.rng.choices(list(AIMS), list(AIMS.values()))[0]
        before = [State.of(out) for out in outs]
        process = self._start(name, folder)
        wait = {
            "anywhere": lambda: self._anywhere(before, whole, process),
            "save": lambda: self._save(outs, whole, process),
            "end": lambda: self._end(outs, whole, process),
        }
        wait[aim]()
        after_s = process.seconds
        if not process.kill():
            if (why := process.failure()) is not None:
                raise RuntimeError(why)
            return False
        after = [State.of(out) for out in outs]
        phase = phase_of(before, after, whole.steps)
        self.hits.append(Hit(self.trainings, name, aim, phase, round(after_s, 4), newest_of(after)))
        return True

    def train(self, name: str, whole: Whole, most: int) -> None:
        """One training with one kill or several, at most `most`, to its end, and a look at what it left."""
        folder = self.folder / f"killed-{self.trainings}"
        first = len(self.hits)
        try:
            alive = True
            while alive and len(self.hits) - first < most:
                if len(self.hits) > first and self.rng.random() > AGAIN:
                    break
                alive = self.strike(name, folder, whole)
            if alive:
                process = self._start(name, folder)
                process.wait(lambda: False)
                if (why := process.failure()) is not None:
                    raise RuntimeError(why)
            different = difference(Snapshot.of(folder, self.ground.outs(VICTIMS[name], folder)), whole.end)
        except (Hung, RuntimeError) as error:
            print(error, file=sys.stderr)
            different = str(error).splitlines()[-1]
        if different:
            self.unequal[self.trainings] = f"{name}: {different}"
        hits = "; ".join(f"{h.phase}, {h.after_s:.2f} s" for h in self.hits[first:]) or "ended before the kill"
        print(f"{len(self.hits):4d} kills, {name}: {hits}: {different or 'equal'}", file=sys.stderr, flush=True)
        self.trainings += 1


def difference(found: Snapshot, wanted: Snapshot) -> str:
    """How a killed training differs from an uninterrupted one; empty where it does not."""
    paths = sorted(found.files.keys() | wanted.files.keys())
    wrong = [path for path in paths if found.files.get(path) != wanted.files.get(path)]
    logs = "" if found.steps == wanted.steps else "other steps in the log"
    return "; ".join(x for x in (f"other bytes in {', '.join(wrong)}" if wrong else "", logs) if x)


def rows_of(hits: Sequence[Hit], unequal: dict[int, str], seed: int) -> list[dict[str, Any]]:
    """The share of kills whose training ended with the same bytes: over all, by phase, by training."""
    groups: list[tuple[str, list[Hit]]] = [("all", list(hits))]
    groups += [(phase, [h for h in hits if h.phase == phase]) for phase in PHASES]
    groups += [(name, [h for h in hits if h.victim == name]) for name in VICTIMS]
    rows: list[dict[str, Any]] = []
    for arm, some in groups:
        if some:
            share = wilson(sum(h.training not in unequal for h in some), len(some))
            measured = Spread(share.estimate, share.low, share.high, len(some))
            about = {"n_trainings": len({h.training for h in some}), "seed": seed, "method": share.method}
            rows.append(row("equal_share", arm, "", measured, **about))
    return rows


def parse() -> argparse.Namespace:
    """The flags."""
    found = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("--kills", type=int, default=100, help="kills in all (default: 100)")
    found.add_argument("--only", nargs="+", choices=sorted(VICTIMS), help="these trainings (default: all)")
    found.add_argument("--seed", type=int, default=0, help="of aims and moments; the clock has its say too")
    found.add_argument("--tiny", action="store_true", help="shorter trainings, to show that the script runs")
    found.add_argument("--json", action="store_true", help="print one JSON object on standard output")
    found.add_argument("--out", type=Path, help="write the JSON to this file as well")
    return found.parse_args()


def main() -> int:
    """Kill, compare, print; 1 where a training ended otherwise than its uninterrupted twin."""
    arguments = parse()
    # A child of a process that has OpenMP threads can hang for ever.
    torch.set_num_threads(1)
    chosen = arguments.only or list(VICTIMS)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        ground = Ground.make(folder / "store", tiny=arguments.tiny)
        wholes: dict[str, Whole] = {}
        for name in chosen[: arguments.kills]:
            wholes[name] = run_whole(ground, VICTIMS[name], folder / f"whole-{name}")
            print(f"{name}: {wholes[name].seconds:.2f} s uninterrupted", file=sys.stderr, flush=True)
        killer = Killer(ground, folder, arguments.seed)
        while len(killer.hits) < arguments.kills and len(killer.unequal) < ENOUGH:
            name = list(wholes)[killer.trainings % len(wholes)]
            killer.train(name, wholes[name], arguments.kills - len(killer.hits))
    seconds = {name: round(whole.seconds, 3) for name, whole in wholes.items()}
    finish(
        arguments,
        "kills",
        rows_of(killer.hits, killer.unequal, arguments.seed),
        kills=len(killer.hits),
        trainings=killer.trainings,
        trainings_killed=len({h.training for h in killer.hits}),
        resumed=killer.resumed,
        equal=killer.trainings - len(killer.unequal),
        unequal=len(killer.unequal),
        differences=sorted(killer.unequal.values()),
        phases={phase: n for phase in PHASES if (n := sum(h.phase == phase for h in killer.hits))},
        uninterrupted_s=seconds,
        hits=[h._asdict() for h in killer.hits],
    )
    return 1 if killer.unequal else 0


if __name__ == "__main__":
    sys.exit(main())
