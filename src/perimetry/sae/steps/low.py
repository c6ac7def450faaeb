"""Select low, refine high: what may fire is found by the encoder product in bfloat16, what fires by exact float32 values.

A low score only nominates: every value that leaves here is a float32 inner product, and each row carries a certificate.
Its last exact value must clear the best score that was not nominated by `SIGMAS` times the root mean square of exact
minus low on the nominated entries; rows that fail it are done again densely in float32. So the result is that of the
float32 product, at the price of the bfloat16 one.
"""

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from perimetry.axes import Acts, PerToken
from perimetry.runtime import native_bf16
from perimetry.sae.steps import native
from perimetry.sae.steps.active import Active, flat_nonzero, stack_rows
from perimetry.sae.steps.select import Collector, Cut, PreActivations, TopK, top_k_rows

__all__ = ["LOW_ELEMENTS", "MARGIN", "SIGMAS", "low_collect", "low_usable"]

SIGMAS = 6.0
"""Root mean squares of the low scores' error by which a selection must be clear."""
MARGIN = 16
"""Nominations beyond k: with 8, one row in twenty fails its certificate on nearly isotropic data, with 16 none."""
WIDER = 4
"""How many times more nominations a row in doubt gets before it is done again in float32."""
LOW_ELEMENTS = 2**22
"""Low scores held at once (8 MiB): they stay in the cache until they have been read."""
TOO_DENSE = 0.1
"""Share of nominated entries above which exact values one by one cost more than the whole float32 product."""
SMALLEST = 2**21
"""Products below this many multiplications per row and column are not worth two precisions."""


def low_usable(pre: PreActivations, collectors: list[Collector]) -> bool:
    """Whether these collectors can be served this way, here and at this size."""
    known = all((isinstance(c, TopK) and c.among is None) or isinstance(c, Cut) for c in collectors)
    one_kind = len({isinstance(c, TopK) for c in collectors}) == 1
    rows, width = pre.acts.shape[0], pre.W_enc.shape[0]
    few = all(4 * (c.k + MARGIN) <= width for c in collectors if isinstance(c, TopK))
    large = rows * width >= SMALLEST
    return known and one_kind and few and large and native.usable(pre.acts, pre.W_enc, pre.b_enc) and native_bf16()


