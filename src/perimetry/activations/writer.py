"""One layer's store while it grows: shards, a line for each, and at the end the manifest."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, final

import torch
from safetensors.torch import save

from perimetry.activations.feed import Cursor, Cutter, Kept, Piece
from perimetry.activations.policy import TokenPolicy
from perimetry.activations.shards import KIND, PLAN, SCHEMA
from perimetry.activations.text import HasText, PackCursor
from perimetry.artifact import MANIFEST
from perimetry.errors import Incompatible, TooFewSamples
from perimetry.storage import (
    append_line,
    hash_bytes,
    hash_file,
    hash_json,
    read_json,
    remove_stale,
    write_bytes,
    write_json,
)

__all__ = ["StoreWriter"]

PROGRESS = "shards.jsonl"


@final
class StoreWriter:
    """One layer's store while it grows."""

    def __init__(
        self, folder: Path, sizes: tuple[int, int], documents: Sequence[HasText], request: dict[str, Any]
    ) -> None:
        self.folder = folder
        """Where the store grows."""
        self.tokens, self.shard_tokens = sizes
        """Rows wanted in all, and in a shard."""
        self.documents = documents
        """The documents, in the order in which they are read."""
        self.request = request
        """What the store is of; an earlier run must have asked for the same."""
        self.lines: list[dict[str, Any]] = []
        """One entry a whole shard."""
        self.policy: TokenPolicy | None = None
        """The fitted token policy, once the plan is written."""
        self.finished = False
        """True when the manifest was there already."""

    @property
    def rows(self) -> int:
        """Rows in whole shards."""
        return sum(line["rows"] for line in self.lines)

    @property
    def cursor(self) -> Cursor:
        """Where the next shard starts."""
        return Cursor(*self.lines[-1]["end"]) if self.lines else Cursor(0, 0, 0, 0)

    def resume(self) -> None:
        """Take over what an earlier run of the same plan left; refuse what another plan left."""
        remove_stale(self.folder)
        present = sorted(p.name for p in self.folder.iterdir() if not p.name.startswith("."))
        if PLAN not in present:
            if present:
                raise Incompatible(
                    f"{self.folder} holds {present[0]!r} and is no activation store; choose an empty folder"
                )
            return
        plan = read_json(self.folder / PLAN)
        old = plan["request"] if isinstance(plan, dict) and isinstance(plan.get("request"), dict) else {}
        different = sorted(k for k in self.request.keys() | old.keys() if old.get(k) != self.request.get(k))
        if different:
            raise Incompatible(
                f"{self.folder} holds another harvest: {', '.join(different)} differ; give the same arguments to go on, "
                "or choose another folder"
            )
        self.policy = TokenPolicy.model_validate(plan["policy"])
        if (self.folder / MANIFEST).is_file():
            (self.folder / PROGRESS).unlink(missing_ok=True)
            self.finished = True
        else:
            self._keep_whole_shards()

    def _keep_whole_shards(self) -> None:
        path = self.folder / PROGRESS
        for text in path.read_bytes().splitlines(keepends=True) if path.is_file() else []:
            try:
                line = json.loads(text) if text.endswith(b"\n") else None
            except ValueError:
                line = None
            if line is None or not self._is_whole(line):
                break
            self.lines.append(line)
        # Sizes were compared above; bytes can only be missing from what was written last.
        if self.lines and hash_file(self.folder / self.lines[-1]["file"]) != self.lines[-1]["sha256"]:
            self.lines.pop()
        whole = "".join(json.dumps(line, sort_keys=True) + "\n" for line in self.lines).encode()
        if path.is_file() and path.read_bytes() != whole:
            write_bytes(path, whole)

    def _is_whole(self, line: dict[str, Any]) -> bool:
        file = self.folder / f"shard-{len(self.lines):05d}.safetensors"
        return line.get("file") == file.name and file.is_file() and file.stat().st_size == line.get("bytes")

    def start(self, policy: TokenPolicy) -> None:
        """Write the plan, once the policy is fitted."""
        if self.policy is None:
            write_json(self.folder / PLAN, {"request": self.request, "policy": policy.model_dump(mode="json")})
            self.policy = policy
        self.cutter = Cutter(self._next_size(), self.cursor.skip)

    def _next_size(self) -> int:
        return min(self.shard_tokens, self.tokens - self.rows)

    @property
    def full(self) -> bool:
        """True when no more rows are wanted."""
        return self.finished or self.rows >= self.tokens

    def add(self, kept: Kept, at: PackCursor) -> int:
        """Take the kept tokens of a model batch; returns how many rows were written."""
        before = self.rows
        if not self.full and (at.document, at.offset) >= self.cursor[1:3]:
            for piece in self.cutter.add(kept, 0, at):
                self.write(piece)
                if self.full:
                    break
                self.cutter.resize(self._next_size())
        return self.rows - before

    def write(self, piece: Piece) -> None:
        """Write one shard, then its line."""
        index, local = torch.unique(piece.kept.documents, return_inverse=True)
        tensors = {
            "acts": piece.kept.acts.contiguous(),
            "document": local.to(torch.int32),
            "position": piece.kept.positions.to(torch.int32),
            "token": piece.kept.tokens.to(torch.int32),
        }
        names = [self.documents[i].id for i in index.tolist()]
        # One key only: the order of several would differ from run to run.
        data = save(tensors, metadata={"documents": json.dumps(names)})
        name = f"shard-{len(self.lines):05d}.safetensors"
        write_bytes(self.folder / name, data)
        rows = piece.kept.tokens.shape[0]
        line = {"file": name, "rows": rows, "bytes": len(data), "sha256": hash_bytes(data), "end": list(piece.end)}
        append_line(self.folder / PROGRESS, line)
        self.lines.append(line)

    def finish(self) -> None:
        """Write the last, shorter shard and the manifest."""
        if self.finished:
            return
        if not self.full and (rest := self.cutter.rest()) is not None:
            self.write(rest)
        if not self.lines:
            raise TooFewSamples("the documents hold no token that counts; give texts with plain words")
        files = {PLAN: hash_file(self.folder / PLAN)} | {line["file"]: line["sha256"] for line in self.lines}
        shards = [{k: v for k, v in line.items() if k != "end"} for line in self.lines]
        manifest = {"schema": SCHEMA, "kind": KIND, "digest": hash_json(files), "files": files, "shards": shards}
        write_json(self.folder / MANIFEST, manifest | {"rows": self.rows})
        (self.folder / PROGRESS).unlink(missing_ok=True)
