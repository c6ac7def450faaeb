"""Nomination by the encoder product in bfloat16, one chunk of rows at a time."""

from collections.abc import Iterator

import torch
from torch import Tensor

from perimetry.axes import PerToken
from perimetry.sae.steps import native
from perimetry.sae.steps.select import PreActivations

__all__ = ["LOW_ELEMENTS", "MARGIN", "WIDER", "low_chunks", "low_slack", "low_top_k"]

MARGIN = 16
"""Nominations beyond k: with 8, one row in twenty fails its certificate on nearly isotropic data, with 16 none."""
WIDER = 4
"""How many times more nominations a row in doubt gets before it is given up."""
LOW_ELEMENTS = 2**22
"""Low scores held at once (8 MiB): they stay in the cache until they have been read."""


def low_chunks(pre: PreActivations) -> Iterator[tuple[slice, Tensor]]:
    """Rows and bf16 scores of each chunk; the memory is used again for the next one."""
    rows, width = pre.acts.shape[0], pre.W_enc.shape[0]
    step = max(1, min(rows, LOW_ELEMENTS // width))
    acts, weights, bias = pre.acts.bfloat16(), pre.W_enc.bfloat16().T, pre.b_enc.bfloat16()
    buffer = torch.empty(step, width, dtype=torch.bfloat16)
    for start in range(0, rows, step):
        stop = min(start + step, rows)
        out = buffer[: stop - start]
        torch.addmm(bias, acts[start:stop], weights, out=out)
        yield slice(start, stop), out


def low_top_k(pre: PreActivations, k: int, sigmas: float) -> native.Refined:
    """Latents and exact values of the k largest positive scores of each row, and the rows that stay in doubt."""
    rows, width = pre.acts.shape[0], pre.W_enc.shape[0]
    out = native.Refined(
        torch.empty(rows, k, dtype=torch.int64), torch.empty(rows, k), torch.empty(rows, dtype=torch.bool)
    )
    for part, scores in low_chunks(pre):
        found = _refined(pre, part, scores, k, k + MARGIN, sigmas)
        for to, of in zip(out, found, strict=True):
            to[part] = of
        doubtful = found.doubt.nonzero()[:, 0]
        if doubtful.numel() and WIDER * (k + MARGIN) <= width:
            which = part.start + doubtful
            again = _refined(pre, which, scores[doubtful], k, WIDER * (k + MARGIN), sigmas)
            for to, of in zip(out, again, strict=True):
                to[which] = of
    return out


def _refined(
    pre: PreActivations, rows: slice | Tensor, scores: Tensor, k: int, nominations: int, sigmas: float
) -> native.Refined:
    nominated = native.candidates(scores, nominations)
    return native.refine(pre.acts[rows].contiguous(), pre.W_enc, pre.b_enc, nominated, k, sigmas)


def _error_per_norm(pre: PreActivations) -> float:
    """Root mean square error of the low scores over the norm of their row: the largest of a sample of rows."""
    step = max(1, pre.acts.shape[0] // 16)
    rows = pre.acts[::step][:16]
    exact = torch.addmm(pre.b_enc, rows, pre.W_enc.T)
    low = torch.addmm(pre.b_enc.bfloat16(), rows.bfloat16(), pre.W_enc.bfloat16().T).float()
    error = (low - exact).square().mean(1).sqrt() / rows.norm(dim=1).clamp(min=1e-30)
    return float(error.max())


def low_slack(pre: PreActivations, lowest: Tensor, sigmas: float) -> PerToken:
    """How far below its cut a low score of each row still nominates."""
    # The last term is the rounding of a low score at the cut itself: half a unit in the last of its 8 bits.
    return sigmas * _error_per_norm(pre) * pre.acts.norm(dim=1) + float(lowest.abs().max()) / 256
