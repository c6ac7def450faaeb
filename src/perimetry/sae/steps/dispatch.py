"""The table of training steps."""

from collections.abc import Callable

from perimetry.sae.steps.base import StepResult
from perimetry.sae.steps.dense import dense_step
from perimetry.sae.steps.sparse import sparse_step

__all__ = ["STEPS"]

STEPS: dict[str, Callable[..., StepResult]] = {"dense": dense_step, "sparse": sparse_step}
"""Name -> step; both give the same gradients, `sparse` is the one to train with."""
