"""Whether numbers are numbers, in one pass."""

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["all_finite"]


def all_finite(x: Float[Tensor, "..."]) -> bool:
    """Whether nothing is NaN or infinite.

    The sum is one number of one pass, finite only where all are; finite numbers may overflow it, and then each is looked at.

    >>> all_finite(torch.tensor([3e38, 3e38])), all_finite(torch.tensor([1.0, torch.nan]))
    (True, False)
    """
    return bool(x.sum(dtype=torch.float32).isfinite()) or bool(x.isfinite().all())
