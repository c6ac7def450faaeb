"""Harvest the activations of documents into a store: planned, cut into shards, resumable to the byte.

Each shard is a pure function of the plan. A run that is killed leaves whole shards and a line for each in
`shards.jsonl`; the same call goes on after the last of them and ends with the same bytes as a run that was never
stopped, on the same machine with the same number of threads.
"""

import contextlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar, overload

import torch
from pydantic import PositiveInt
from rich.console import Console
from rich.progress import Progress

from perimetry.activations.feed import Cursor, as_read, fit_policies, read_kept, row_batches
from perimetry.activations.masking import Masker, ReadsMasked, require_plain
from perimetry.activations.model import LanguageModel
from perimetry.activations.policy import TokenPolicy
from perimetry.activations.shards import ActivationStore
from perimetry.activations.site import Site, SiteLike, as_site, hook_name
from perimetry.activations.text import HasText, PackCursor, documents_digest, shuffled
from perimetry.activations.writer import StoreWriter
from perimetry.errors import TooFewSamples
from perimetry.runtime import dtype_name
from perimetry.storage import lock, require_space

__all__ = ["ActivationStore", "Estimate", "HarvestConfig", "estimate", "harvest", "request_of"]

DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}
BYTES_BESIDE = 12
"""Bytes a row beside its activations: token, position and document as int32."""
P = TypeVar("P", bound=SiteLike)


class HarvestConfig(ReadsMasked):
    """What to harvest."""

    tokens: PositiveInt = 1_000_000
    """Rows to store: tokens that count. Fewer when the documents hold fewer."""
    context: PositiveInt = 512
    """Tokens of a packed row, BOS included."""
    batch_rows: PositiveInt = 8
    """Packed rows of a forward pass."""
    shard_tokens: PositiveInt = 65_536
    """Rows of a shard; at most this much work is done twice after a kill."""
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """Dtype on the disk."""
    policy: TokenPolicy = TokenPolicy()
    """Which tokens count; a missing sink threshold is fitted on the first 8192 tokens."""
    seed: int = 0
    """Order of the documents."""


class Estimate(NamedTuple):
    """What a harvest would cost, before it starts."""

    bytes: int
    """Bytes on the disk, all layers together."""
    seconds: float
    """Time of the forward passes, from one measured batch."""
    tokens_per_second: float
    """Tokens that count, per second."""


def _bytes(lm: LanguageModel, config: HarvestConfig, tokens: int) -> int:
    return tokens * (lm.d_model * DTYPES[config.dtype].itemsize + BYTES_BESIDE)


def estimate(
    lm: LanguageModel,
    places: SiteLike | Sequence[SiteLike],
    documents: Sequence[HasText],
    config: HarvestConfig,
    clock: Callable[[], float] = time.perf_counter,
) -> Estimate:
    """Size and time of a harvest: one batch is run to warm up and once more by the clock.

    Errors: `TooFewSamples` when the documents hold no token.
    """
    chosen = [places] if isinstance(places, SiteLike) else list(places)
    rows = next(row_batches(documents, lm, config.policy, config.context, config.batch_rows), None)
    if rows is None:
        raise TooFewSamples(f"{len(documents)} documents hold no token that counts; give texts with plain words")
    policies = dict.fromkeys(chosen, config.policy)
    read_kept(lm, rows[:1], documents, policies, torch.float32)
    begin = clock()
    read_kept(lm, rows, documents, policies, torch.float32)
    took = max(clock() - begin, 1e-9)
    rate = sum(sum(row.countable) for row in rows) / took
    return Estimate(_bytes(lm, config, config.tokens) * len(chosen), config.tokens / rate, rate)


def request_of(
    lm: LanguageModel, site: Site, documents: Sequence[HasText], config: HarvestConfig, aligned: Sequence[Site]
) -> dict[str, Any]:
    """What a store is of, as plain JSON values; the sites of `aligned` are those that share its rows."""
    request = {
        "model": lm.name,
        "revision": lm.revision,
        "tokenizer": lm.tokenizer_hash,
        "layer": site.layer,
        "hook": hook_name(site, lm.family)._asdict(),
        "d_model": lm.d_model,
        "dtype": config.dtype,
        "compute_dtype": dtype_name(lm.dtype),
        "config": config.model_dump(mode="json"),
        "documents": documents_digest(documents),
    }
    return request | ({"aligned": [str(s) for s in aligned]} if aligned else {})