def _low_chunks(pre: PreActivations) -> Iterator[tuple[int, Tensor]]:
    """First row and bf16 scores of each chunk; the memory is used again for the next one."""
    rows, width = pre.acts.shape[0], pre.W_enc.shape[0]
    step = max(1, min(rows, LOW_ELEMENTS // width))
    acts, weights, bias = pre.acts.bfloat16(), pre.W_enc.bfloat16().T, pre.b_enc.bfloat16()
    buffer = torch.empty(step, width, dtype=torch.bfloat16)
    for start in range(0, rows, step):
        out = buffer[: min(step, rows - start)]
        torch.addmm(bias, acts[start : start + step], weights, out=out)
        yield start, out


def low_collect(pre: PreActivations, collectors: list[Collector]) -> list[Active] | None:
    """The entries of each collector; None where so much may fire that the dense float32 product is cheaper."""
    if isinstance(collectors[0], TopK):
        return [_top_k(pre, c) for c in collectors if isinstance(c, TopK)]
    cuts = [c for c in collectors if isinstance(c, Cut)]
    found = _above(pre, cuts)
    while found is not None and any(active is None for active in found):
        found = _above(pre, cuts)
    return None if found is None else [active for active in found if active is not None]


def _top_k(pre: PreActivations, collector: TopK) -> Active:
    k, width = collector.k, pre.W_enc.shape[0]
    columns = torch.empty(pre.acts.shape[0], k, dtype=torch.int64)
    values = torch.empty(pre.acts.shape[0], k)
    left: list[Tensor] = []
    for start, scores in _low_chunks(pre):
        rows = slice(start, start + scores.shape[0])
        refined = _refined(pre, rows, scores, k, k + MARGIN)
        columns[rows], values[rows] = refined.columns, refined.values
        doubtful = refined.doubt.nonzero()[:, 0]
        if doubtful.numel() and WIDER * (k + MARGIN) <= width:
            again = _refined(pre, start + doubtful, scores[doubtful], k, WIDER * (k + MARGIN))
            columns[start + doubtful], values[start + doubtful] = again.columns, again.values
            doubtful = doubtful[again.doubt]
        if doubtful.numel():
            left.append(start + doubtful)
    if left:
        # One product for all of them: a few rows at a time would read the whole encoder for each few.
        doubtful = torch.cat(left)
        for part in doubtful.split(LOW_ELEMENTS // width or 1):
            best, where = top_k_rows(torch.addmm(pre.b_enc, pre.acts[part], pre.W_enc.T), k)
            columns[part], values[part] = where, best.relu()
    return collector.of_rows(values, columns, width)


def _refined(pre: PreActivations, rows: slice | Tensor, scores: Tensor, k: int, nominations: int) -> native.Refined:
    nominated = native.candidates(scores, nominations)
    return native.refine(pre.acts[rows].contiguous(), pre.W_enc, pre.b_enc, nominated, k, SIGMAS)


def _error_per_norm(pre: PreActivations) -> float:
    """Root mean square error of the low scores over the norm of their row: the largest of a sample of rows."""
    step = max(1, pre.acts.shape[0] // 16)
    rows = pre.acts[::step][:16]
    exact = torch.addmm(pre.b_enc, rows, pre.W_enc.T)
    low = torch.addmm(pre.b_enc.bfloat16(), rows.bfloat16(), pre.W_enc.bfloat16().T).float()
    error = (low - exact).square().mean(1).sqrt() / rows.norm(dim=1).clamp(min=1e-30)
    return float(error.max())


def _slack(pre: PreActivations, lowest: Tensor) -> PerToken:
    """How far below its cut a low score of each row still nominates."""
    # The last term is the rounding of a low score at the cut itself: half a unit in the last of its 8 bits.
    return SIGMAS * _error_per_norm(pre) * pre.acts.norm(dim=1) + float(lowest.abs().max()) / 256


def _above(pre: PreActivations, collectors: list[Cut]) -> list[Active | None] | None:
    """One nomination for all collectors: every entry that reaches the lowest of their cuts, less a slack."""
    floors = [c.floor() for c in collectors]
    lowest = floors[0]
    for floor in floors[1:]:
        lowest = torch.minimum(lowest, floor)
    cuts = None if lowest.ndim == 0 else lowest.contiguous()
    base = float(lowest) if lowest.ndim == 0 else 0.0
    slack = _slack(pre, lowest)
    parts: list[Active] = []
    for start, scores in _low_chunks(pre):
        rows = slice(start, start + scores.shape[0])
        offsets, columns, low = native.above(scores, (base - slack[rows]).contiguous(), cuts)
        if columns.shape[0] > TOO_DENSE * scores.numel():
            return None
        acts = pre.acts[rows]
        exact = native.sampled(offsets, columns, acts, pre.W_enc) + pre.b_enc[columns]
        part = Active(offsets, columns, exact, pre.W_enc.shape[0])
        sure = _certified(part, low, pre, rows, slack[rows], lowest)
        parts.append(sure.keep(sure.values >= (lowest if lowest.ndim == 0 else lowest[sure.columns])))
    whole = stack_rows(parts)
    return [c.of_entries(whole) for c in collectors]


def _certified(
    part: Active, low: Float[Tensor, " entry"], pre: PreActivations, rows: slice, slack: PerToken, lowest: Tensor
) -> Active:
    """The entries; rows in doubt are replaced by all that reach the cut exactly.

    A row is in doubt when an entry near the cut was misjudged by more than two thirds of the slack.
    """
    error = (part.values - low).abs_()
    cut = lowest if lowest.ndim == 0 else lowest[part.columns]
    suspects = flat_nonzero(error > float(slack.min()) * (2 / 3))
    if not suspects.numel():
        return part
    row_of = torch.searchsorted(part.offsets, suspects, right=True) - 1
    near = (low[suspects] - (cut if cut.ndim == 0 else cut[suspects])).abs() < 4 * slack[row_of]
    doubtful = row_of[near & (error[suspects] > slack[row_of] * (2 / 3))].unique()
    if not doubtful.numel():
        return part
    again = torch.addmm(pre.b_enc, pre.acts[rows][doubtful], pre.W_enc.T)
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
