"""Which texts to tune on: those that a score puts first, until a budget of tokens is spent."""

import random
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor

from perimetry.errors import TooFewSamples, UnknownName, UsageError

__all__ = ["SELECTIONS", "Chosen", "Selection", "choose"]


class Selection(NamedTuple):
    """One way to put texts in order."""

    score: str | None
    """Name of the score in the meter's table; None: none, the order is drawn."""
    highest: bool
    """Whether the highest come first."""
    said: str
    """What it is, in words."""


SELECTIONS: dict[str, Selection] = {
    "entropy": Selection("entropy", highest=True, said="where the model is least sure of the next token"),
    "lowest": Selection("energy", highest=False, said="least shifted by the meter: the control that asks the opposite"),
    "mahalanobis": Selection(
        "mahalanobis", highest=True, said="furthest from the clean mean of the activations, without an SAE"
    ),
    "random": Selection(None, highest=True, said="drawn: the control that asks nothing"),
    "shift": Selection("energy", highest=True, said="most shifted by the meter's energy (arXiv 2606.26396)"),
}
"""Ways to choose texts by name."""


class Chosen(NamedTuple):
    """Texts of one way."""

    rows: tuple[int, ...]
    """Which of the candidates, in the order in which they came first."""
    tokens: int
    """Tokens of them together."""


def choose(
    how: str, scores: Mapping[str, Float[Tensor, " text"]], lengths: Sequence[int], budget: int, seed: int
) -> Chosen:
    """The texts that come first by `SELECTIONS[how]`, until the next would exceed `budget` tokens; equals by their number.

    A text that does not fit is passed over, so that every way spends nearly the same. `scores`: higher = further, by name. Errors:
    `UnknownName`, `UsageError` for a score that is missing, `TooFewSamples` where the candidates do not fill the budget.

    >>> choose("shift", {"energy": __import__("torch").tensor([1.0, 3.0, 2.0])}, [5, 5, 5], 10, 0)
    Chosen(rows=(1, 2), tokens=10)
    """
    if how not in SELECTIONS:
        raise UnknownName("selection", how, SELECTIONS)
    if sum(lengths) < budget:
        raise TooFewSamples(f"the candidates have {sum(lengths)} tokens and {budget} are to be chosen; give more texts")
    wanted = SELECTIONS[how]
    order = list(range(len(lengths)))
    if wanted.score is None:
        random.Random(f"selection:{seed}").shuffle(order)
    elif wanted.score not in scores:
        raise UsageError(
            f"selection {how!r} wants the score {wanted.score!r} and the meter gives {', '.join(scores)}; fit a meter with it"
        )
    else:
        values = scores[wanted.score].tolist()
        order.sort(key=lambda i: (-values[i] if wanted.highest else values[i], i))
    rows: list[int] = []
    spent = 0
    for i in order:
        if spent + lengths[i] <= budget:
            rows.append(i)
            spent += lengths[i]
    return Chosen(tuple(rows), spent)
