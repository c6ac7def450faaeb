"""Lines of figures from the curves of several seeds."""

from collections.abc import Iterable, Mapping, Sequence

import torch

from perimetry.labs.base import Curve, Job, Line, Outcome

__all__ = ["first_where", "medians", "middle", "several"]


def first_where(xs: Sequence[int] | Sequence[float], right: Iterable[bool]) -> float:
    """The first position at which something is right; twice the last one where it never is.

    >>> first_where([0, 10, 20], [False, True, False]), first_where([0, 10, 20], [False, False, False])
    (10.0, 40.0)
    """
    return float(next((x for x, yes in zip(xs, right, strict=False) if yes), 2 * xs[-1]))


def several(found: Mapping[Job, Outcome], arm: str, curve: str) -> list[Curve]:
    """A curve of every seed of an arm that has it."""
    return [o.curves[curve] for job, o in found.items() if job.arm == arm and curve in o.curves]


def middle(name: str, curves: list[Curve]) -> list[Line]:
    """The median over seeds with the range of all of them, or nothing where there is no curve. Positions are those of the first.

    >>> middle("a", [Curve([0.0], [1.0]), Curve([0.0], [3.0]), Curve([0.0], [2.0])])[0].ys
    [2.0]
    """
    if not curves:
        return []
    ys = torch.tensor([c.ys for c in curves], dtype=torch.float64)
    return [Line(name, curves[0].xs, ys.quantile(0.5, dim=0).tolist(), ys.amin(0).tolist(), ys.amax(0).tolist())]


def medians(found: Mapping[Job, Outcome], named: Mapping[str, tuple[str, str]]) -> list[Line]:
    """Name of a line -> arm and curve: `middle` of each, those without a curve left out."""
    return [line for name, (arm, curve) in named.items() for line in middle(name, several(found, arm, curve))]
