"""Flags for a batch of prompts such that few of them are false: adjusted p-values.

At a false-alarm rate of .05 one clean prompt in twenty is flagged, however many prompts there are. The false discovery
rate bounds instead the share of the flags that are false, on average over batches.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from perimetry.errors import ConfigError, UsageError
from perimetry.shift.reading import Reading

__all__ = ["Method", "adjusted_p", "with_discoveries"]

Method = Literal["bh", "by"]


def adjusted_p(p: Float[Tensor, " prompt"], method: Method = "bh") -> Float[Tensor, " prompt"]:
    """The smallest false discovery rate at which each prompt would be flagged (its q-value), in float64.

    `bh`: Benjamini and Hochberg 1995; valid for conformal p-values, which depend positively although all share one
    calibration set (Bates et al. 2023). `by`: Benjamini and Yekutieli 2001, valid under any dependence, larger by the
    factor 1 + 1/2 + ... + 1/n. Errors: `UsageError` for values outside [0, 1].

    >>> adjusted_p(torch.tensor([0.01, 0.5, 0.02])).mul(100).round().tolist()
    [3.0, 50.0, 3.0]
    """
    values = p.double()
    if not bool(((values >= 0) & (values <= 1)).all()):
        raise UsageError("p-values lie between 0 and 1 and some of these do not; give p-values, not scores")
    n = values.numel()
    ranked, where = values.sort()
    ranks = torch.arange(1, n + 1, dtype=torch.float64)
    penalty = float((1 / ranks).sum()) if method == "by" else 1.0
    least = (ranked * n * penalty / ranks).flip(0).cummin(0).values.flip(0) if n else ranked
    return torch.empty_like(values).scatter_(0, where, least.clamp_max(1.0))


def with_discoveries(readings: Sequence[Reading], rate: float, method: Method = "bh") -> list[Reading]:
    """The readings of one batch with their adjusted p-values `q`, flagged where `q` is at most `rate`.

    Errors: `ConfigError` for a rate outside (0, 1).
    """
    if not 0 < rate < 1:
        raise ConfigError(f"the false discovery rate is {rate}; a share between 0 and 1 is wanted, such as 0.05")
    values = adjusted_p(torch.tensor([r.p_value for r in readings], dtype=torch.float64), method).tolist()
    # The epsilon keeps 3 * .05 / 3 = .05000000000000001 from deciding.
    return [r._replace(q=q, fdr=rate, flagged=q <= rate + 1e-12) for r, q in zip(readings, values, strict=True)]
