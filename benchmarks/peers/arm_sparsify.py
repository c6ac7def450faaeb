"""sparsify: the calls of its `Trainer.fit` on a batch, in its order, with its Adam.

Its trainer reads activations out of a language model, so the body of its loop is written out here. Its default
optimiser is another one (sign descent without a schedule); Adam is what the others are compared with.
"""

from typing import Any

import torch
from jobs import Job
from sparsify import SparseCoder, SparseCoderConfig  # pyright: ignore[reportMissingImports]
from transformers import get_linear_schedule_with_warmup

__all__ = ["Arm"]


class Arm:
    """One SAE in training."""

    def __init__(self, job: Job, sample: torch.Tensor) -> None:
        torch.manual_seed(job.seed)
        config = SparseCoderConfig(num_latents=job.width, k=job.k)
        self.sae: Any = SparseCoder(job.d_model, config, device=job.device, dtype=torch.float32)
        self.sae.b_dec.data = sample.mean(0)
        self.optimizer = torch.optim.Adam(self.sae.parameters(), lr=job.rate)
        if "fused" in job.variant:
            for group in self.optimizer.param_groups:
                group["fused"] = True
        steps = job.steps or 1_000_000
        self.scheduler = get_linear_schedule_with_warmup(self.optimizer, round(0.05 * job.steps), steps)
        self.since_fired = torch.zeros(job.width, dtype=torch.int64, device=job.device)
        self.autocast, self.kind = "autocast" in job.variant, torch.device(job.device).type

    def step(self, batch: torch.Tensor) -> None:
        """Learn from a batch."""
        self.sae.set_decoder_norm_to_unit_norm()
        variance = (batch - batch.mean(0)).pow(2).sum()
        with torch.autocast(self.kind, dtype=torch.bfloat16, enabled=self.autocast):
            out = self.sae(x=batch, y=batch, dead_mask=None, total_variance=variance)
        fired = torch.zeros_like(self.since_fired, dtype=torch.bool)
        fired[out.latent_indices.flatten()] = True
        out.fvu.backward()
        self.sae.remove_gradient_parallel_to_decoder_directions()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.scheduler.step()
        self.since_fired += batch.shape[0]
        self.since_fired[fired] = 0

    def reconstruct(self, rows: torch.Tensor) -> torch.Tensor:
        """What the SAE makes of raw rows."""
        return self.sae(rows).sae_out

    def parameter_bytes(self) -> int:
        """Of all parameters."""
        return sum(p.numel() * p.element_size() for p in self.sae.parameters())
