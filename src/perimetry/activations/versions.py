"""Masked and clean activations of the same tokens: two aligned stores from two passes over each row, and pairs of them."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, final

import torch
from rich.console import Console
from rich.progress import Progress

from perimetry.activations.aligned import AlignedStores
from perimetry.activations.feed import Cursor, Kept, fit_policies, require_finite, row_batches, see
from perimetry.activations.masking import Masker
from perimetry.activations.model import LanguageModel
from perimetry.activations.policy import TokenPolicy
from perimetry.activations.shards import ActivationStore
from perimetry.activations.site import SiteLike, as_site
from perimetry.activations.store import DTYPES, HarvestConfig, request_of
from perimetry.activations.text import HasText, PackCursor, PackedRow, shuffled
from perimetry.activations.writer import StoreWriter
from perimetry.axes import Acts
from perimetry.errors import ConfigError
from perimetry.storage import lock

__all__ = ["PairedVersions", "Versions", "harvest_versions"]

NAMES: Final = ("masked", "clean")


class Versions(NamedTuple):
    """Two stores whose row i is the same position of the same text."""

    masked: ActivationStore
    """What the model computed where some tokens were replaced."""
    clean: ActivationStore
    """What it computed of the text as it is."""

    def beside(self) -> AlignedStores:
        """Rows with the masked activation first and the clean one beside it."""
        return AlignedStores(self)


@final
class PairedVersions:
    """A source for terms on pairs: rows 2i and 2i + 1 of a batch are the masked and the clean activation of one token."""

    def __init__(self, versions: Versions) -> None:
        self.versions = versions
        """Where they are read from."""
        self._beside = versions.beside()

    def __len__(self) -> int:
        return 2 * len(self.versions.masked)

    def batches(self, batch: int, seed: int = 0, start_step: int = 0) -> Iterator[Acts]:
        """As `pairs`. Errors: `ConfigError` for an odd batch."""
        if batch % 2:
            raise ConfigError(
                f"a batch of {batch} rows cannot hold masked and clean ones in pairs; give an even number"
            )
        for rows in self._beside.batches(batch // 2, seed, start_step):
            yield torch.stack(rows.chunk(2, dim=1), 1).flatten(0, 1)

    def pairs(self, batch: int, seed: int = 0, start_step: int = 0) -> Iterator[Acts]:
        """Batches in which each masked activation is followed by the clean one of the same token."""
        return self.batches(batch, seed, start_step)


def _both(
    lm: LanguageModel,
    site: SiteLike,
    rows: Sequence[PackedRow],
    masker: Masker,
    policy: TokenPolicy,
    dtype: torch.dtype,
) -> list[Kept]:
    """Masked and clean activations of the positions that count in both: a sink in one of them counts in neither."""
    shown = masker(rows)
    plain = [row._replace(countable=other.countable) for row, other in zip(rows, shown, strict=True)]
    seen = [see(lm, part, {site: policy})[site] for part in (shown, plain)]
    common = seen[0].mask & seen[1].mask
    return [one.kept(common, dtype) for one in seen]


def harvest_versions(
    lm: LanguageModel,
    site: SiteLike,
    documents: Sequence[HasText],
    path: Path,
    config: HarvestConfig,
    *,
    progress: bool = False,
) -> Versions:
    """Store the masked and the clean activations of the same positions at one place, in `path/masked` and `path/clean`.

    A call that was killed goes on when it is made again. Errors: as `harvest`; `ConfigError` without masking.
    """
    if config.masking is None:
        raise ConfigError("two versions of the activations were asked for and no masking was given; set masking")
    ordered = shuffled(documents, config.seed)
    with contextlib.ExitStack() as stack:
        writers: list[StoreWriter] = []
        for name in NAMES:
            request: dict[str, Any] = request_of(lm, as_site(site), ordered, config, [])
            stack.enter_context(lock(path / name))
            request |= {"aligned": list(NAMES), "version": name}
            writers.append(StoreWriter(path / name, (config.tokens, config.shard_tokens), ordered, request))
            writers[-1].resume()
        if not all(writer.finished for writer in writers):
            _fill(lm, site, writers, config, progress=progress)
    return Versions(*(ActivationStore.open(path / name, verify=False) for name in NAMES))


def _fill(
    lm: LanguageModel, site: SiteLike, writers: Sequence[StoreWriter], config: HarvestConfig, *, progress: bool
) -> None:
    documents = writers[0].documents
    known = next((w.policy for w in writers if w.policy is not None), None)
    policy = known or fit_policies(lm, [site], documents, config.policy, config.context, config.batch_rows)[site]
    for writer in writers:
        if not writer.finished:
            writer.start(policy)
        writer.policy = policy
    assert config.masking is not None, "checked before"
    masker = Masker(config.masking, lm, documents, config.policy)
    todo = [writer for writer in writers if not writer.full]
    first = min((writer.cursor for writer in todo), default=Cursor(0, 0, 0, 0))
    start = PackCursor(first.document, first.offset)
    with Progress(console=Console(stderr=True), disable=not progress) as bar:
        done = sum(writer.rows for writer in writers)
        task = bar.add_task("harvest, masked and clean", total=config.tokens * len(writers), completed=done)
        stream = row_batches(documents, lm, config.policy, config.context, config.batch_rows, start)
        while any(not w.full for w in writers) and (rows := next(stream, None)) is not None:
            kept = _both(lm, site, rows, masker, policy, DTYPES[config.dtype])
            for writer, part in zip(writers, kept, strict=True):
                require_finite(part, documents, site)
                if not writer.finished:
                    bar.advance(task, writer.add(part, rows[0].start))
        for writer in writers:
            writer.finish()
