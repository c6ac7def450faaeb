"""The table of training steps."""

from collections.abc import Callable

from jaxtyping import Bool
from torch import Tensor

from perimetry.axes import Acts
from perimetry.sae.affine import AffineSAE
from perimetry.sae.base import AbstractSAE, AutogradSAE
from perimetry.sae.steps.auto import autograd_step, dense_step
from perimetry.sae.steps.base import Objective, StepResult
from perimetry.sae.steps.costs import crossover, selection
from perimetry.sae.steps.native.build import compiled, kernel_hash
from perimetry.sae.steps.sparse import sparse_step

__all__ = ["STEPS", "exact_step", "ways_taken"]


def exact_step(
    sae: AbstractSAE, rows: Acts, objective: Objective, dead: Bool[Tensor, " d_sae"] | None = None
) -> StepResult:
    """The fast step of an architecture: gradients by hand where there are some, else autograd on sparse losses."""
    if isinstance(sae, AffineSAE):
        return sparse_step(sae, rows, objective, dead)
    assert isinstance(sae, AutogradSAE), "an architecture has gradients by hand or sparse losses"
    return autograd_step(sae, rows, objective, dead)


def ways_taken() -> dict[str, str | float]:
    """What this host chose for the fast step, on which its last bits depend: kernels by their hash, selection, crossover."""
    kernels = "off" if compiled() is None else kernel_hash()[:16]
    return {"kernels": kernels, "selection": selection(), "dense_above": crossover()}


STEPS: dict[str, Callable[..., StepResult]] = {"dense": dense_step, "sparse": exact_step}
"""Name -> step; both give the same gradients, `sparse` is the one to train with."""
