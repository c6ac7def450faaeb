"""The terms of the loss on some pairs of texts, with their gradients.

The vocabulary is met one text at a time: each text's next-token losses are taken and differentiated by themselves with respect to
its last hidden states, and one backward pass of the whole batch follows. So memory holds the logits of one text, and the head's
products are made once each way.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from perimetry.activations.policy import TokenPolicy
from perimetry.activations.twins import TwinRows
from perimetry.axes import Acts, PerToken
from perimetry.robust.adapter import Tunable
from perimetry.robust.passes import Found, head, run
from perimetry.robust.recipe import TuneConfig, Weights
from perimetry.robust.shifted import ShiftLoss, pooled

__all__ = ["Objective", "Place", "backward", "distances"]


class Place(NamedTuple):
    """Where the model is read."""

    layer: int
    """The tap."""
    policy: TokenPolicy
    """Which positions count."""


class Objective(NamedTuple):
    """What is learned."""

    place: Place
    """The tap."""
    config: TuneConfig
    """Weights of the terms."""
    shift: ShiftLoss | None
    """What the shift term pulls on; None where its weight is 0."""


class _Terms:
    """Sums of terms by name, and the loss that they make."""

    def __init__(self, weights: Weights) -> None:
        self.weights = weights.model_dump()
        self.values: dict[str, float] = {}
        self.losses: list[Tensor] = []

    def add(self, name: str, value: Float[Tensor, ""]) -> None:
        self.values[name] = self.values.get(name, 0.0) + float(value.detach())
        if self.weights[name]:
            self.losses.append(self.weights[name] * value)

    def loss(self) -> Float[Tensor, ""] | None:
        made, self.losses = self.losses, []
        return torch.stack(made).sum() if made else None


def backward(tunable: Tunable, objective: Objective, twins: Sequence[TwinRows], share: float) -> dict[str, float]:
    """Add `share` times the gradient of the mean loss of some pairs to what learns; returns each term's mean times `share`.

    Terms of weight 0 are not computed, save `retain`, which is reported where a pass over clean text is made anyway.
    """
    weights, place = objective.config.weights, objective.place
    sides = _sides(weights)
    rows = [row for twin in twins for row in (twin.clean, twin.corrupted)[_slice(sides)]]
    # First of all: where the weights themselves are tuned, the pass changes them and back, which no graph may see.
    base = _untuned(tunable, place, twins) if weights.alignment or weights.retain else None
    found = run(tunable.lm, rows, place.layer, place.policy, to_the_end=weights.to_the_end)
    terms = _Terms(weights)
    each = share / len(twins)
    leaf = None if found.hidden is None else found.hidden.detach().requires_grad_()
    if leaf is not None:
        for number, twin in enumerate(twins):
            _next_token(tunable, objective, twin, leaf[number * len(sides) : (number + 1) * len(sides)], each, terms)
            loss = terms.loss()
            if loss is not None:
                loss.backward()
    _at_the_tap(objective, twins, found, base, share, terms)
    tap = terms.loss()
    roots = (
        [(found.hidden, leaf.grad)] if leaf is not None and found.hidden is not None and leaf.grad is not None else []
    )
    tensors = [r for r, _ in roots] + ([tap] if tap is not None else [])
    slopes: list[Tensor | None] = [g for _, g in roots] + ([None] if tap is not None else [])
    torch.autograd.backward(tensors, slopes)
    return terms.values


def _sides(weights: Weights) -> tuple[str, ...]:
    """Which sides of a pair are read as tuned."""
    clean = weights.clean or weights.consistency or weights.retain
    bad = weights.perturbed or weights.consistency or weights.alignment or weights.shift
    return (*(("clean",) if clean else ()), *(("corrupted",) if bad else ()))


def _slice(sides: tuple[str, ...]) -> slice:
    return slice(0 if "clean" in sides else 1, 2 if "corrupted" in sides else 1)


def _next_token(
    tunable: Tunable, objective: Objective, twin: TwinRows, hidden: Tensor, each: float, terms: _Terms
) -> None:
    """The next-token terms of one pair."""
    weights, sides = objective.config.weights, _sides(objective.config.weights)
    logs: dict[str, Tensor] = {}
    for place, side in enumerate(sides):
        row = twin.clean if side == "clean" else twin.corrupted
        if weights.consistency or (weights.clean if side == "clean" else weights.perturbed):
            logs[side] = head(tunable.lm, hidden[place, : len(row.ids)])
    if "clean" in logs and weights.clean:
        terms.add("clean", each * _nll(logs["clean"], twin.clean.ids, range(1, len(twin.clean.ids))))
    if "corrupted" in logs and weights.perturbed:
        ids = twin.corrupted.ids
        wanted = range(1, len(ids)) if objective.config.targets == "all" else [i for i in twin.kept[1] if i]
        if len(wanted):
            terms.add("perturbed", each * _nll(logs["corrupted"], ids, wanted))
    if weights.consistency and twin.first < len(twin.ends[0]):
        clean, bad = (torch.tensor(ends[twin.first :], device=hidden.device) for ends in twin.ends)
        teacher, learner = logs["clean"].detach()[clean], logs["corrupted"][bad]
        terms.add("consistency", each * (teacher.exp() * (teacher - learner)).sum(1).mean())


def _nll(logs: Float[Tensor, "seq vocab"], ids: Sequence[int], wanted: Sequence[int]) -> Float[Tensor, ""]:
    """Mean negative log-likelihood of the tokens at some places after the first."""
    places = torch.tensor(list(wanted), device=logs.device)
    targets = torch.tensor(list(ids), device=logs.device)[places]
    return -logs[places - 1, targets].mean()


def _untuned(tunable: Tunable, place: Place, twins: Sequence[TwinRows]) -> Found:
    """What the untuned model makes of the clean sides, up to the tap."""
    with tunable.base():
        return run(tunable.lm, [twin.clean for twin in twins], place.layer, place.policy, to_the_end=False)


def _at_the_tap(
    objective: Objective, twins: Sequence[TwinRows], found: Found, base: Found | None, share: float, terms: _Terms
) -> None:
    """The terms that read the output of the tap; `base`: what the untuned model makes of the clean sides."""
    weights = objective.config.weights
    sides = _sides(weights)
    step = len(sides)
    if weights.shift and objective.shift is not None:
        counts = found.counts[step - 1 :: step]
        owner = counts.nonzero()[:, 0]
        # Texts without a token that counts would leave a gap in the numbering.
        prompt = torch.unique_consecutive(owner, return_inverse=True)[1]
        terms.add("shift", share * objective.shift(found.residual[step - 1 :: step][counts].float(), prompt))
    if base is None:
        return
    before = base.residual.float()
    if weights.retain:
        tuned = found.residual[::step].float()[:, : before.shape[1]]
        owner = torch.unique_consecutive(base.counts.nonzero()[:, 0], return_inverse=True)[1]
        drift = distances(tuned[base.counts], before[base.counts])
        terms.add("retain", share * pooled(drift[:, None], owner).mean())
    if weights.alignment:
        _alignment(found.residual[step - 1 :: step].float(), before, twins, share, terms)


def distances(moved: Acts, base: Acts) -> PerToken:
    """Squared distances, each a share of the squared norm of `base` there: a few tokens of huge norm must not outweigh all others.

    >>> distances(torch.tensor([[3.0, 4.0]]), torch.tensor([[0.0, 4.0]])).tolist()
    [0.5625]
    """
    return (moved - base).square().sum(1) / base.square().sum(1).clamp_min(1e-12)


def _alignment(tuned: Tensor, base: Tensor, twins: Sequence[TwinRows], share: float, terms: _Terms) -> None:
    """Corrupted as tuned against clean as before, at the ends of words from the first that differs; each text counts the same."""
    each = share / len(twins)
    for number, twin in enumerate(twins):
        if twin.first < len(twin.ends[0]):
            clean, bad = (torch.tensor(ends[twin.first :], device=base.device) for ends in twin.ends)
            terms.add("alignment", each * distances(tuned[number, bad], base[number, clean]).mean())
