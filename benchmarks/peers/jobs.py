"""What a worker is asked to train, as plain values: the part that both sides of the pipe import, so it needs no library."""

from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["Job"]


@dataclass(frozen=True)
class Job:
    """One SAE to train, or one product to time."""

    library: str
    """Stem after `arm_` of the file beside this one that knows how."""
    batch: int
    """Tokens of a step."""
    d_model: int
    """Width of the activations."""
    width: int
    """Number of latents."""
    k: int
    """Active latents of a token."""
    data: str
    """File of float32 rows (.npy), read in order, from its start again after its end."""
    held_out: str
    """File of rows that are only evaluated on."""
    architecture: str = "topk"
    """Of perimetry; the other libraries train TopK."""
    variant: tuple[str, ...] = ()
    """What differs from the library's default: `fused` Adam, bfloat16 `autocast`, `sparse` activations, `dense` step;
    `float32` or `bfloat16` for a product."""
    steps: int = 0
    """Steps of the whole training, which its schedules are cut to; 0 for steps at a constant rate."""
    lr: float | None = None
    """Peak learning rate; None is 2e-4 / sqrt(width / 16384), the rule of Gao et al. that three of the four libraries have."""
    seed: int = 0
    """Seed of the weights."""
    device: str = "cpu"
    """Where to compute."""
    options: dict[str, Any] = field(default_factory=dict)
    """Of perimetry's architecture."""

    @property
    def rate(self) -> float:
        """Peak learning rate, in numbers."""
        return self.lr if self.lr is not None else 2e-4 / (self.width / 2**14) ** 0.5

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @classmethod
    def of_json(cls, values: dict[str, Any]) -> "Job":
        """From plain values."""
        return cls(**{**values, "variant": tuple(values["variant"])})
