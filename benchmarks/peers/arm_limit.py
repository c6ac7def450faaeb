"""The product that no trainer avoids: every token with every encoder row, into memory that is there already."""

import torch
from jobs import Job

__all__ = ["Arm"]


class Arm:
    """One matrix product."""

    def __init__(self, job: Job, sample: torch.Tensor) -> None:
        dtype = torch.bfloat16 if "bfloat16" in job.variant else torch.float32
        rng = torch.Generator().manual_seed(job.seed)
        self.weight = torch.randn(job.width, job.d_model, generator=rng).to(job.device, dtype)
        self.left = sample.to(dtype)
        self.out = torch.empty(job.batch, job.width, dtype=dtype, device=job.device)

    def step(self, batch: torch.Tensor) -> None:  # noqa: ARG002
        """Multiply once; the rows were cast beforehand."""
        torch.mm(self.left, self.weight.T, out=self.out)
