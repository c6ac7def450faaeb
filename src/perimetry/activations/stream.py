"""Shuffled training batches straight from the model, without a store."""

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, final

import torch
from pydantic import PositiveInt
from torch import Tensor

from perimetry.activations.feed import Cursor, Cutter, as_read, fit_policies, read_kept, row_batches
from perimetry.activations.masking import Masker, ReadsMasked, require_plain
from perimetry.activations.model import LanguageModel
from perimetry.activations.permutation import Permutation
from perimetry.activations.policy import TokenPolicy
from perimetry.activations.site import Site, SiteLike, as_site
from perimetry.activations.tap import Tap
from perimetry.activations.text import HasText, PackCursor, documents_digest, shuffled
from perimetry.axes import Acts
from perimetry.errors import ConfigError, Incompatible, TooFewSamples

__all__ = ["LiveStream", "StreamConfig"]

REMEMBERED = 8
ORIGIN = Cursor(0, 0, 0, 0)


class StreamConfig(ReadsMasked):
    """How a live stream reads and mixes."""

    context: PositiveInt = 512
    """Tokens of a packed row, BOS included."""
    batch_rows: PositiveInt = 8
    """Packed rows of a forward pass."""
    chunk_tokens: PositiveInt = 65_536
    """Tokens that are shuffled together; about three times as many are held, at each place that is read. Even."""
    policy: TokenPolicy = TokenPolicy()
    """Which tokens count; a missing sink threshold is fitted on the first 8192 tokens."""
    seed: int = 0
    """Order of the documents; every epoch has its own."""
    background: bool = True
    """Read the next chunk while the batches of this one are used; the batches are the same either way."""


class _Chunk(NamedTuple):
    number: int
    acts: Tensor


