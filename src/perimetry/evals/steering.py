"""Does an intervention promote what is wanted and suppress what is not, or does it only damage the model? (arXiv 2410.17245)

The model's own likelihoods of open-ended continuations are read, with and without the intervention: of positive ones, which show the
behaviour, and of negative ones, which show its opposite. Likelihoods are means per token of the continuation alone, so that length and
prompt do not enter. A vector of random direction and the same length, and no vector at all, are what every number is held against.
"""

from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from perimetry.activations.model import LanguageModel
from perimetry.activations.prompts import collate, length_batches
from perimetry.activations.tap import Tap
from perimetry.activations.twins import Row
from perimetry.axes import ModelBias
from perimetry.errors import EmptyText, TooFewSamples, UsageError, WidthMismatch
from perimetry.evals.sae.base import Metric
from perimetry.measures.stats import Interval, percentile_interval, resample_counts
from perimetry.runtime import generator

__all__ = [
    "METRICS",
    "SHARES",
    "Continuation",
    "Effect",
    "Likelihoods",
    "SteeringPair",
    "continuation_likelihoods",
    "continuation_of",
    "contrast_vector",
    "effects",
    "normalised",
    "random_like",
    "verdict",
]

SHARES: Final = (0.25, 0.5, 0.75, 1.0)
"""Parts of the prompts, the weakest first: positives that were least likely before, negatives that were likeliest."""
RESAMPLES: Final = 4000
PerPrompt = Float[Tensor, " prompt"]
Verdict = Literal["steers", "suppresses only", "damages", "null"]

METRICS: Final[dict[str, Metric]] = {
    "positive": Metric("nats a token", higher=True, text="rise of the likelihood of positive continuations"),
    "negative": Metric("nats a token", higher=False, text="rise of the likelihood of negative continuations"),
    "contrast": Metric("nats a token", higher=True, text="the former minus the latter"),
    "positive_published": Metric(
        "share", higher=True, text="the former by the published normaliser, which errs: see docs"
    ),
    "negative_published": Metric("share", higher=False, text="the latter by the published normaliser"),
    "positive_centred": Metric(
        "nats a token", higher=True, text="rise after the mean over both classes was taken off: blind to damage"
    ),
}
"""What the numbers mean."""


class SteeringPair(NamedTuple):
    """A prompt with a continuation that shows a behaviour and one that shows its opposite."""

    id: str
    """Name."""
    prompt: str
    """What stands before."""
    positive: str
    """The wanted continuation."""
    negative: str
    """The unwanted one."""


class Continuation(NamedTuple):
    """A prompt and what follows it, as tokens."""

    row: Row
    """Both."""
    first: int
    """First token of the continuation."""


class Likelihoods(NamedTuple):
    """Mean log-likelihood a token of each continuation, in nats."""

    positive_before: PerPrompt
    """Positive ones, without the intervention."""
    negative_before: PerPrompt
    """Negative ones."""
    positive: PerPrompt
    """Positive ones, with it."""
    negative: PerPrompt
    """Negative ones."""


class Effect(NamedTuple):
    """One number, on the weakest part of the prompts."""

    metric: str
    """Name in `METRICS`."""
    share: float
    """Which part."""
    interval: Interval
    """Estimate with a bootstrap over prompts."""


class _Kept(NamedTuple):
    positive: PerPrompt
    negative: PerPrompt


def _weakest(found: Likelihoods, share: float) -> tuple[Tensor, Tensor]:
    """Prompts whose positive was least likely, and those whose negative was likeliest."""
    n = max(1, round(share * found.positive_before.shape[0]))
    return (
        found.positive_before.argsort(stable=True)[:n],
        found.negative_before.argsort(descending=True, stable=True)[:n],
    )


def effects(found: Likelihoods, *, shares: Sequence[float] = SHARES, seed: int = 0) -> list[Effect]:
    """Rise of both classes and their contrast, on the weakest parts and on all. Errors: `TooFewSamples` below 2 prompts.

    >>> before, after = torch.tensor([-2.0, -3.0]), torch.tensor([-1.0, -2.0])
    >>> effects(Likelihoods(before, before, after, before), shares=(1.0,))[2].interval.estimate
    1.0
    """
    n = found.positive_before.shape[0]
    if n < 2:
        raise TooFewSamples(f"{n} prompts say nothing of an interval; give two or more, better fifty")
    made: list[Effect] = []
    for share in shares:
        at, other = _weakest(found, share)
        kept = _Kept((found.positive - found.positive_before)[at], (found.negative - found.negative_before)[other])
        counts = [
            resample_counts(len(rows), RESAMPLES, generator(seed + i)).double() for i, rows in enumerate((at, other))
        ]
        draws = [c @ values.double() / len(values) for c, values in zip(counts, kept, strict=True)]
        if share == 1.0:
            # Both classes are of the same prompts here, and are drawn together.
            draws[1] = counts[0] @ (found.negative - found.negative_before).double() / n
            draws[0] = counts[0] @ (found.positive - found.positive_before).double() / n
        means = [float(values.double().mean()) for values in kept]
        for metric, value, drawn in (
            ("positive", means[0], draws[0]),
            ("negative", means[1], draws[1]),
            ("contrast", means[0] - means[1], draws[0] - draws[1]),
        ):
            made.append(Effect(metric, share, percentile_interval(value, drawn, len(at), "bootstrap by prompt")))
    return made