def _run(
    lm: LanguageModel, writers: dict[P, StoreWriter], config: HarvestConfig, *, aligned: bool, progress: bool
) -> None:
    documents = next(iter(writers.values())).documents
    open_writers = {place: w for place, w in writers.items() if not w.finished}
    unfitted = [place for place, w in open_writers.items() if w.policy is None]
    policies = {place: w.policy for place, w in writers.items() if w.policy is not None}
    if unfitted:
        policies |= fit_policies(lm, unfitted, documents, config.policy, config.context, config.batch_rows)
    for place, writer in open_writers.items():
        writer.start(policies[place])
    todo = [place for place, w in open_writers.items() if not w.full]
    first = min((open_writers[place].cursor for place in todo), default=Cursor(0, 0, 0, 0))
    start = PackCursor(first.document, first.offset)
    masker = None if config.masking is None else Masker(config.masking, lm, documents, config.policy)
    with Progress(console=Console(stderr=True), disable=not progress) as bar:
        done = sum(w.rows for w in open_writers.values())
        task = bar.add_task("harvest", total=config.tokens * len(open_writers), completed=done)
        stream = row_batches(documents, lm, config.policy, config.context, config.batch_rows, start)
        while todo and (rows := next(stream, None)) is not None:
            # Which rows are kept depends on every place where they are aligned, on those that are finished too.
            read = policies if aligned else {place: policies[place] for place in todo}
            kept = read_kept(lm, as_read(rows, masker), documents, read, DTYPES[config.dtype], aligned=aligned)
            for place in todo:
                bar.advance(task, open_writers[place].add(kept[place], rows[0].start))
            todo = [place for place in todo if not open_writers[place].full]
        for writer in open_writers.values():
            writer.finish()


@overload
def harvest(
    lm: LanguageModel,
    places: SiteLike,
    documents: Sequence[HasText],
    path: Path,
    config: HarvestConfig,
    *,
    aligned: bool = ...,
    progress: bool = ...,
) -> ActivationStore: ...
@overload
def harvest(
    lm: LanguageModel,
    places: Sequence[P],
    documents: Sequence[HasText],
    path: Path,
    config: HarvestConfig,
    *,
    aligned: bool = ...,
    progress: bool = ...,
) -> dict[P, ActivationStore]: ...
def harvest(
    lm: LanguageModel,
    places: SiteLike | Sequence[SiteLike],
    documents: Sequence[HasText],
    path: Path,
    config: HarvestConfig,
    *,
    aligned: bool = False,
    progress: bool = False,
) -> ActivationStore | dict[Any, ActivationStore]:
    """Store the activations at `places` (a number is the output of that block) of the tokens of `documents` that count.

    One place goes to `path`. Of several each gets a store of its own, `path/layer-NN`, from the same forward passes; with
    `aligned` a token must count at every place, so that row i of each store is the same token. A call that was
    killed goes on when it is made again; a finished one is only opened. `progress` shows a bar on stderr.

    Errors: `StorageFull` (before it starts, or later), `Incompatible` (the folder holds something else), `Locked`,
    `NonFinite` (document and position named), `TooFewSamples`, `ConfigError` (layer, context).
    """
    require_plain(config.masking, "harvest_versions")
    if isinstance(places, SiteLike):
        folders: dict[SiteLike, Path] = {places: path}
    else:
        ordered_places = sorted(set(places), key=lambda place: as_site(place).depth)
        folders = {place: path / str(as_site(place)) for place in ordered_places}
    together = [as_site(place) for place in folders] if aligned and len(folders) > 1 else []
    ordered = shuffled(documents, config.seed)
    with contextlib.ExitStack() as stack:
        writers: dict[SiteLike, StoreWriter] = {}
        for place, folder in folders.items():
            request = request_of(lm, as_site(place), ordered, config, together)
            stack.enter_context(lock(folder))
            writers[place] = StoreWriter(folder, (config.tokens, config.shard_tokens), ordered, request)
            writers[place].resume()
        most = min(config.tokens, sum(len(d.text.encode("utf-8", "replace")) + 1 for d in ordered))
        missing = sum(max(0, most - w.rows) for w in writers.values() if not w.finished)
        require_space(path, _bytes(lm, config, missing), "the harvest")
        _run(lm, writers, config, aligned=bool(together), progress=progress)
    stores = {place: ActivationStore.open(folder, verify=False) for place, folder in folders.items()}
    return stores[places] if isinstance(places, SiteLike) else stores
