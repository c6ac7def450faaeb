"""perimetry's own training step, as `perimetry train` does it."""

from typing import Any

import torch
from jobs import Job

from perimetry.train import TrainConfig
from perimetry.train.fits import geometric_median
from perimetry.train.trainer import Trainer

__all__ = ["Arm"]


class Arm:
    """One SAE in training."""

    def __init__(self, job: Job, sample: torch.Tensor) -> None:
        more: dict[str, Any] = {"step": "dense"} if "dense" in job.variant else {}
        more |= {} if job.steps else {"lr_warmup": 0.0}
        more |= {"options": job.options} if job.options else {}
        config = TrainConfig.model_validate(
            {
                "architecture": job.architecture,
                "width": job.width,
                "k": job.k,
                "batch": job.batch,
                "tokens": (job.steps or 1_000_000) * job.batch,
                "lr": job.rate,
                "seed": job.seed,
                **more,
            }
        )
        self.scale = float(sample.square().sum(1).mean().rsqrt())
        self.trainer = Trainer(config, self.scale, geometric_median(sample * self.scale))

    def step(self, batch: torch.Tensor) -> float:
        """Learn from a batch; returns the mean active count."""
        return self.trainer.advance(batch).l0

    def reconstruct(self, rows: torch.Tensor) -> torch.Tensor:
        """What the SAE makes of raw rows."""
        return self.trainer.sae(rows * self.scale).reconstruction / self.scale

    def parameter_bytes(self) -> int:
        """Of all parameters."""
        return sum(p.numel() * p.element_size() for p in self.trainer.sae.parameters())
