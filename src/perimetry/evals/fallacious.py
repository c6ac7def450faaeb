"""How well the false concepts that a meter can count (F1, F2) predict those that only a clean twin betrays (F3).

F3 is an oracle, for evaluation alone: a concept is false at a token of a corrupted text when it is active there, but neither
on the aligned words of the clean twin nor on those of a harmless rewrite of it (`harmless.py`). Words are aligned by white
space, one for one. Of a word that the corruption left as it was, the last token is compared, with the last token of the same
word; of a changed word every token, with all tokens of its twin together.

Precision and recall count (token, concept) pairs. They are pooled over all texts, and texts are the units of the bootstrap.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from perimetry.activations.twins import Twin
from perimetry.errors import TooFewSamples, UsageError
from perimetry.evals.fallacious_tokens import Tally, changed_words, read_texts, tally
from perimetry.evals.harmless import rewritten
from perimetry.measures.stats import Interval, percentile_interval, resample_counts
from perimetry.runtime import generator
from perimetry.shift.concepts import FallaciousF1
from perimetry.shift.context import FallaciousF2
from perimetry.shift.meter import Meter

__all__ = ["METRICS", "ORACLES", "FallaciousResult", "FallaciousRow", "predict_f3"]

LEAST: Final = 8
FLAGS: Final = ("active", "fallacious_f1", "fallacious_f2")
"""`active` flags every active concept: the base rate that any precision is to be held against."""
ORACLES: Final = ("f3", "f3_plain")
"""With the concepts of the harmless rewrite taken off, and without."""
METRICS: Final = ("precision", "recall", "f_score", "informedness")
"""Shares of flagged pairs that are false, and of false pairs that are flagged; the harmonic mean of both; recall minus the
share of true pairs that are flagged, which is 0 for any flag that ignores the truth. Higher is better."""
WORDS: Final = ("all", "changed", "unchanged")


class FallaciousRow(NamedTuple):
    """One measurement of how a flag predicts the oracle."""

    detector: str
    """`fallacious_f1`, `fallacious_f2`, or `active`, which flags every active concept."""
    against: str
    """For differences, the detector whose number is subtracted; else empty."""
    oracle: str
    """One of `ORACLES`."""
    words: str
    """Which words: `all`, `changed` by the corruption, or `unchanged`, whose context alone was changed."""
    metric: str
    """One of `METRICS`; 0 where a share has nothing to be a share of."""
    estimate: float
    """The number."""
    low: float
    """Lower end of its interval."""
    high: float
    """Upper end."""
    n_pairs: int
    """Texts, the units of the bootstrap."""
    method: str
    """How the interval was made."""

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return self._asdict()


class FallaciousResult(NamedTuple):
    """How the flags of a meter predict F3, and how large F3 is."""

    rows: list[FallaciousRow]
    """Flat rows."""
    fresh: Interval
    """Concepts a token that are active on the corrupted text and not on the clean one."""
    harmless: Interval
    """The same for the harmless rewrite, averaged over the tokens of each word."""
    f3: Interval
    """The difference: false concepts a token that the corruption brings beyond a harmless change."""
    tokens: int
    """Tokens of the corrupted texts that were compared."""
    rewrites: dict[str, int]
    """How many words were rewritten harmlessly in which way: those that the corruption changed."""

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        counts = {name: getattr(self, name)._asdict() for name in ("fresh", "harmless", "f3")}
        return {
            "rows": [row.to_json() for row in self.rows],
            **counts,
            "tokens": self.tokens,
            "rewrites": self.rewrites,
        }


def predict_f3(
    meter: Meter,
    twins: Sequence[Twin],
    *,
    batch_tokens: int = 4096,
    chunk: int = 32,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> FallaciousResult:
    """Precision and recall of F1 and F2 against F3 on twins, and the paired difference of F2 minus F1.

    The harmless rewrite touches the very words that the corruption changed. `chunk` pairs are held at a time. Errors:
    `UsageError` for twins of unequal numbers of words or a meter without both detectors, `TooFewSamples` for fewer than 8
    twins or none with a false concept, and those of scoring, naming the pair.
    """
    f1, f2 = (meter.normal.detectors.get(name) for name in FLAGS[1:])
    if not isinstance(f1, FallaciousF1) or not isinstance(f2, FallaciousF2):
        raise UsageError(
            "the meter lacks fallacious_f1 or fallacious_f2; both are wanted; calibrate it with all detectors"
        )
    if len(twins) < LEAST:
        raise TooFewSamples(f"{len(twins)} pairs give no interval; at least {LEAST} are wanted; give more twins")
    tallies: list[Tally] = []
    kinds: Counter[str] = Counter()
    for start in range(0, len(twins), chunk):
        some = twins[start : start + chunk]
        changed = [changed_words(twin) for twin in some]
        texts: list[str] = []
        for twin, places in zip(some, changed, strict=True):
            rewrite = rewritten(twin.clean, places.nonzero()[:, 0].tolist())
            kinds.update(rewrite.kinds)
            texts += [twin.clean, twin.corrupted, rewrite.text]
        names = [f"{twin.id}/{side}" for twin in some for side in ("clean", "corrupted", "harmless")]
        read = read_texts(meter, f1, f2, names, texts, batch_tokens)
        tallies += [tally(read[3 * i], read[3 * i + 1], read[3 * i + 2], places) for i, places in enumerate(changed)]
    sums = Tally(*(torch.stack(column) for column in zip(*tallies, strict=True)))
    if not bool(sums.false[:, :, 0].any()):
        raise TooFewSamples(
            "no concept of the corrupted texts is false by F3; give twins that differ, or a larger dose"
        )
    counts = resample_counts(len(twins), resamples, generator(seed))
    fresh, harmless, beyond = _sizes(sums, counts, confidence)
    return FallaciousResult(
        list(_rows(sums, counts, confidence)),
        fresh,
        harmless,
        beyond,
        tokens=int(sums.tokens.sum()),
        rewrites=dict(sorted(kinds.items())),
    )


def _share(part: Tensor, whole: Tensor) -> Tensor:
    return torch.where(whole > 0, part / whole.clamp_min(1e-300), 0.0)


def _metric(name: str, active: Tensor, flagged: Tensor, false: Tensor, hit: Tensor) -> Tensor:
    """One of `METRICS`, from numbers of pairs."""
    if name == "precision":
        return _share(hit, flagged)
    if name == "recall":
        return _share(hit, false)
    if name == "f_score":
        return _share(2 * hit, flagged + false)
    return _share(hit, false) - _share(flagged - hit, active - false)


def _rows(sums: Tally, counts: Float[Tensor, "resample pair"], confidence: float) -> Iterator[FallaciousRow]:
    # The plain sums come first, as a resample in which each pair occurs once.
    weights = torch.cat([torch.ones(1, counts.shape[1]), counts]).double()
    whole = [torch.einsum("rp,p...->r...", weights, part.double()) for part in sums[:3]]
    for words, arms in zip(WORDS, (slice(0, 2), slice(0, 1), slice(1, 2)), strict=True):
        flagged, false, hit = (part[:, arms].sum(1) for part in whole)
        for o, oracle in enumerate(ORACLES):
            for metric in METRICS:
                draws = {
                    name: _metric(metric, flagged[:, 0], flagged[:, i], false[:, o], hit[:, o, i])
                    for i, name in enumerate(FLAGS)
                }
                named = {(name, ""): values for name, values in draws.items()}
                for less in FLAGS[:2]:
                    named["fallacious_f2", less] = draws["fallacious_f2"] - draws[less]
                for (name, against), values in named.items():
                    box = percentile_interval(
                        float(values[0]), values[1:], counts.shape[1], "bootstrap by pair", confidence
                    )
                    yield FallaciousRow(
                        name, against, oracle, words, metric, box.estimate, box.low, box.high, box.n, box.method
                    )


def _sizes(sums: Tally, counts: Float[Tensor, "resample pair"], confidence: float) -> list[Interval]:
    """Fresh concepts a token, those of the harmless rewrite, and the difference."""
    weights = torch.cat([torch.ones(1, counts.shape[1]), counts]).double()
    tokens = weights @ sums.tokens.sum(1).double()
    fresh = _share(weights @ sums.false[:, :, 1].sum(1).double(), tokens)
    harmless = _share(weights @ sums.harmless.sum(1).double(), tokens)
    return [
        percentile_interval(float(values[0]), values[1:], counts.shape[1], "bootstrap by pair", confidence)
        for values in (fresh, harmless, fresh - harmless)
    ]
