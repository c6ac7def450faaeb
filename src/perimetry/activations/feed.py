"""Documents to the activations that count, in one deterministic stream that can start anywhere.

The stream is cut into model batches at fixed rows, whoever reads it and wherever he starts: the numbers of a batch
depend on its composition in the last bit, and a resumed run must equal an uninterrupted one.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import NamedTuple, TypeVar, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from perimetry.activations.masking import Masker
from perimetry.activations.model import LanguageModel
from perimetry.activations.policy import TokenPolicy
from perimetry.activations.prompts import PromptBatch, collate, position_ids, scorable
from perimetry.activations.site import SiteLike, as_site
from perimetry.activations.tap import read_sites
from perimetry.activations.text import HasText, PackCursor, PackedRow, pack
from perimetry.axes import Residual, TokenIds, TokenMask
from perimetry.errors import NonFinite, TooFewSamples

__all__ = [
    "Cursor",
    "Cutter",
    "Kept",
    "Piece",
    "Seen",
    "as_read",
    "fit_policies",
    "read_kept",
    "require_finite",
    "row_batches",
    "see",
]

FIT_TOKENS = 8192
P = TypeVar("P", bound=SiteLike)


class Cursor(NamedTuple):
    """A place in the stream of kept tokens."""

    epoch: int
    """How often the documents were read before."""
    document: int
    """Document at which the model batch starts."""
    offset: int
    """Token of that document at which the model batch starts."""
    skip: int
    """Kept tokens of that model batch that come before the place."""


class Kept(NamedTuple):
    """Tokens that count, flat."""

    acts: Float[Tensor, "token d_model"]
    """Residual-stream vectors."""
    tokens: Int[Tensor, " token"]
    """Vocabulary ids."""
    positions: Int[Tensor, " token"]
    """Position in the row that the model read; the BOS is 0."""
    documents: Int[Tensor, " token"]
    """Index of the document."""

    def part(self, start: int, stop: int) -> "Kept":
        """Tokens `start` to `stop`."""
        return Kept(*(column[start:stop] for column in self))


class Piece(NamedTuple):
    """A run of kept tokens of the wanted length."""

    kept: Kept
    """The tokens."""
    end: Cursor
    """Where the next piece starts."""


def row_batches(
    documents: Sequence[HasText],
    lm: LanguageModel,
    policy: TokenPolicy,
    context: int,
    rows: int,
    start: PackCursor | None = None,
) -> Iterator[list[PackedRow]]:
    """Packed rows in model batches of `rows`, as the text has them; `start` must be where a batch starts."""
    packed = pack(documents, lm, policy, context, start=start)
    while batch := list(islice(packed, rows)):
        yield batch


def as_read(rows: Sequence[PackedRow], masker: Masker | None, epoch: int = 0) -> Sequence[PackedRow]:
    """The rows as the model shall read them."""
    return rows if masker is None else masker(rows, epoch)


def _where(site: SiteLike) -> str:
    site = as_site(site)
    return f"after block {site.layer}" if site.place == "resid_post" else f"at {site.place} of block {site.layer}"


def require_finite(kept: Kept, documents: Sequence[HasText], site: SiteLike) -> None:
    """Refuse activations that are no numbers. Errors: `NonFinite`, which names document and position."""
    bad = ~torch.isfinite(kept.acts).all(1)
    if bool(bad.any()):
        first = int(bad.nonzero()[0])
        raise NonFinite(
            f"the activations {_where(site)} are NaN or infinite in document "
            f"{documents[int(kept.documents[first])].id!r} at position {int(kept.positions[first])}; finite numbers are "
            "wanted; remove the document, or compute in float32"
        )


class Seen(NamedTuple):
    """What the model computed of a batch of rows at one place."""

    batch: PromptBatch
    """The rows, padded."""
    source: TokenIds
    """Index of the document that each position belongs to."""
    residual: Residual
    """Activations there, on the CPU."""
    mask: TokenMask
    """Positions that count there."""

    def kept(self, mask: TokenMask, dtype: torch.dtype) -> Kept:
        """The positions under `mask`, flat."""
        positions = position_ids(self.batch.attention)
        return Kept(self.residual[mask].to(dtype), self.batch.ids[mask], positions[mask], self.source[mask])


def see(lm: LanguageModel, rows: Sequence[PackedRow], policies: Mapping[P, TokenPolicy]) -> dict[P, Seen]:
    """One forward pass over a model batch, read at each place of `policies`."""
    batch = collate(rows, lm.pad_id)
    residuals = read_sites(lm, [as_site(place) for place in policies], batch.ids, batch.attention)
    source = torch.zeros_like(batch.ids)
    for i, row in enumerate(rows):
        source[i, : len(row.source)] = torch.tensor(row.source)
    found = {place: residuals[as_site(place)].cpu() for place in policies}
    return {p: Seen(batch, source, found[p], scorable(found[p], batch.countable, policies[p])) for p in policies}


def read_kept(
    lm: LanguageModel,
    rows: Sequence[PackedRow],
    documents: Sequence[HasText],
    policies: Mapping[P, TokenPolicy],
    dtype: torch.dtype,
    *,
    aligned: bool = False,
) -> dict[P, Kept]:
    """The tokens of one model batch that count, at each place of `policies`, on the CPU.

    With `aligned` only those that count at every place, so that row i is the same token everywhere. Errors: `NonFinite`,
    which names document and position.
    """
    seen = see(lm, rows, policies)
    common = torch.stack([one.mask for one in seen.values()]).all(0)
    out: dict[P, Kept] = {}
    for place, one in seen.items():
        out[place] = one.kept(common if aligned else one.mask, dtype)
        require_finite(out[place], documents, place)
    return out


def fit_policies(
    lm: LanguageModel,
    places: Sequence[P],
    documents: Sequence[HasText],
    policy: TokenPolicy,
    context: int,
    rows: int,
) -> dict[P, TokenPolicy]:
    """The policy of each place, its sink threshold fitted where it has none: `sink_ratio` times the median norm there of
    the countable positions after the first, over the first 8192 tokens.

    Errors: `TooFewSamples` when no token counts, `NonFinite`.
    """
    if policy.max_norm is not None:
        return dict.fromkeys(places, policy)
    norms: dict[P, list[Tensor]] = {place: [] for place in places}
    seen = 0
    for batch in row_batches(documents, lm, policy, context, rows):
        for place, kept in read_kept(lm, batch, documents, dict.fromkeys(places, policy), torch.float32).items():
            norms[place].append(kept.acts[kept.positions > 0].norm(dim=1))
        seen += sum(len(row.ids) for row in batch)
        if seen >= FIT_TOKENS:
            break
    if not any(part.numel() for part in norms[places[0]]):
        raise TooFewSamples(
            f"none of the tokens of {len(documents)} documents counts under the token policy; give texts with plain "
            "words"
        )
    return {place: policy.fitted(float(torch.cat(norms[place]).median())) for place in places}


@final
class Cutter:
    """Cuts a stream of kept tokens into pieces of exactly `size`, each with the place where the next one starts."""

    def __init__(self, size: int, skip: int = 0) -> None:
        self._size = size
        self._skip = skip
        self._parts: list[Kept] = []
        self._have = 0
        self._end = Cursor(0, 0, 0, 0)

    def _join(self) -> Piece:
        kept = Kept(*(torch.cat(column) for column in zip(*self._parts, strict=True)))
        self._parts, self._have = [], 0
        return Piece(kept, self._end)

    def add(self, kept: Kept, epoch: int, at: PackCursor) -> Iterator[Piece]:
        """Take the kept tokens of the model batch that starts at `at`; give the pieces that are full."""
        count = kept.tokens.shape[0]
        used, self._skip = min(self._skip, count), max(0, self._skip - count)
        while used < count:
            stop = min(count, used + self._size - self._have)
            self._parts.append(kept.part(used, stop))
            self._have += stop - used
            used = stop
            self._end = Cursor(epoch, at.document, at.offset, used)
            if self._have == self._size:
                yield self._join()

    def resize(self, size: int) -> None:
        """Cut the next pieces at another size."""
        self._size = size

    def rest(self) -> Piece | None:
        """What is left when the stream has ended, or None."""
        return self._join() if self._have else None
