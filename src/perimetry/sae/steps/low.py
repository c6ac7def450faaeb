"""Select low, refine high: what may fire is found by a product of few bits, what fires by exact float32 values.

A low score only nominates: every value that leaves here is a float32 inner product, and each row carries a certificate.
Its last exact value must clear the best score that was not nominated by `SIGMAS` times the error of the scores: the root
mean square of exact minus low on the nominated entries with bfloat16, with int8 the one expected of each score, which
no error seen may exceed fourfold. Rows that fail it are done again with more bits, in the end densely in float32. So
the result is that of the float32 product, at the price of the int8 or bfloat16 one, whichever is faster here.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from perimetry.axes import Acts, LatentBias, PerEntry
from perimetry.runtime import native_bf16
from perimetry.sae.steps import native
from perimetry.sae.steps.active import Active, flat_nonzero, stack_rows
from perimetry.sae.steps.bf16 import LOW_ELEMENTS, MARGIN, low_chunks, low_slack, low_top_k
from perimetry.sae.steps.costs import selection
from perimetry.sae.steps.native.int8 import Int8Product
from perimetry.sae.steps.select import Collector, Cut, PreActivations, TopK, top_k_rows

__all__ = ["SIGMAS", "low_collect", "low_usable"]

SIGMAS = 6.0
"""Root mean squares of the low scores' error by which a selection must be clear."""
LISTED = 32
"""Int8 scores beyond k that are kept of a row; their errors are about eight times those of bfloat16."""
MANY = 1 / 16
"""Share of rows in doubt after int8 from which on bfloat16 is asked before float32."""
TOO_DENSE = 0.1
"""Share of nominated entries above which exact values one by one cost more than the whole float32 product."""
SMALLEST = 2**18
"""Products below this many multiplications per row and column are not worth two precisions."""


def low_usable(pre: PreActivations, collectors: list[Collector]) -> bool:
    """Whether these collectors can be served this way, here and at this size."""
    known = all((isinstance(c, TopK) and c.among is None) or isinstance(c, Cut) for c in collectors)
    one_kind = len({isinstance(c, TopK) for c in collectors}) == 1
    rows, width = pre.acts.shape[0], pre.W_enc.shape[0]
    few = all(4 * (c.k + MARGIN) <= width for c in collectors if isinstance(c, TopK))
    large = rows * width >= SMALLEST
    served = known and one_kind and few and large and native.usable(pre.acts, pre.W_enc, pre.b_enc)
    return served and selection() != "float32"


def low_collect(pre: PreActivations, collectors: list[Collector]) -> list[Active] | None:
    """The entries of each collector; None where so much may fire that the dense float32 product is cheaper."""
    rounded = Int8Product(*pre) if selection() == "int8" else None
    if isinstance(collectors[0], TopK):
        return [_top_k(pre, rounded, c) for c in collectors if isinstance(c, TopK)]
    cuts = [c for c in collectors if isinstance(c, Cut)]
    found = _above(pre, rounded, cuts)
    while found is not None and any(active is None for active in found):
        found = _above(pre, rounded, cuts)
    return None if found is None else [active for active in found if active is not None]


