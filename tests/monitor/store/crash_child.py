"""Writes events until it is killed, and says which are committed. Run by `test_crash.py`; imports the store alone.

It reads folders from its standard input, one a line. For each it forks a child that opens the store there, writes without end,
and prints the uuids of what was committed; the parent prints `pid N` at the start and `ended` when the child is dead.
"""

import os
import sys
from pathlib import Path

from tests.monitor.store.makers import NOON, a_config, an_event

from perimetry.monitor.store.event_store import EventStore

BATCH = 8


def say(text: str) -> None:
    os.write(1, (text + "\n").encode())


def write(folder: Path, turn: int) -> None:
    config = a_config(folder, commit_ms=1.0, commit_rows=BATCH + 1, text="full")
    store = EventStore(config, clock=lambda: NOON / 1e6).open()
    before = [an_event(turn * 10**6 + 999_999)]
    for number in range(10**6):
        first = turn * 10**6 + number * BATCH
        events = [an_event(first + i, text=f"words {i} " * 20) for i in range(BATCH)]
        receipts = [store.submit(one, wait=True) for one in [*events, before[-1]]]
        acks = [one.ack if one.done is None else one.done.result(60) for one in receipts]
        say(" ".join(one.uuid for one, ack in zip(events, acks, strict=False) if ack == "committed"))
        before = events


def main() -> None:
    for turn, line in enumerate(sys.stdin):
        child = os.fork()
        if not child:
            write(Path(line.strip()), turn)
            os._exit(0)
        say(f"pid {child}")
        os.waitpid(child, 0)
        say("ended")


if __name__ == "__main__":
    main()
