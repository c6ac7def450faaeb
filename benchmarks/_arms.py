"""What is compared, at which sizes, and how much memory it will ask for."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from peers.jobs import Job

__all__ = [
    "ARMS",
    "HEADLINE",
    "LIMITS",
    "MAIN",
    "OURS",
    "PACKAGES",
    "SIZES",
    "TINY",
    "TRAINING",
    "Arm",
    "Size",
    "groups",
]


class Size(NamedTuple):
    """One size of the problem."""

    batch: int
    d_model: int
    width: int
    k: int


HEADLINE = Size(4096, 576, 16_384, 32)
"""SmolLM2-135M's width with an expansion of about 28."""
SIZES = (
    HEADLINE,
    Size(1024, 576, 4096, 16),
    Size(4096, 576, 4096, 32),
    Size(16_384, 576, 16_384, 32),
    Size(4096, 768, 16_384, 128),
    Size(2048, 768, 32_768, 64),
    Size(2048, 2304, 16_384, 64),
    Size(1024, 2304, 65_536, 128),
)
TRAINING = Size(2048, 576, 8192, 32)
"""Of the whole short training."""
TINY = Size(128, 16, 64, 4)
TINY_MEMORY = Size(512, 64, 8192, 4)
"""Large enough that a step shows in the resident size."""


class Arm(NamedTuple):
    """One way to take a step."""

    library: str
    """Who takes it: `arm_<library>.py` among the peers."""
    environment: str
    """Where the library lives; "" is this interpreter."""
    variant: tuple[str, ...] = ()
    """See `Job`."""

    def job(self, size: Size, data: Path, held_out: Path, **more: object) -> Job:
        """The job at a size."""
        return Job.of_json(
            {
                "library": self.library,
                "variant": self.variant,
                **size._asdict(),
                "data": str(data),
                "held_out": str(held_out),
                **more,
            }
        )

    def kept(self, size: Size) -> int:
        """Bytes that stay between steps, by estimate."""
        if self.library == "limit":
            return 4 * (size.width * size.d_model + size.batch * size.width)
        return 4 * (6 * size.width * size.d_model + size.batch * size.d_model)

    def passing(self, size: Size) -> int:
        """Bytes more in the middle of a step, by estimate: gradients, and dense latents where there are any."""
        if self.library == "limit":
            return 0
        dense = 0 if self == OURS else 9
        rows = 2 * size.k * size.d_model if self.library == "sparsify" else 0
        return 4 * (4 * size.width * size.d_model + size.batch * (dense * size.width + rows))


OURS = Arm("perimetry", "")
LIMITS = {"gemm_float32": Arm("limit", "", ("float32",)), "gemm_bfloat16": Arm("limit", "", ("bfloat16",))}
ARMS: dict[str, Arm] = {
    "perimetry": OURS,
    "perimetry_dense": Arm("perimetry", "", ("dense",)),
    **LIMITS,
    "saelens": Arm("saelens", "saelens"),
    "saelens_fused": Arm("saelens", "saelens", ("fused",)),
    "saelens_sparse": Arm("saelens", "saelens", ("sparse",)),
    "saelens_autocast": Arm("saelens", "saelens", ("autocast",)),
    "saelens_autocast_fused": Arm("saelens", "saelens", ("autocast", "fused")),
    "sparsify": Arm("sparsify", "sparsify"),
    "sparsify_fused": Arm("sparsify", "sparsify", ("fused",)),
    "sparsify_autocast": Arm("sparsify", "sparsify", ("autocast",)),
    "sparsify_autocast_fused": Arm("sparsify", "sparsify", ("autocast", "fused")),
    "dictionary_learning": Arm("dictionary_learning", "dictionary_learning"),
    "dictionary_learning_fused": Arm("dictionary_learning", "dictionary_learning", ("fused",)),
}
"""Name -> arm. Without a suffix: the library as it is by default, in float32."""
MAIN = ("saelens", "saelens_autocast", "sparsify", "sparsify_autocast", "dictionary_learning")
"""The peers at sizes other than the first."""
PACKAGES = {
    "saelens": ("sae-lens",),
    "sparsify": ("eai-sparsify",),
    "dictionary_learning": ("dictionary-learning",),
}
"""Environment -> packages whose versions go into the results."""
PROCESS = 700 * 2**20
"""Bytes of a process that has loaded its library and no SAE."""


def available(device: torch.device) -> int:
    """Bytes that may be taken now."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    info = Path("/proc/meminfo")
    if not info.is_file():
        return sys.maxsize
    line = next(x for x in info.read_text().splitlines() if x.startswith("MemAvailable"))
    return int(line.split()[1]) * 1024


def groups(names: Sequence[str], size: Size, room: int) -> tuple[list[list[str]], dict[str, str]]:
    """Arms that fit into `room` bytes together, perimetry and the limits in each group; and why some fit nowhere.

    One computes at a time, so a group holds what each keeps and what one of them needs on top.
    """
    shared = ["perimetry", *LIMITS]
    found: list[list[str]] = [shared]
    skipped: dict[str, str] = {}

    def need(group: Sequence[str]) -> int:
        arms = [ARMS[name] for name in group]
        processes = len({arm.environment for arm in arms}) * PROCESS
        return processes + sum(arm.kept(size) for arm in arms) + max(arm.passing(size) for arm in arms)

    for name in names:
        if name in shared:
            continue
        if need([*shared, name]) > room:
            gib = need([*shared, name]) / 2**30
            skipped[name] = f"would need about {gib:.0f} GiB, {room / 2**30:.0f} GiB are free"
        elif need([*found[-1], name]) <= room:
            found[-1] = [*found[-1], name]
        else:
            found.append([*shared, name])
    return found, skipped