def normalised(found: Likelihoods, share: float = 1.0) -> dict[str, float]:
    """The published normaliser, and the mean-centred variant, for comparison only.

    Published: likelihoods over minus the mean of the best negative and the worst positive, before and after by themselves. Two extreme
    prompts decide it, and damage can look like success. Centred: the mean over both classes taken off; with classes of one size the two
    rises are then each other's negatives, and damage cannot be seen at all.
    """
    at, other = _weakest(found, share)
    before = (found.negative_before.max() + found.positive_before.min()) / 2
    after = (found.negative.max() + found.positive.min()) / 2

    def rise(values: Tensor, base: Tensor, rows: Tensor) -> float:
        return float((values[rows] / -after - base[rows] / -before).mean())

    middle = ((found.positive + found.negative) - (found.positive_before + found.negative_before)).mean() / 2
    return {
        "positive_published": rise(found.positive, found.positive_before, at),
        "negative_published": rise(found.negative, found.negative_before, other),
        "positive_centred": float((found.positive - found.positive_before)[at].mean() - middle),
    }


def verdict(found: Sequence[Effect], share: float = 1.0) -> Verdict:
    """What the intervals say: `steers` where positives rise and negatives fall, `damages` where both fall, `suppresses only` where
    negatives fall and positives are not told from unchanged, else `null`."""
    by = {e.metric: e.interval for e in found if e.share == share}
    up, down = by["positive"], by["negative"]
    if down.high < 0:
        return "steers" if up.low > 0 else "damages" if up.high < 0 else "suppresses only"
    return "null"


def continuation_of(lm: LanguageModel, prompt: str, text: str, *, chat: bool = False) -> Continuation:
    """Tokens of a prompt and its continuation, each by itself, after a beginning-of-sequence token or, with `chat`, as a user's turn.

    Errors: `EmptyText`, `UsageError` for `chat` without a chat template.
    """
    tokenizer = lm.plain_tokenizer
    before = list(tokenizer.encode(prompt, add_special_tokens=False).ids)
    after = list(tokenizer.encode(text, add_special_tokens=False).ids)
    if not after:
        raise EmptyText(f"the continuation of {prompt[:40]!r} is empty; give one with a character or more")
    if chat:
        if lm.template is None:
            raise UsageError(f"{lm.name!r} has no chat template; leave chat out")
        ids = [*lm.template[0], *before, *lm.template[1]]
    else:
        ids = ([lm.bos_id] if lm.bos_id is not None else []) + before
    return Continuation(Row(ids + after, [True] * (len(ids) + len(after))), max(1, len(ids)))


@torch.no_grad()
def continuation_likelihoods(
    lm: LanguageModel,
    continuations: Sequence[Continuation],
    layer: int,
    vector: ModelBias | None = None,
    *,
    batch_tokens: int = 2048,
) -> PerPrompt:
    """Mean log-likelihood a token of each continuation, with `vector` added to the output of block `layer` at every position.

    Errors: `WidthMismatch` for a vector of another width.
    """
    if vector is not None and vector.shape != (lm.d_model,):
        raise WidthMismatch(
            f"the vector has shape {tuple(vector.shape)}, block {layer} gives width {lm.d_model}; give one of that width"
        )
    tap, out = Tap(lm, layer), torch.zeros(len(continuations))
    added = None if vector is None else vector.to(lm.device)
    for members in length_batches([len(c.row.ids) for c in continuations], batch_tokens):
        batch = collate([continuations[i].row for i in members], lm.pad_id)
        ids, attention = batch.ids.to(lm.device), batch.attention.to(lm.device)
        found = tap.run_replaced(ids, attention, None if added is None else lambda x: x + added.to(x.dtype))
        mask: Bool[Tensor, "batch seq"] = torch.zeros_like(attention, dtype=torch.bool)
        for row, i in enumerate(members):
            mask[row, continuations[i].first : len(continuations[i].row.ids)] = True
        nll = found.logit_stats(ids, attention, mask).nll.float().cpu()
        owner = mask.nonzero()[:, 0].cpu()
        counts = torch.bincount(owner, minlength=len(members))
        out[torch.tensor(members)] = -torch.zeros(len(members)).index_add(0, owner, nll) / counts
    return out


@torch.no_grad()
def contrast_vector(
    lm: LanguageModel, positive: Sequence[Continuation], negative: Sequence[Continuation], layer: int
) -> ModelBias:
    """Contrastive activation addition: mean output of block `layer` over the tokens of positive continuations minus that of negative ones."""
    means: list[Tensor] = []
    for side in (positive, negative):
        total, count = torch.zeros(lm.d_model, dtype=torch.float64), 0
        for one in side:
            ids = torch.tensor([one.row.ids], device=lm.device)
            states = Tap(lm, layer).read(ids, torch.ones_like(ids))[0, one.first :]
            total, count = total + states.double().sum(0).cpu(), count + states.shape[0]
        means.append(total / max(count, 1))
    return (means[0] - means[1]).float()


def random_like(vector: ModelBias, seed: int, *, orthogonal: bool = True) -> ModelBias:
    """A vector of random direction and the same length, orthogonal to the first where asked."""
    drawn = torch.randn(vector.shape, generator=generator(seed))
    if orthogonal:
        drawn = drawn - vector * (drawn @ vector) / vector.square().sum().clamp_min(1e-12)
    return drawn / drawn.norm() * vector.norm()
