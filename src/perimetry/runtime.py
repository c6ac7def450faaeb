"""Device, dtype, threads, random generators and the fingerprint of a run: the only place that asks for hardware."""

import os
import platform
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from pydantic import Field

from perimetry.config import Config
from perimetry.errors import ConfigError

__all__ = [
    "Dtype",
    "Runtime",
    "RuntimeConfig",
    "computes_with",
    "cores",
    "dtype_name",
    "fingerprint",
    "generator",
    "native_bf16",
    "start",
]

Dtype = Literal["auto", "float32", "bfloat16"]
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class RuntimeConfig(Config):
    """Where and how to compute."""

    device: str = "auto"
    """`auto` (a CUDA device where there is one), `cpu`, `cuda`, `cuda:1` ..."""
    dtype: Dtype = "auto"
    """Compute dtype of the language model; `auto` is bfloat16 where the processor multiplies it natively."""
    threads: int = Field(default=0, ge=0)
    """Threads of CPU operations; 0 leaves the default of the machine."""


class Runtime(NamedTuple):
    """The answer to a `RuntimeConfig`."""

    device: torch.device
    """Where tensors live."""
    dtype: torch.dtype
    """Compute dtype of the language model."""


def cores() -> int:
    """How many processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def native_bf16() -> bool:
    """True where bfloat16 products run on the processor's own instructions (AVX512-BF16, AMX or a CUDA device)."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported()
    info = Path("/proc/cpuinfo")
    flags = info.read_text(errors="ignore") if info.is_file() else ""
    return "avx512_bf16" in flags or "amx_bf16" in flags or platform.machine() == "arm64"


def dtype_name(dtype: torch.dtype) -> str:
    """`bfloat16` for `torch.bfloat16`.

    >>> dtype_name(torch.float32)
    'float32'
    """
    return str(dtype).removeprefix("torch.")


def start(config: RuntimeConfig | None = None) -> Runtime:
    """Choose device and dtype and set the threads. Errors: `ConfigError` for a device that is not there."""
    config = config or RuntimeConfig()
    name = config.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"device {name!r} is no device; wanted auto, cpu, cuda or cuda:N") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device {name!r} was asked for but there is no CUDA device here; use --device cpu")
    if config.threads:
        torch.set_num_threads(config.threads)
    dtype = DTYPES[config.dtype] if config.dtype != "auto" else (torch.bfloat16 if native_bf16() else torch.float32)
    return Runtime(device, dtype)


def generator(seed: int) -> torch.Generator:
    """A CPU generator; randomness comes in by this door only, so that results do not depend on the device."""
    return torch.Generator().manual_seed(seed)


def fingerprint() -> dict[str, Any]:
    """What a result was made with: versions, processor, threads."""
    import transformers  # late: takes a second

    from perimetry import __version__

    model = next(
        (line.split(":", 1)[1].strip() for line in _cpuinfo() if line.startswith("model name")), platform.processor()
    )
    return {
        "perimetry": __version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
        "processor": model,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "cuda": torch.cuda.get_device_name(0) if torch.cuda.is_available() else None,
    }


def computes_with() -> dict[str, Any]:
    """What the last bits of a computation depend on beside its inputs, without a look at the hardware that takes time."""
    from perimetry import __version__

    return {
        "perimetry": __version__,
        "torch": str(torch.__version__),
        "threads": torch.get_num_threads(),
        "capability": torch.backends.cpu.get_cpu_capability(),
    }


def _cpuinfo() -> list[str]:
    info = Path("/proc/cpuinfo")
    return info.read_text(errors="ignore").splitlines() if info.is_file() else []
