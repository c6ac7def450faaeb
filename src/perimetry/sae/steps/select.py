"""Which latents fire: one pass over row chunks of the encoder product, read by collectors.

The product is the only dense (token, latent) matrix of a step, and of it only one chunk of rows exists at a time. This
file is the seam for a cheaper product: whatever yields the same chunks, or the same entries, can take its place.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import NamedTuple, final

import torch
from torch import Tensor
from typing_extensions import override

from perimetry.axes import Acts, Encoder, LatentBias, Latents
from perimetry.sae.steps.active import Active, flat_nonzero, stack_rows
from perimetry.sae.steps.products import row_chunks

__all__ = [
    "AboveCut",
    "BatchTopK",
    "Collector",
    "Cut",
    "PreActivations",
    "TopK",
    "Window",
    "collect",
    "collect_dense",
    "from_mask",
    "top_k_rows",
]

SAMPLE_ROWS = 32


class PreActivations(NamedTuple):
    """The encoder product `acts @ W_enc.T + b_enc`, made in row chunks when asked for."""

    acts: Acts
    """Input of the encoder, `b_dec` already taken off where the architecture does so."""
    W_enc: Encoder
    """Encoder weights."""
    b_enc: LatentBias
    """Encoder bias."""

    def chunks(self) -> Iterator[tuple[int, Latents]]:
        """First row and pre-activations of each chunk; the memory of a chunk is used again for the next one."""
        tokens, width = self.acts.shape[0], self.W_enc.shape[0]
        buffer: Tensor | None = None
        for start, stop in row_chunks(tokens, width):
            if buffer is None:
                buffer = self.acts.new_empty(stop - start, width)
            out = buffer[: stop - start]
            torch.addmm(self.b_enc, self.acts[start:stop], self.W_enc.T, out=out)
            yield start, out

    def sample(self) -> Latents:
        """Pre-activations of up to 32 rows spread evenly over the batch."""
        step = max(1, self.acts.shape[0] // SAMPLE_ROWS)
        return torch.addmm(self.b_enc, self.acts[::step][:SAMPLE_ROWS], self.W_enc.T)


class Collector(ABC):
    """Takes chunk after chunk and keeps the entries that it is there for."""

    @abstractmethod
    def take(self, pre: Latents) -> None:
        """Read the next chunk; it may be overwritten afterwards."""

    @abstractmethod
    def finish(self) -> Active | None:
        """The entries of all chunks; None asks for another pass over the product."""

    def edges(self) -> tuple[Tensor, ...]:
        """Values at which an entry comes in or falls out whatever the others are: one number each, or one a latent."""
        return ()


class Cut(Collector):
    """Keeps entries by their value alone, so that it can be served from any list of entries that holds enough of them."""

    @abstractmethod
    def floor(self) -> Tensor:
        """What an entry must exceed or reach to be of interest: one number, or one a latent; never below 0 for what fires."""

    @abstractmethod
    def of_entries(self, active: Active) -> Active | None:
        """What it keeps of entries that hold at least all those that reach `floor`, and maybe others; None asks for a lower floor."""


def collect(pre: PreActivations, collectors: list[Collector]) -> list[Active]:
    """The entries of each collector, by the fastest way that gives those of the float32 product."""
    from perimetry.sae.steps.low import low_collect, low_usable  # late: it is built on the collectors below

    if low_usable(pre, collectors):
        found = low_collect(pre, collectors)
        if found is not None:
            return found
    return collect_dense(pre, collectors)


def collect_dense(pre: PreActivations, collectors: list[Collector]) -> list[Active]:
    """Run one pass over the whole product for all collectors, and further ones for those that ask for it."""
    for _, chunk in pre.chunks():
        for collector in collectors:
            collector.take(chunk)
    done: list[Active] = []
    for collector in collectors:
        active = collector.finish()
        while active is None:
            for _, chunk in pre.chunks():
                collector.take(chunk)
            active = collector.finish()
        done.append(active)
    return done


def top_k_rows(pre: Latents, k: int) -> tuple[Tensor, Tensor]:
    """Values and latents of the k largest of each row, in descending order; ties at the cut go to the lowest latent."""
    wanted = min(k + 1, pre.shape[1])
    values, columns = pre.topk(wanted, dim=1)
    if wanted <= k:
        return values, columns
    tied = (values[:, k - 1] == values[:, k]) & (values[:, k] > 0)
    values, columns = values[:, :k], columns[:, :k]
    if bool(tied.any()):
        ordered = pre[tied].sort(dim=1, descending=True, stable=True)
        values[tied], columns[tied] = ordered.values[:, :k], ordered.indices[:, :k]
    return values, columns


def from_mask(pre: Latents, mask: Tensor) -> Active:
    """The entries of dense pre-activations where `mask` is true, latents ascending within a token."""
    flat = flat_nonzero(mask)
    tokens, width = pre.shape
    rows = torch.div(flat, width, rounding_mode="floor")
    offsets = torch.nn.functional.pad(torch.bincount(rows, minlength=tokens).cumsum(0), (1, 0))
    return Active(offsets, flat - rows * width, pre.reshape(-1)[flat], width)


@final
class TopK(Collector):
    """The k largest positive pre-activations of each token, among all latents or among some.

    With `among`, columns are positions in `among`, so that the result is a matrix over those latents alone.
    """

    def __init__(self, k: int, among: Tensor | None = None) -> None:
        self.k, self.among = k, among
        self.values: list[Tensor] = []
        self.columns: list[Tensor] = []
        self.width = 0

    @override
    def take(self, pre: Latents) -> None:
        if self.among is not None:
            pre = pre[:, self.among]
        self.width = pre.shape[1]
        values, columns = top_k_rows(pre, self.k)
        self.values.append(values)
        self.columns.append(columns)

    @override
    def finish(self) -> Active:
        return self.of_rows(torch.cat(self.values), torch.cat(self.columns), self.width)

    @staticmethod
    def of_rows(values: Tensor, columns: Tensor, width: int) -> Active:
        """The positive ones of the best k of each token."""
        tokens, k = values.shape
        offsets = torch.arange(0, tokens * k + 1, k, device=values.device)
        active = Active(offsets, columns.reshape(-1), values.reshape(-1), width)
        positive = active.values > 0
        return active if bool(positive.all()) else active.keep(positive)


@final
class AboveCut(Cut):
    """Every pre-activation strictly above its cut: one number, or one a latent. Entries at or below 0 never fire."""

    def __init__(self, cut: Tensor) -> None:
        self.cut = cut.clamp(min=0)
        self.parts: list[Active] = []

    @override
    def take(self, pre: Latents) -> None:
        self.parts.append(from_mask(pre, pre > self.cut))

    @override
    def finish(self) -> Active:
        return stack_rows(self.parts)

    @override
    def floor(self) -> Tensor:
        return self.cut

    @override
    def edges(self) -> tuple[Tensor, ...]:
        return (self.cut,)

    @override
    def of_entries(self, active: Active) -> Active:
        return active.keep(active.values > (self.cut if self.cut.ndim == 0 else self.cut[active.columns]))


@final
class Window(Cut):
    """Every pre-activation nearer than half a bandwidth to its cut, firing or not."""

    def __init__(self, cut: Tensor, bandwidth: float) -> None:
        self.cut, self.half = cut, bandwidth / 2
        self.parts: list[Active] = []

    @override
    def take(self, pre: Latents) -> None:
        self.parts.append(from_mask(pre, (pre - self.cut).abs() < self.half))

    @override
    def finish(self) -> Active:
        return stack_rows(self.parts)

    @override
    def floor(self) -> Tensor:
        return self.cut - self.half

    @override
    def edges(self) -> tuple[Tensor, ...]:
        return (self.cut - self.half, self.cut + self.half)

    @override
    def of_entries(self, active: Active) -> Active:
        cut = self.cut if self.cut.ndim == 0 else self.cut[active.columns]
        return active.keep((active.values - cut).abs() < self.half)


@final
class BatchTopK(Cut):
    """The `k * tokens` largest positive pre-activations of the whole batch; ties go to the first token, lowest latent.

    A first cut is guessed from a few rows. It is only a filter: were fewer entries above it than wanted, another pass
    is made with a lower one, so that the result never depends on the guess.
    """

    def __init__(self, k: int, tokens: int, sample: Latents) -> None:
        self.wanted = k * tokens
        self.per_row = k
        self.sample = sample
        self.margin = 2
        self.cut = self._guess()
        self.parts: list[Active] = []

    def _guess(self) -> float:
        rank = self.margin * self.per_row * self.sample.shape[0]
        if rank >= self.sample.numel():
            return 0.0
        return max(0.0, float(self.sample.reshape(-1).topk(rank).values[-1]))

    @override
    def take(self, pre: Latents) -> None:
        self.parts.append(from_mask(pre, pre > self.cut))

    @override
    def finish(self) -> Active | None:
        active = stack_rows(self.parts)
        self.parts = []
        return self._largest(active)

    @override
    def floor(self) -> Tensor:
        return torch.tensor(self.cut)

    @override
    def of_entries(self, active: Active) -> Active | None:
        return self._largest(active.keep(active.values > self.cut))

    def _largest(self, active: Active) -> Active | None:
        if active.entries <= self.wanted:
            if self.cut == 0 or active.entries == self.wanted:
                return active
            self.margin *= 4
            self.cut = self._guess()
            return None
        smallest = active.values.topk(self.wanted, sorted=False).values.min()
        above = active.values > smallest
        equal = flat_nonzero(active.values == smallest)
        above[equal[: self.wanted - int(above.sum())]] = True
        return active.keep(above)
