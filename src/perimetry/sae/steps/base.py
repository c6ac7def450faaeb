"""What a training step is asked for and what it gives."""

from typing import Literal, NamedTuple

from jaxtyping import Bool, Float
from torch import Tensor

from perimetry.axes import Acts
from perimetry.sae.steps.active import Active

__all__ = ["Forward", "L0Loss", "Losses", "Objective", "Penalty", "StepResult"]

L0Loss = Literal["target", "step"]
"""`target`: (mean L0 / target - 1) squared; `step`: the mean L0 itself."""


class Objective(NamedTuple):
    """The weights of the loss terms, as they stand at this step (ramps applied).

    Every loss sums over features or latents and averages over tokens.
    """

    sparsity: float = 0.0
    """Weight of the architecture's own sparsity term (L1 or L0)."""
    target_l0: float = 1.0
    """Wanted mean active count, for `l0_loss="target"`."""
    l0_loss: L0Loss = "target"
    """Form of the L0 term of JumpReLU."""
    bandwidth: float = 1e-3
    """Width of the window of the straight-through estimate, in pre-activation units."""
    aux: float = 0.0
    """Weight of the auxiliary loss that revives dead latents."""


class StepResult(NamedTuple):
    """Gradients and what the loop must know of a batch."""

    gradients: dict[str, Tensor]
    """Parameter name -> gradient of the total loss."""
    reconstruction: float
    """Mean over tokens of the squared error."""
    sparsity: float
    """Sparsity term, weighted; 0 where the architecture has none."""
    aux: float
    """Auxiliary term, weighted; 0 where no latent is dead."""
    fvu: float
    """Fraction of the batch's variance left unexplained; lower is better."""
    l0: float
    """Mean active count by the training rule."""
    fired: Bool[Tensor, " d_sae"]
    """Latents with a value different from 0 at one token or more."""
    smallest: float | None
    """Smallest positive value that was selected; None when nothing fired."""

    @property
    def loss(self) -> float:
        """The total loss."""
        return self.reconstruction + self.sparsity + self.aux


class Losses(NamedTuple):
    """Loss terms with a graph, and what the loop must know of a batch."""

    reconstruction: Float[Tensor, ""]
    """Mean over tokens of the squared error."""
    sparsity: Float[Tensor, ""]
    """Sparsity term, weighted."""
    aux: Float[Tensor, ""]
    """Auxiliary term, weighted."""
    error: float
    """Sum over tokens of the squared error of the full reconstruction."""
    l0: float
    """Mean active count by the training rule."""
    fired: Bool[Tensor, " d_sae"]
    """Latents with a value different from 0 at one token or more."""
    smallest: float | None = None
    """Smallest positive value that was selected, where a threshold is learned from it."""


class Forward(NamedTuple):
    """What an architecture's sparsity term may read."""

    active: Active
    """Entries that fire."""
    extra: Active | None
    """What the second collector of the architecture kept, if it has one."""
    upstream: Acts
    """Gradient of the reconstruction term with respect to the reconstruction."""


class Penalty(NamedTuple):
    """A sparsity term and its gradients."""

    loss: float
    """The weighted term."""
    values: Float[Tensor, " entry"] | None
    """Gradient with respect to the active values; None is zero."""
    gradients: dict[str, Tensor]
    """Further gradients by parameter name, added to those of the other terms."""
