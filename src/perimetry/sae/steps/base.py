"""What a training step is asked for and what it gives."""

from typing import Literal, NamedTuple, Protocol, runtime_checkable

from jaxtyping import Bool, Float
from torch import Tensor

from perimetry.axes import Acts, Decoder, Encoder, LatentBias, Latents
from perimetry.sae.steps.active import Active
from perimetry.sae.steps.stairs import Stairs

__all__ = [
    "Forward",
    "L0Loss",
    "Losses",
    "Objective",
    "Penalty",
    "Plain",
    "Smooth",
    "SmoothTerm",
    "StepResult",
    "Summary",
    "Terms",
]

L0Loss = Literal["target", "step", "token"]
"""`target`: (mean L0 / target - 1) squared; `step`: the mean L0 itself; `token`: 2 / target times the mean of (L0 of the token -
target) squared, which also penalises the spread of L0 and with it the signal that counts give under shift."""


class Smooth(NamedTuple):
    """The contrastive term of T-SAE; rows 2i and 2i + 1 of a batch are adjacent tokens."""

    weight: float
    """Weight of the term."""
    temperature: float
    """What cosines are divided by."""
    share: float
    """Share of the latents, from the first on, that shall be smooth, 0 to 1."""


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
    k: int | None = None
    """Active count at this step where it is annealed; None is the architecture's own."""
    smooth: Smooth | None = None
    """The contrastive term of T-SAE; None leaves it out."""


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
    further: float = 0.0
    """Further terms, weighted: the gate's reconstruction, smoothness."""

    @property
    def loss(self) -> float:
        """The total loss."""
        return self.reconstruction + self.sparsity + self.aux + self.further


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
    further: Float[Tensor, ""] | float = 0.0
    """Further terms, weighted; 0 where there are none."""


class Forward(NamedTuple):
    """What an architecture's sparsity term may read."""

    active: Active
    """Entries that fire."""
    extra: Active | None
    """What the second collector of the architecture kept, if it has one."""
    upstream: Acts
    """Gradient of the reconstruction term with respect to the reconstruction."""
    smooth: "SmoothTerm | None" = None
    """The contrastive term of this batch, if there is one."""


@runtime_checkable
class SmoothTerm(Protocol):
    """A loss on the codes of a whole batch, with its gradient at any entry."""

    loss: float
    """The weighted term."""

    @property
    def high(self) -> int:
        """Latents that it reads, from the first on."""
        ...

    def block(self, start: int, stop: int) -> Latents:
        """Gradient with respect to the codes of those latents, for tokens `start` to `stop`, dense."""
        ...

    def towards(self, at: Active) -> Float[Tensor, " entry"]:
        """Gradient with respect to the codes at the places of some entries, firing or not."""
        ...


class Summary(NamedTuple):
    """What the loop must know of the codes of a batch, where they were never listed one by one."""

    l0: float
    """Mean active count."""
    fired: Bool[Tensor, " d_sae"]
    """Latents with a value different from 0 at one token or more."""
    smallest: float | None
    """Smallest positive value; None when nothing fired."""


class Terms(NamedTuple):
    """What an architecture makes of a batch: its loss terms but the auxiliary one, and their gradients."""

    active: Active
    """Entries that fire, with their codes."""
    residual: Acts
    """Target less the whole reconstruction."""
    reconstruction: float
    """The reconstruction term; mean over tokens."""
    upstream: Acts
    """Its gradient with respect to what is added to every reconstruction, `b_dec`."""
    W_dec: Decoder
    """Its gradient with respect to the decoder."""
    W_enc: Encoder
    """Gradient of all terms with respect to the encoder."""
    b_enc: LatentBias
    """Gradient of all terms with respect to the encoder product, summed over tokens."""
    penalty: "Penalty"
    """The sparsity term; its gradients are added to the others."""
    further: float = 0.0
    """Further terms, weighted."""
    summary: Summary | None = None
    """Of the codes, where `active` does not hold them."""


class Penalty(NamedTuple):
    """A sparsity term and its gradients."""

    loss: float
    """The weighted term."""
    values: Float[Tensor, " entry"] | None
    """Gradient with respect to the active values; None is zero."""
    gradients: dict[str, Tensor]
    """Further gradients by parameter name, added to those of the other terms."""
    pull: LatentBias | None = None
    """Gradient with respect to each decoder row, in multiples of that row; None is zero."""


class Plain(NamedTuple):
    """A batch whose entries are known, up to the gradients of the two matrices, which are sums over those entries."""

    active: Active
    """Entries with their codes, some of which may be 0."""
    delta: Float[Tensor, " entry"]
    """Gradient with respect to the encoder product."""
    upstream: Acts
    """Gradient with respect to what is added to every reconstruction, `b_dec`."""
    error: float
    """Sum of the squared error of the whole reconstruction."""
    penalty: Penalty
    """The sparsity term and its further gradients."""
    further: float
    """Further terms, weighted."""
    fires: Active | None = None
    """Entries that fire, where `active` holds others too."""
    stairs: Stairs | None = None
    """Nested reconstructions, each of them with an upstream gradient of its own; None where all entries share `upstream`."""

    @property
    def residual(self) -> Acts:
        """Target less reconstruction."""
        return self.upstream * (-self.active.tokens / 2) if self.stairs is None else self.stairs.residual

    @property
    def reconstruction(self) -> float:
        """The reconstruction term; mean over tokens."""
        return self.error / self.active.tokens if self.stairs is None else self.stairs.loss
