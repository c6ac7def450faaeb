"""A store of activations on disk, read: any rows, in any order, without holding the store in memory.

A store is a folder: `plan.json` (what it is of), `shard-00000.safetensors` ... (rows), `manifest.json` (hashes; written
last). A shard holds `acts (n, d_model)`, `token`, `position` and `document` (n each); the ids of its documents are in its
metadata. Every shard but the last has the same number of rows.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, final

import torch
from jaxtyping import Int
from safetensors import SafetensorError, safe_open
from torch import Tensor

from perimetry.activations.model import LanguageModel
from perimetry.activations.permutation import Permutation, shuffled_ids
from perimetry.activations.policy import TokenPolicy
from perimetry.artifact import MANIFEST
from perimetry.axes import Acts
from perimetry.errors import (
    BadPath,
    BadShape,
    CorruptArtifact,
    Incompatible,
    MissingFile,
    ModelMismatch,
    TooFewSamples,
    UsageError,
)
from perimetry.storage import hash_file, hash_json, read_json
from perimetry.strict import OWN, check_header, parse_json, require_size

__all__ = ["KIND", "PLAN", "SCHEMA", "ActivationStore", "Shard"]

KIND = "activations"
PLAN = "plan.json"
SCHEMA = 1
COLUMNS = ("acts", "document", "position", "token")


class Shard(NamedTuple):
    """A run of rows in one file, mapped into memory."""

    acts: Tensor
    """Residual-stream vectors, in the dtype of the store."""
    document: Tensor
    """Index into `documents`."""
    position: Tensor
    """Position in the row that the model read; the BOS is 0."""
    token: Tensor
    """Vocabulary ids."""
    documents: list[str]
    """Ids of the documents of this shard."""


def _read_manifest(path: Path) -> dict[str, Any]:
    if not path.is_dir():
        raise MissingFile(f"no activation store at {path}; give the folder that holds {MANIFEST}")
    if not (path / MANIFEST).is_file():
        raise CorruptArtifact(
            f"{path} has no {MANIFEST}: the harvest did not reach its end; run the same harvest again, it goes on where "
            "it stopped"
        )
    manifest = read_json(path / MANIFEST)
    if not isinstance(manifest, dict) or manifest.get("schema") != SCHEMA or manifest.get("kind") != KIND:
        raise Incompatible(
            f"{path / MANIFEST} is no manifest of an activation store with schema {SCHEMA}; give another folder, or "
            "harvest again"
        )
    if hash_json(manifest.get("files", {})) != manifest.get("digest"):
        raise CorruptArtifact(f"{path / MANIFEST} has a digest that its files do not give; harvest again")
    return manifest


def _check_file(path: Path, wanted: str, size: int | None, *, hashed: bool) -> None:
    if path.is_symlink() or not path.is_file():
        error = BadPath if os.path.lexists(path) else CorruptArtifact
        raise error(f"{path} is in the manifest and not on the disk; remove the store and harvest again")
    require_size(path, OWN)
    if size is not None and path.stat().st_size != size:
        raise CorruptArtifact(
            f"{path} has {path.stat().st_size} bytes, the manifest says {size}: it is torn; remove the store and harvest "
            "again"
        )
    if hashed and hash_file(path) != wanted:
        raise CorruptArtifact(
            f"{path} does not hash as its manifest says; it was changed or damaged; remove the store and harvest again"
        )


def open_shard(path: Path, rows: int, d_model: int) -> Shard:
    """Map a shard into memory; only pages that are used are read. Errors: `CorruptArtifact`."""
    check_header(path, OWN)
    try:
        with safe_open(path, "pt") as handle:
            columns = {name: handle.get_tensor(name) for name in COLUMNS}
            documents = parse_json(handle.metadata()["documents"].encode())
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise CorruptArtifact(f"{path} is no shard of activations: {error}; harvest again") from error
    shard = Shard(**columns, documents=documents)
    whole = isinstance(documents, list) and all(isinstance(name, str) for name in documents)
    if not whole or not shard.acts.is_floating_point() or any(columns[n].is_floating_point() for n in COLUMNS[1:]):
        raise BadShape(f"{path} holds other kinds of numbers or names than a shard has; harvest again")
    if shard.acts.shape != (rows, d_model) or any(columns[name].shape != (rows,) for name in COLUMNS[1:]):
        raise BadShape(
            f"{path} holds {tuple(shard.acts.shape)} numbers, the manifest says {(rows, d_model)}; harvest again"
        )
    return shard


@final
class ActivationStore:
    """Activations on disk: `len`, rows by id, shuffled batches from any step. Use `ActivationStore.open`."""

    def __init__(self, path: Path, plan: dict[str, Any], policy: TokenPolicy, digest: str, shards: list[Shard]) -> None:
        self.path = path
        """Where it lies."""
        self.plan = plan
        """What it is of: model, revision, tokenizer, layer, hook, dtypes, configuration, documents."""
        self.policy = policy
        """The token policy, with its fitted sink threshold."""
        self.digest = digest
        """SHA-256 over the hashes of its files: its identity."""
        self.layer: int = plan["layer"]
        """The block whose output it holds."""
        self.d_model: int = plan["d_model"]
        """Width of a row."""
        self._shards = shards
        self._size = shards[0].acts.shape[0]
        self._length = sum(s.acts.shape[0] for s in shards)
        self._followed: Tensor | None = None

    @classmethod
    def open(cls, path: Path, *, verify: bool = True) -> "ActivationStore":
        """Open a finished store. `verify` hashes every shard (about a second a gigabyte); sizes are always checked.

        Errors: `MissingFile`, `CorruptArtifact` (unfinished, torn, changed), `Incompatible` (no store of ours).
        """
        manifest = _read_manifest(path)
        try:
            entries = [(str(e["file"]), int(e["rows"]), int(e["bytes"]), str(e["sha256"])) for e in manifest["shards"]]
            _check_file(path / PLAN, str(manifest["files"][PLAN]), None, hashed=True)
            document = read_json(path / PLAN)
            plan, policy = dict(document["request"]), TokenPolicy.model_validate(document["policy"])
            for name, _, size, sha in entries:
                if Path(name).name != name or manifest["files"].get(name) != sha:
                    raise CorruptArtifact(f"{path / MANIFEST} contradicts itself on {name!r}; harvest again")
                _check_file(path / name, sha, size, hashed=verify)
            shards = [open_shard(path / name, rows, int(plan["d_model"])) for name, rows, _, _ in entries]
        except (KeyError, TypeError, ValueError) as error:
            raise CorruptArtifact(
                f"{path} has a manifest or plan that cannot be read: {error}; harvest again"
            ) from error
        if not shards or any(s.acts.shape[0] != shards[0].acts.shape[0] for s in shards[:-1]):
            raise CorruptArtifact(f"{path} has no shards, or shards of unequal length; harvest again")
        return cls(path, plan, policy, str(manifest["digest"]), shards)

    def __len__(self) -> int:
        return self._length

    def require_model(self, lm: LanguageModel) -> None:
        """Raise `ModelMismatch` unless the store was harvested from `lm`."""
        if self.plan["revision"] != lm.revision:
            raise ModelMismatch(
                f"the activations in {self.path} are of {self.plan['model']!r} (revision "
                f"{self.plan['revision'][:12]}), the model here is {lm.name!r} (revision {lm.revision[:12]}); use the "
                "same model, or harvest again"
            )

    def _gather(self, column: int, ids: Int[Tensor, " row"], out: Tensor) -> Tensor:
        if ids.numel() and not 0 <= int(ids.min()) <= int(ids.max()) < self._length:
            raise UsageError(f"row {int(ids.max())} of a store of {self._length} rows; give ids from 0 up, below that")
        order = torch.argsort(ids // self._size, stable=True)
        ids = ids[order]
        present, counts = torch.unique_consecutive(ids // self._size, return_counts=True)
        at = 0
        for shard, count in zip(present.tolist(), counts.tolist(), strict=True):
            source: Tensor = self._shards[shard][column]
            local = ids[at : at + count] - shard * self._size
            out[order[at : at + count]] = source[local].to(out.dtype)
            at += count
        return out

    def rows(self, ids: Int[Tensor, " row"]) -> Acts:
        """Activations of rows in float32, in the order of `ids`. Errors: `UsageError` for an id that is not there."""
        return self._gather(0, ids, torch.empty(ids.shape[0], self.d_model))

    def positions(self, ids: Int[Tensor, " row"]) -> Int[Tensor, " row"]:
        """Position of each row in what the model read; the BOS is 0."""
        return self._gather(2, ids, torch.empty(ids.shape[0], dtype=torch.long))

    def tokens(self, ids: Int[Tensor, " row"]) -> Int[Tensor, " row"]:
        """Vocabulary id of each row."""
        return self._gather(3, ids, torch.empty(ids.shape[0], dtype=torch.long))

    def documents(self, ids: Int[Tensor, " row"]) -> list[str]:
        """Document id of each row."""
        local = self._gather(1, ids, torch.empty(ids.shape[0], dtype=torch.long)).tolist()
        return [self._shards[i // self._size].documents[k] for i, k in zip(ids.tolist(), local, strict=True)]

    def permutation(self, seed: int, epoch: int = 0) -> Permutation:
        """The order in which `batches` visits the rows in an epoch; any entry is computed alone."""
        return Permutation(self._length, seed, epoch)

    def batch_ids(self, batch: int, seed: int = 0, start_step: int = 0) -> Iterator[Int[Tensor, " row"]]:
        """The rows of each batch of `batches`."""
        step = start_step
        while True:
            yield shuffled_ids(self._length, seed, step * batch, batch)
            step += 1

    def batches(self, batch: int, seed: int = 0, start_step: int = 0) -> Iterator[Acts]:
        """Shuffled batches in float32, without end, from any step at no cost.

        Every epoch visits every row once; a batch may straddle two epochs.
        """
        return map(self.rows, self.batch_ids(batch, seed, start_step))

    def followed(self) -> Int[Tensor, " row"]:
        """Rows whose next row is the next token of the same document in what the model read, within a shard."""
        if self._followed is None:
            parts: list[Tensor] = []
            for number, shard in enumerate(self._shards):
                next_one = shard.position[1:] == shard.position[:-1] + 1
                same = shard.document[1:] == shard.document[:-1]
                parts.append((next_one & same).nonzero()[:, 0] + number * self._size)
            self._followed = torch.cat(parts)
        return self._followed

    def pair_ids(self, batch: int, seed: int = 0, start_step: int = 0) -> Iterator[Int[Tensor, " row"]]:
        """The rows of each batch of `pairs`."""
        if batch % 2:
            raise UsageError(f"a batch of {batch} rows cannot be pairs; give an even number")
        firsts, half, step = self.followed(), batch // 2, start_step
        if not firsts.numel():
            raise TooFewSamples(
                f"no token in {self.path} follows another; harvest with a policy that leaves more of them in"
            )
        while True:
            ids = firsts[shuffled_ids(firsts.numel(), seed, step * half, half)]
            yield torch.stack([ids, ids + 1], 1).reshape(-1)
            step += 1

    def pairs(self, batch: int, seed: int = 0, start_step: int = 0) -> Iterator[Acts]:
        """Shuffled batches of adjacent tokens: rows 2i and 2i + 1 of a batch follow each other in a document.

        Every epoch visits every such pair once; a row may be the first of one pair and the second of another. Errors:
        `UsageError` for an odd `batch`, `TooFewSamples` where no token follows another.
        """
        return map(self.rows, self.pair_ids(batch, seed, start_step))
