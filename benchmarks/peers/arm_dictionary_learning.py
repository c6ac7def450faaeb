"""dictionary_learning: `TopKTrainer.update`, as its `trainSAE` calls it, activations scaled to a mean square norm of 1."""

from typing import Any

import torch
from dictionary_learning.trainers.top_k import TopKTrainer  # pyright: ignore[reportMissingImports]
from jobs import Job

__all__ = ["Arm"]


class Arm:
    """One SAE in training."""

    def __init__(self, job: Job, sample: torch.Tensor) -> None:
        steps = job.steps or 1_000_000
        self.trainer: Any = TopKTrainer(
            steps=steps,
            activation_dim=job.d_model,
            dict_size=job.width,
            k=job.k,
            layer=0,
            lm_name="none",
            lr=job.rate,
            warmup_steps=round(0.05 * job.steps),
            decay_start=round(0.8 * job.steps) if job.steps else None,
            seed=job.seed,
            device=job.device,
        )
        if "fused" in job.variant:
            for group in self.trainer.optimizer.param_groups:
                group["fused"] = True
        self.scale, self.done = float(sample.square().sum(1).mean().sqrt()), 0
        self.autocast, self.kind = "autocast" in job.variant, torch.device(job.device).type

    def step(self, batch: torch.Tensor) -> None:
        """Learn from a batch."""
        with torch.autocast(self.kind, dtype=torch.bfloat16, enabled=self.autocast):
            self.trainer.update(self.done, batch / self.scale)
        self.done += 1

    def reconstruct(self, rows: torch.Tensor) -> torch.Tensor:
        """What the SAE makes of raw rows."""
        return self.trainer.ae(rows / self.scale) * self.scale

    def parameter_bytes(self) -> int:
        """Of all parameters."""
        return sum(p.numel() * p.element_size() for p in self.trainer.ae.parameters())
