"""SAELens: its `SAETrainer.step`, the public seam of its training loop.

Its recipe for TopK is followed: activations scaled to a mean norm of sqrt(d), which its trainer does itself.
"""

from typing import Any

import torch
from jobs import Job
from sae_lens import TopKTrainingSAE, TopKTrainingSAEConfig  # pyright: ignore[reportMissingImports]
from sae_lens.config import SAETrainerConfig  # pyright: ignore[reportMissingImports]
from sae_lens.training.sae_trainer import SAETrainer  # pyright: ignore[reportMissingImports]

__all__ = ["Arm"]


class Arm:
    """One SAE in training."""

    def __init__(self, job: Job, sample: torch.Tensor) -> None:
        torch.manual_seed(job.seed)
        normalise = "expected_average_only_in"
        config = TopKTrainingSAEConfig(
            d_in=job.d_model,
            d_sae=job.width,
            k=job.k,
            device=job.device,
            use_sparse_activations="sparse" in job.variant,
            normalize_activations=normalise,
        )
        schedule: dict[str, Any] = {}
        if job.steps:
            schedule = {"lr_warm_up_steps": round(0.05 * job.steps), "lr_decay_steps": round(0.2 * job.steps)}
        trainer_config = SAETrainerConfig(
            total_training_samples=(job.steps or 1_000_000) * job.batch,
            train_batch_size_samples=job.batch,
            lr=job.rate,
            lr_end=job.rate / 10,
            device=job.device,
            autocast="autocast" in job.variant,
            **schedule,
        )
        self.trainer: Any = SAETrainer(trainer_config, TopKTrainingSAE(config), iter([sample]))
        scaler = self.trainer.activation_scaler
        scaler.estimate_scaling_factor(d_in=job.d_model, data_provider=iter([sample]), n_batches_for_norm_estimate=1)
        if "fused" in job.variant:
            for group in self.trainer.optimizer.param_groups:
                group["fused"] = True

    def step(self, batch: torch.Tensor) -> None:
        """Learn from a batch."""
        self.trainer.step(batch)
        self.trainer.n_training_steps += 1

    def reconstruct(self, rows: torch.Tensor) -> torch.Tensor:
        """What the SAE makes of raw rows."""
        scaler = self.trainer.activation_scaler
        return self.trainer.sae(scaler(rows)) / scaler.scaling_factor

    def parameter_bytes(self) -> int:
        """Of all parameters."""
        return sum(p.numel() * p.element_size() for p in self.trainer.sae.parameters())