@final
class LiveStream:
    """Batches of activations of documents, read as they are needed; without end, epoch after epoch.

    The stream of kept tokens is cut into chunks of `chunk_tokens`. Each chunk is shuffled and split in halves; what is
    handed out together is the second half of one chunk and the first half of the next, shuffled again. So a batch
    mixes the tokens of two chunks, and depends on those two alone: going on from a step costs at most two chunks of
    forward passes once `restore` has told where they start. Without `restore` the model reads everything before the
    step again (the numbers are the same).
    """

    def __init__(
        self,
        lm: LanguageModel,
        places: SiteLike | Sequence[SiteLike],
        documents: Sequence[HasText],
        config: StreamConfig | None = None,
    ) -> None:
        self.lm = lm
        """The model that is read."""
        chosen = [places] if isinstance(places, SiteLike) else list(dict.fromkeys(places))
        self.sites = tuple(as_site(place) for place in chosen)
        """The places that are read: their activations stand side by side in a row, of tokens that count at all of them."""
        for site in self.sites:
            Tap(lm, site.layer)
        self.config = config or StreamConfig()
        """How it reads and mixes."""
        self.d_model = lm.d_model
        """Width of the activations at one place."""
        if self.config.chunk_tokens % 2:
            raise ConfigError(f"chunk_tokens is {self.config.chunk_tokens}; wanted an even number; add one")
        require_plain(self.config.masking, "a store of both versions")
        self._documents = list(documents)
        self._starts = {0: ORIGIN}
        self._policies: dict[Site, TokenPolicy] | None = None
        self._identity: str | None = None

    @property
    def policies(self) -> dict[Site, TokenPolicy]:
        """The token policy at each place; sink thresholds are fitted at the first use. Errors: `TooFewSamples`, `NonFinite`."""
        if self._policies is None:
            c = self.config
            self._policies = fit_policies(self.lm, self.sites, self._epoch(0), c.policy, c.context, c.batch_rows)
        return self._policies

    @property
    def policy(self) -> TokenPolicy:
        """The token policy at the first place."""
        return self.policies[self.sites[0]]

    def _epoch(self, epoch: int) -> list[HasText]:
        return shuffled(self._documents, f"{self.config.seed}:{epoch}")

    def _name(self) -> str:
        if self._identity is None:
            settings = self.config.model_copy(update={"background": True})
            digest = documents_digest(shuffled(self._documents, self.config.seed))
            plain = self.sites == (Site(self.sites[0].layer),)
            places = str(self.sites[0].layer) if plain else "+".join(map(str, self.sites))
            self._identity = f"{self.lm.revision}:{places}:{settings.fingerprint()}:{digest}"
        return self._identity

    def state(self) -> dict[str, Any]:
        """What `restore` needs, as plain JSON values: where the last chunks start, and the fitted thresholds."""
        starts = {str(k): list(v) for k, v in self._starts.items()}
        norms = [self.policies[site].max_norm for site in self.sites]
        return {"stream": self._name(), "max_norm": norms if len(norms) > 1 else norms[0], "starts": starts}

    def restore(self, state: dict[str, Any]) -> None:
        """Take over where the chunks of an earlier stream started, so that `batches(start_step=...)` is cheap.

        Errors: `Incompatible` when the state is of another model, layer, configuration or other documents.
        """
        if state.get("stream") != self._name():
            raise Incompatible(
                "the saved state is of another live stream (model, layer, configuration or documents differ); give the "
                "same ones, or start anew"
            )
        norms = state["max_norm"] if isinstance(state["max_norm"], list) else [state["max_norm"]]
        fitted = [self.config.policy.model_copy(update={"max_norm": norm}) for norm in norms]
        self._policies = dict(zip(self.sites, fitted, strict=True))
        self._starts = {0: ORIGIN} | {int(k): Cursor(*v) for k, v in state["starts"].items()}

    def _remember(self, index: int, start: Cursor) -> None:
        starts = self._starts | {index: start}
        recent = sorted(starts)[-REMEMBERED:]
        self._starts = {k: starts[k] for k in {0, *recent}}

    def _chunks(self, first: int, stop: threading.Event) -> Iterator[_Chunk]:
        """Chunks from `first` on; those between the nearest known start and `first` are read and dropped."""
        c, policies = self.config, self.policies
        index = max(k for k in self._starts if k <= first)
        at = self._starts[index]
        cutter = Cutter(c.chunk_tokens, at.skip)
        epoch, begin = at.epoch, PackCursor(at.document, at.offset)
        while not stop.is_set():
            documents, read = self._epoch(epoch), 0
            masker = None if c.masking is None else Masker(c.masking, self.lm, documents, c.policy)
            for rows in row_batches(documents, self.lm, c.policy, c.context, c.batch_rows, begin):
                # At interpreter exit nobody closes the generator, and the exit waits for this thread.
                if stop.is_set() or not threading.main_thread().is_alive():
                    return
                shown = as_read(rows, masker, epoch)
                found = read_kept(self.lm, shown, documents, policies, self.lm.dtype, aligned=True)
                kept = found[self.sites[0]]
                if len(found) > 1:
                    kept = kept._replace(acts=torch.cat([found[site].acts for site in self.sites], 1))
                read += kept.tokens.shape[0]
                for piece in cutter.add(kept, epoch, rows[0].start):
                    if index >= first:
                        yield _Chunk(index, piece.kept.acts)
                    index, at = index + 1, piece.end
                    self._remember(index, at)
            if begin == PackCursor(0, 0) and not read:
                raise TooFewSamples(
                    f"{len(documents)} documents hold no token that counts; give texts with plain words"
                )
            epoch, begin = epoch + 1, PackCursor(0, 0)

    def _ahead(self, first: int) -> Iterator[_Chunk]:
        """The chunks, the next one read by another thread where the configuration says so."""
        stop = threading.Event()
        chunks = self._chunks(first, stop)
        if not self.config.background:
            yield from chunks
            return
        with ThreadPoolExecutor(1, "live-stream") as pool:
            try:
                pending = pool.submit(next, chunks)
                while True:
                    chunk = pending.result()
                    pending = pool.submit(next, chunks)
                    yield chunk
            finally:
                stop.set()

    def _pools(self, first: int, seed: int) -> Iterator[Tensor]:
        """What is handed out together, from pool `first` on: pool 0 is half a chunk, all others are whole."""
        half = self.config.chunk_tokens // 2

        def order(n: int, key: int, kind: int) -> Tensor:
            return Permutation(n, seed, 2 * key + kind)(torch.arange(n))

        def mixed(chunk: _Chunk) -> Tensor:
            return chunk.acts[order(2 * half, chunk.number, 0)]

        before: Tensor | None = None
        for chunk in self._ahead(max(first - 1, 0)):
            after = mixed(chunk)
            if before is not None:
                yield torch.cat([before[half:], after[:half]])[order(2 * half, chunk.number, 1)]
            elif first == 0:
                yield after[:half]
            before = after

    def batches(self, batch: int, seed: int = 0, start_step: int = 0) -> Iterator[Acts]:
        """Shuffled batches in float32, without end, from any step; deterministic in all arguments.

        Errors: `NonFinite` (document and position named), `TooFewSamples`, `ConfigError`.
        """
        size, half = self.config.chunk_tokens, self.config.chunk_tokens // 2
        place = start_step * batch
        first = 0 if place < half else 1 + (place - half) // size
        drop = place - (0 if first == 0 else half + (first - 1) * size)
        pools = self._pools(first, seed)
        have = next(pools)[drop:]
        while True:
            while have.shape[0] < batch:
                have = torch.cat([have, next(pools)])
            yield have[:batch].float().clone()
            have = have[batch:]
