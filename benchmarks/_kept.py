"""What a long benchmark has measured so far, on disk: a run that was killed goes on where it stopped."""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

__all__ = ["Kept"]

Rows = list[dict[str, Any]]


class Kept:
    """Finished parts of one benchmark, a line of JSON each, beside the file that the results go to.

    >>> kept = Kept(None, {})
    >>> kept.part("sum", lambda: [{"estimate": 1.0}], lambda: [])
    [{'estimate': 1.0}]
    """

    def __init__(self, out: Path | None, about: Mapping[str, Any]) -> None:
        """Parts of an earlier run are taken up if that run was `about` the same; without `out` nothing is kept.

        Errors: `SystemExit` where the file that is there is about something else, since its rows would not compare.
        """
        self._file = None if out is None else out.with_name(f"{out.stem}.part.jsonl")
        self._done: dict[str, dict[str, Any]] = {}
        if self._file is None:
            return
        lines = self._file.read_bytes().splitlines(keepends=True) if self._file.exists() else []
        whole = [json.loads(line) for line in lines if line.endswith(b"\n")]
        if whole and whole[0] != dict(about):
            raise SystemExit(
                f"{self._file} holds measurements of another run: {whole[0]}; this one is {dict(about)}. "
                "Delete the file to start over, or use the same flags on the same machine to go on."
            )
        self._done = {line["part"]: line for line in whole[1:]}
        self._file.parent.mkdir(parents=True, exist_ok=True)
        if len(whole) < len(lines):
            self._file.write_bytes(b"".join(line for line in lines if line.endswith(b"\n")))
        if not whole:
            self._write(dict(about))

    def _write(self, line: Mapping[str, Any]) -> None:
        if self._file is None:
            return
        with self._file.open("a") as file:
            file.write(json.dumps(line, allow_nan=False) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def part(self, name: str, measure: Callable[[], Rows], skipped: Callable[[], Rows]) -> Rows:
        """Rows of a part: measured now, or read where an earlier run finished it.

        `skipped` gives all that had to be left out so far; what a part added to it is kept with the part.
        """
        if name in self._done:
            missing = self._done[name]["skipped"]
            found = skipped()
            found += [line for line in missing if line not in found]
            return self._done[name]["rows"]
        before = len(skipped())
        rows = measure()
        self._write({"part": name, "rows": rows, "skipped": skipped()[before:]})
        return rows

    def close(self) -> None:
        """The results are written: the parts are needed no more."""
        if self._file is not None:
            self._file.unlink(missing_ok=True)
