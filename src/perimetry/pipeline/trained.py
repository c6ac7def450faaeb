"""What a run of `perimetry train` says of each SAE."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["TrainedSAE"]


class TrainedSAE(NamedTuple):
    """One SAE that was trained."""

    path: Path
    """Folder to give to `perimetry calibrate --sae`."""
    digest: str
    """Identity of the artifact."""
    seed: int
    """Seed of its weights."""
    fvu: float
    """Fraction of variance unexplained on held-out tokens; lower is better."""
    l0: float
    """Mean active count there."""
    dead: float
    """Share of latents that never fired there."""
    swept: Mapping[str, Any] = {}
    """What tells it from the other SAEs of its run, as plain values."""
    makes_meter: bool = True
    """Whether a meter can be made of it: it reads the output of one block and gives it back."""

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        plain = {"path": str(self.path), "digest": self.digest, "seed": self.seed}
        return {**plain, **self.swept, "fvu": self.fvu, "l0": self.l0, "dead": self.dead}
