"""One step of gradient descent, as all models of the labs take it."""

import torch
from torch import Tensor

__all__ = ["descend"]


def descend(optimiser: torch.optim.Optimizer, loss: Tensor, *, clip: float | None = None) -> None:
    """Take the gradients of a loss and step; `clip`: largest norm of them all together."""
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    if clip is not None:
        torch.nn.utils.clip_grad_norm_([p for group in optimiser.param_groups for p in group["params"]], clip)
    optimiser.step()