def _top_k(pre: PreActivations, rounded: Int8Product | None, collector: TopK) -> Active:
    k, width = collector.k, pre.W_enc.shape[0]
    if rounded is None:
        columns, values, doubt = low_top_k(pre, k, SIGMAS)
    else:
        columns, values, doubt = rounded.top(k, k + LISTED, SIGMAS)
    doubtful = doubt.nonzero()[:, 0]
    if rounded is not None and native_bf16() and doubtful.numel() > MANY * columns.shape[0]:
        again = low_top_k(pre._replace(acts=pre.acts[doubtful]), k, SIGMAS)
        columns[doubtful], values[doubtful] = again.columns, again.values
        doubtful = doubtful[again.doubt]
    for part in doubtful.split(max(1, LOW_ELEMENTS // width)):
        best, where = top_k_rows(torch.addmm(pre.b_enc, pre.acts[part], pre.W_enc.T), k)
        columns[part], values[part] = where, best.relu()
    return collector.of_rows(values, columns, width)


class _Nominated(NamedTuple):
    """Entries of some rows whose low score comes near enough to the lowest cut."""

    rows: slice
    offsets: Tensor
    columns: Tensor
    low: PerEntry
    """Their low scores."""
    least: float
    """A slack that no entry is below."""
    slack: Callable[[Tensor, Tensor], PerEntry]
    """Slack of some of the entries, given their positions and rows."""


def _nominate(
    pre: PreActivations, rounded: Int8Product | None, lowest: Tensor, limit: int
) -> Iterator[_Nominated | None]:
    rows, width = pre.acts.shape[0], pre.W_enc.shape[0]
    if rounded is not None:
        found = rounded.above(lowest.expand(width).contiguous(), SIGMAS, limit)
        if found is None:
            yield None
            return
        least = float(found.slack.min()) if found.slack.numel() else 0.0
        yield _Nominated(
            slice(0, rows), found.offsets, found.columns, found.scores, least, lambda at, _: found.slack[at]
        )
        return
    slack = low_slack(pre, lowest, SIGMAS)
    cuts = None if lowest.ndim == 0 else lowest.contiguous()
    base = float(lowest) if lowest.ndim == 0 else 0.0
    for part, scores in low_chunks(pre):
        mine = slack[part]
        offsets, columns, low = native.above(scores, (base - mine).contiguous(), cuts)
        if columns.shape[0] > TOO_DENSE * scores.numel():
            yield None
            return
        yield _Nominated(part, offsets, columns, low, float(mine.min()), lambda _, row, mine=mine: mine[row])


def _above(pre: PreActivations, rounded: Int8Product | None, collectors: list[Cut]) -> list[Active | None] | None:
    """One nomination for all collectors: every entry that reaches the lowest of their cuts, less a slack."""
    floors = [c.floor() for c in collectors]
    lowest = floors[0]
    for floor in floors[1:]:
        lowest = torch.minimum(lowest, floor)
    parts: list[Active] = []
    limit = int(TOO_DENSE * pre.acts.shape[0] * pre.W_enc.shape[0])
    for found in _nominate(pre, rounded, lowest, limit):
        if found is None:
            return None
        acts = pre.acts[found.rows]
        exact = native.sampled(found.offsets, found.columns, acts, pre.W_enc) + pre.b_enc[found.columns]
        parts.append(_certified(Active(found.offsets, found.columns, exact, pre.W_enc.shape[0]), found, pre, lowest))
    whole = stack_rows(parts)
    return [c.of_entries(whole) for c in collectors]


def _certified(part: Active, found: _Nominated, pre: PreActivations, lowest: LatentBias | Tensor) -> Active:
    """The entries; rows in doubt are replaced by all that reach the cut exactly.

    A row is in doubt when an entry near the cut was misjudged by more than two thirds of the slack.
    """
    error = (part.values - found.low).abs_()
    cut = lowest if lowest.ndim == 0 else lowest[part.columns]
    suspects = flat_nonzero(error > found.least * (2 / 3))
    if not suspects.numel():
        return part
    row_of = torch.searchsorted(part.offsets, suspects, right=True) - 1
    slack = found.slack(suspects, row_of)
    near = (found.low[suspects] - (cut if cut.ndim == 0 else cut[suspects])).abs() < 4 * slack
    doubtful = row_of[near & (error[suspects] > slack * (2 / 3))].unique()
    if not doubtful.numel():
        return part
    again = torch.addmm(pre.b_enc, pre.acts[found.rows][doubtful], pre.W_enc.T)
    return _replace(part, doubtful, again, again >= lowest)


def _replace(part: Active, which: Tensor, dense: Acts, mask: Tensor) -> Active:
    """The matrix with the rows `which` replaced by the entries of `dense` where `mask` is true."""
    rows, columns = mask.nonzero(as_tuple=True)
    kept = torch.ones(part.tokens, dtype=torch.bool)
    kept[which] = False
    old = part.rows()
    stays = kept[old]
    row_of = torch.cat([old[stays], which[rows]])
    order = row_of.argsort(stable=True)
    offsets = torch.nn.functional.pad(torch.bincount(row_of, minlength=part.tokens).cumsum(0), (1, 0))
    new_columns = torch.cat([part.columns[stays], columns])[order]
    return Active(offsets, new_columns, torch.cat([part.values[stays], dense[rows, columns]])[order], part.width)
