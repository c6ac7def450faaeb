"""What a corruption costs a language model in next tokens, and how much of that cost tuning takes away.

The cost is counted on the words that nobody touched, which are the same on both sides: what a typing error itself will be cannot be
foretold, so the loss on corrupted words has a part that no tuning can take away. That loss is reported beside it, a word each.
"""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from perimetry.activations.model import LanguageModel
from perimetry.activations.prompts import length_batches
from perimetry.activations.twins import TwinRows
from perimetry.errors import Incompatible
from perimetry.evals.damage import last_hidden, log_probabilities
from perimetry.evals.sae.base import Metric
from perimetry.evals.sae.units import Cell, Units, ratios
from perimetry.ui import track

__all__ = ["METRICS", "NextTokens", "next_tokens", "robustness_units"]

PerTwin = Float[Tensor, " twin"]

METRICS: Final[dict[str, Metric]] = {
    "agreement": Metric(
        "share", higher=True, text="ends of words after which the likeliest next token is the one after the clean text"
    ),
    "clean_loss": Metric("nats a token", higher=False, text="next-token loss on the clean text"),
    "clean_rise": Metric("share", higher=False, text="clean loss of the tuned model over that of the base, minus 1"),
    "gap": Metric(
        "nats a token", higher=False, text="loss on untouched words after corrupted text, minus after clean text"
    ),
    "gap_closed": Metric(
        "share", higher=True, text="share of the base's gap that the tuned model's own gap no longer has"
    ),
    "loss": Metric("nats a token", higher=False, text="next-token loss on untouched words after corrupted text"),
    "loss_all": Metric(
        "nats a word",
        higher=False,
        text="next-token loss on all of the corrupted text, which itself can only in part be foretold",
    ),
    "recovered": Metric(
        "share",
        higher=True,
        text="share of the base's gap by which the loss on untouched words fell, adaptation to the text included",
    ),
    "recovered_all": Metric("share", higher=True, text="the same on all words, corrupted ones included"),
}
"""What the numbers mean."""


class NextTokens(NamedTuple):
    """Sums over each pair, float64."""

    ids: tuple[str, ...]
    """Names of the pairs."""
    clean: PerTwin
    """Loss on the clean text, in nats."""
    tokens: PerTwin
    """Tokens of that."""
    words: PerTwin
    """Words of either side."""
    kept_clean: PerTwin
    """Loss on untouched words after clean text."""
    kept: PerTwin
    """Loss on the same words after corrupted text."""
    kept_tokens: PerTwin
    """Tokens of those words."""
    corrupted: PerTwin
    """Loss on all of the corrupted text."""
    agree: PerTwin
    """Ends of words, from the first corrupted one on, after which the likeliest next token is the same on both sides."""
    ends: PerTwin
    """Such ends."""


def next_tokens(
    lm: LanguageModel,
    cases: Mapping[str, Sequence[TwinRows]],
    *,
    batch_tokens: int = 2048,
    what: str = "next tokens",
    progress: bool = False,
) -> dict[str, NextTokens]:
    """Read both sides of each pair, by case: the same clean texts under several corruptions, each clean text read once.

    The logits of one text and of its clean twin exist at a time. `what`: beside the bar, with `progress`. Errors: `Incompatible` for cases of different clean texts.
    """
    names, columns = list(cases), list(cases.values())
    if any([(t.id, t.clean.ids) for t in twins] != [(t.id, t.clean.ids) for t in columns[0]] for twins in columns):
        raise Incompatible(f"the cases {names} are pairs of different clean texts; corrupt the same ones")
    texts = list(zip(*columns, strict=True))
    sums = torch.zeros(len(names), len(texts), 9, dtype=torch.float64)
    sides = len(names) + 1
    lengths = [sides * max(len(row.ids) for t in twins for row in (t.clean, t.corrupted)) for twins in texts]
    for members in track(length_batches(lengths, batch_tokens), what, len(texts), progress, len):
        hidden = last_hidden(
            lm, [row for i in members for row in (texts[i][0].clean, *(t.corrupted for t in texts[i]))]
        )
        for at, i in enumerate(members):
            clean, *bad = hidden[sides * at : sides * (at + 1)]
            before = log_probabilities(lm, clean[: len(texts[i][0].clean.ids)])
            for case, (twin, side) in enumerate(zip(texts[i], bad, strict=True)):
                after = log_probabilities(lm, side[: len(twin.corrupted.ids)])
                sums[case, i] = _sums(twin, before, after)
    ids = tuple(twins[0].id for twins in texts)
    return {name: NextTokens(ids, *sums[case].unbind(1)) for case, name in enumerate(names)}


def _sums(twin: TwinRows, clean: Tensor, bad: Tensor) -> Tensor:
    """What one pair adds, from the log-probabilities of both sides."""
    nll = [
        -log[:-1].gather(1, torch.tensor(row.ids[1:], device=log.device)[:, None])[:, 0].double()
        for log, row in zip((clean, bad), (twin.clean, twin.corrupted), strict=True)
    ]
    # The first token of a row has nothing before it that could foretell it.
    kept = [(a, b) for a, b in zip(*twin.kept, strict=True) if a and b]
    ends = list(zip(*twin.ends, strict=True))[twin.first :]
    best = [log.argmax(1) for log in (clean, bad)]
    same = sum(int(best[0][a] == best[1][b]) for a, b in ends)
    sums = (
        float(nll[0].sum()),
        len(nll[0]),
        len(twin.ends[0]),
        sum(float(nll[0][a - 1]) for a, _ in kept),
        sum(float(nll[1][b - 1]) for _, b in kept),
        len(kept),
        float(nll[1].sum()),
        same,
        len(ends),
    )
    return torch.tensor(sums, dtype=torch.float64)


def robustness_units(found: NextTokens, base: NextTokens, case: str, arm: str) -> list[Units]:
    """The numbers of `METRICS` by text, beside those of the untuned model on the same pairs. Errors: `Incompatible`, `TooFewSamples`."""
    if found.ids != base.ids:
        raise Incompatible("the tuned model and the base read different pairs; read the same ones with both")
    gap, before = found.kept - found.kept_clean, base.kept - base.kept_clean
    # The base's clean loss on all words is that of its clean text, word for word.
    room = base.corrupted - base.clean
    parts = {
        "agreement": (found.agree, found.ends, False),
        "clean_loss": (found.clean, found.tokens, False),
        "clean_rise": (found.clean - base.clean, base.clean, False),
        "gap": (gap, found.kept_tokens, False),
        "gap_closed": (gap, before, True),
        "loss": (found.kept, found.kept_tokens, False),
        "loss_all": (found.corrupted, found.words, False),
        "recovered": (base.kept - found.kept, before, False),
        "recovered_all": (base.corrupted - found.corrupted, room, False),
    }
    return [
        ratios(Cell(name, case=case, arm=arm), found.ids, over, under, complement=complement)
        for name, (over, under, complement) in parts.items()
    ]
