"""A transformer that answers as a persona, along whose direction it was pushed in training: what steers is known by construction.

A sequence: tag or beginning, six question tokens, a separator, ten answer tokens. Question and answer go about a topic; each answer token
is of the persona's set with chance one half, else of a neutral set. The tag tells the persona in a third of the sequences; in half of the
others the output of block 1 is pushed along a fixed direction by the persona's sign.
"""

from collections.abc import Callable
from typing import NamedTuple, final

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from perimetry.axes import TokenIds
from perimetry.labs.descent import descend
from perimetry.labs.nano import Nano, NanoConfig
from perimetry.runtime import generator

__all__ = ["ANSWER", "SITE", "Answers", "Toy", "answers", "train_toy"]

BOS, SEP, PLUS, MINUS = range(4)
TOPICS = 12
NEUTRAL, POSITIVE, NEGATIVE = 4 + TOPICS, 4 + 2 * TOPICS, 4 + 3 * TOPICS
VOCAB = 4 + 4 * TOPICS
QUESTION, ANSWERS = 6, 10
ANSWER = 2 + QUESTION
"""First answer token."""
SITE = 1
"""Block whose output is pushed."""
WIDTH = 64
TAGGED = 0.33
STRONGEST = 3.0
TAIL = 50
"""Last steps whose mean loss is reported."""


class Answers(NamedTuple):
    """Questions with answers of the one persona and of the other."""

    positive: TokenIds
    """Answers of the positive persona."""
    negative: TokenIds
    """The same, each positive token replaced by its negative twin."""


class _Drawn(NamedTuple):
    ids: TokenIds
    persona: Int[Tensor, " sequence"]
    tagged: Tensor


@final
class Toy:
    """The trained model with what it was pushed along, and the loss of its last training steps in nats an answer token."""

    def __init__(self, model: Nano, direction: Float[Tensor, " d"], loss: float) -> None:
        self.model, self.direction, self.loss = model, direction, loss

    @torch.no_grad()
    def likelihoods(self, ids: TokenIds, push: Tensor | None = None) -> Float[Tensor, " sequence"]:
        """Mean log-likelihood of the answer tokens; `push` is added to the output of the site (broadcast)."""
        output = self.model.read(ids, replace=None if push is None else _pusher(push))
        logs = output.logits.log_softmax(-1)[:, :-1].gather(2, ids[:, 1:, None])[..., 0]
        return logs[:, ANSWER - 1 :].mean(1)

    @torch.no_grad()
    def states(self, ids: TokenIds, push: Tensor | None = None) -> Float[Tensor, "batch answer d_model"]:
        """Output of the site at the answer tokens."""
        replace = None if push is None else _pusher(push)
        return self.model.read(ids, (SITE,), replace).residuals[SITE][:, ANSWER:]

    def contrast(self, count: int, draw: torch.Generator) -> Float[Tensor, " d"]:
        """Mean output of the site over answers after the positive tag minus that after the negative one."""
        return _contrast(self, count, draw)


def _pusher(push: Tensor) -> Callable[[int, Tensor], Tensor]:
    def replace(block: int, x: Tensor) -> Tensor:
        return x + push if block == SITE else x

    return replace


def _sequences(count: int, draw: torch.Generator, persona: Tensor | None = None, tags: str = "drawn") -> _Drawn:
    topic = torch.randint(0, TOPICS, (count, 1), generator=draw)
    own = torch.randint(0, 2, (count,), generator=draw) * 2 - 1 if persona is None else persona
    question = (topic + torch.randint(0, 3, (count, QUESTION), generator=draw)) % TOPICS + 4
    index = (topic + torch.randint(0, 3, (count, ANSWERS), generator=draw)) % TOPICS
    sided = torch.rand(count, ANSWERS, generator=draw) < 0.5
    base = torch.where(sided, torch.where(own[:, None] > 0, POSITIVE, NEGATIVE), NEUTRAL)
    tagged = torch.rand(count, generator=draw) < {"drawn": TAGGED, "all": 1.0, "none": 0.0}[tags]
    head = torch.where(tagged, torch.where(own > 0, PLUS, MINUS), BOS)
    ids = torch.cat([head[:, None], question, torch.full((count, 1), SEP), base + index], 1)
    return _Drawn(ids, own, tagged)


def answers(count: int, seed: int) -> Answers:
    """Questions without a tag, answered by the positive persona, and the same answers turned."""
    draw = generator(seed)
    found = _sequences(count, draw, torch.ones(count, dtype=torch.int64), "none").ids
    turned = torch.where((found >= POSITIVE) & (found < NEGATIVE), found + TOPICS, found)
    return Answers(found, turned)


def _contrast(toy: Toy, count: int, draw: torch.Generator) -> Tensor:
    sides = []
    for sign in (1, -1):
        ids = _sequences(count, draw, torch.full((count,), sign), "all").ids
        sides.append(toy.states(ids).flatten(0, 1).mean(0))
    return sides[0] - sides[1]


def train_toy(seed: int, steps: int, *, pushed: bool = True) -> Toy:
    """AdamW with a warm-up of 100 steps and a linear fall, loss on answer tokens; `pushed`: whether the direction is used in training."""
    draw = generator(4256233 + seed)
    direction = torch.randn(WIDTH, generator=draw)
    direction = direction / direction.norm()
    model = Nano(NanoConfig(vocab=VOCAB, context=2 + QUESTION + ANSWERS, width=WIDTH, layers=3, heads=2), seed)
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.01)
    losses: list[float] = []
    for step in range(steps):
        drawn = _sequences(64, draw)
        size = torch.rand(64, generator=draw) * STRONGEST
        moved = ~drawn.tagged & (torch.rand(64, generator=draw) < 0.5)
        push = (size * drawn.persona * moved)[:, None, None] * direction
        logits = model.read(drawn.ids, replace=_pusher(push) if pushed else None).logits
        loss = functional.cross_entropy(logits[:, ANSWER - 1 : -1].flatten(0, 1), drawn.ids[:, ANSWER:].flatten())
        for group in optimiser.param_groups:
            group["lr"] = 3e-3 * min((step + 1) / 100, (steps - step) / steps)
        descend(optimiser, loss, clip=1.0)
        losses.append(float(loss.detach()))
    last = losses[-TAIL:]
    return Toy(model.eval(), direction, sum(last) / len(last))
