"""From prompts to evidence at several blocks: one forward pass, stopped at the deepest of them."""

from collections.abc import Iterator, Sequence
from typing import final

from perimetry.activations.model import LanguageModel
from perimetry.activations.policy import TokenPolicy
from perimetry.activations.prompts import batch_runs, collate
from perimetry.activations.site import Site
from perimetry.activations.tap import read_layers, read_layers_with_logits
from perimetry.errors import ConfigError, ModelMismatch
from perimetry.shift.evidence import Capture, Extractor, Pass, Prompt, Side, join_captures

__all__ = ["SameTap", "Taps", "tap_names"]


def tap_names(layers: Sequence[int]) -> list[str]:
    """The name of each tap, by the block whose output it reads.

    >>> tap_names([4, 12])
    ['layer-04', 'layer-12']
    """
    return [str(Site(layer)) for layer in layers]


@final
class Taps:
    """One language model tapped after several blocks.

    The taps share the encoding of prompts and the rule which positions count, but for `max_norm`: what is an attention
    sink depends on the block. Errors: `ConfigError` for less than two taps or two of the same block, `ModelMismatch` for
    taps of different models, `PolicyMismatch`.
    """

    def __init__(self, extractors: Sequence[Extractor]) -> None:
        layers = [e.tap.layer for e in extractors]
        if len(layers) < 2:
            raise ConfigError(f"{len(layers)} tap was given; at least two are wanted; for one use a meter of one layer")
        if len(set(layers)) < len(layers):
            twice = next(layer for layer in layers if layers.count(layer) > 1)
            raise ConfigError(
                f"block {twice} is tapped twice; several taps are of different blocks; give SAEs of different layers"
            )
        first = extractors[0]
        for other in extractors[1:]:
            if other.lm is not first.lm:
                raise ModelMismatch(
                    f"the taps read {first.lm.name!r} and {other.lm.name!r}, which are not one loaded model; load it once and "
                    "give it to all"
                )
            first.policy.model_copy(update={"max_norm": None}).require_same(
                other.policy.model_copy(update={"max_norm": None}), f"the tap of block {other.tap.layer}"
            )
        self.extractors = tuple(extractors)

    @property
    def lm(self) -> LanguageModel:
        """The language model that is read."""
        return self.extractors[0].lm

    @property
    def policy(self) -> TokenPolicy:
        """How prompts are encoded; its `max_norm` is that of the first tap."""
        return self.extractors[0].policy

    @property
    def layers(self) -> list[int]:
        """The block of each tap."""
        return [e.tap.layer for e in self.extractors]

    @property
    def shares(self) -> list[bool]:
        """For each tap, whether it gives what the first one gives: never."""
        return [False] * len(self.extractors)

    def capture(
        self,
        prompts: Sequence[Prompt],
        *,
        logits: bool,
        foresight: bool = False,
        batch_tokens: int = 4096,
        side: Side = "right",
    ) -> Iterator[tuple[Capture, ...]]:
        """As `Extractor.capture`, but each batch gives a capture of every tap, all from the same forward pass."""
        for runs in batch_runs([len(p.encoded.ids) for p in prompts], batch_tokens):
            found = [self._run(rows, [prompts[i] for i in rows], logits, foresight, side) for rows in runs]
            yield tuple(join_captures(captures) for captures in zip(*found, strict=True))

    def _run(
        self, rows: Sequence[int], prompts: Sequence[Prompt], logits: bool, foresight: bool, side: Side
    ) -> list[Capture]:
        batch = collate([p.encoded for p in prompts], self.lm.pad_id, side)
        ids, attention = batch.ids.to(self.lm.device), batch.attention.to(self.lm.device)
        if logits or foresight:
            full = read_layers_with_logits(self.lm, self.layers, ids, attention)
            found = [Pass(full[layer].residual, full[layer]) for layer in self.layers]
        else:
            read = read_layers(self.lm, self.layers, ids, attention)
            found = [Pass(read[layer], None) for layer in self.layers]
        captures: list[Capture] = []
        for extractor, passed in zip(self.extractors, found, strict=True):
            like = captures[0] if captures else None
            captures.append(extractor.gather(rows, prompts, batch, passed, logits=logits, like=like))
        return captures


@final
class SameTap:
    """One tap that several SAEs read, in the place of several taps."""

    def __init__(self, extractor: Extractor, saes: int) -> None:
        self.extractors = (extractor,) * saes

    @property
    def shares(self) -> list[bool]:
        """For each SAE, whether it reads what the first one reads: all others do."""
        return [bool(i) for i in range(len(self.extractors))]

    def capture(
        self, prompts: Sequence[Prompt], *, logits: bool, foresight: bool = False, batch_tokens: int = 4096
    ) -> Iterator[tuple[Capture, ...]]:
        """A capture for each SAE, every time the same."""
        one = self.extractors[0]
        for capture in one.capture(prompts, logits=logits, foresight=foresight, batch_tokens=batch_tokens):
            yield (capture,) * len(self.extractors)
