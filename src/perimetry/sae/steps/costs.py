"""What products cost on this machine, and from which density on dense ones beat gathers.

The rates are measured once a host and kept in the user's cache, so that a resumed training takes the same way and ends
with the same bits.
"""

import functools
import hashlib
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from perimetry.assets.cache import cache_folder
from perimetry.errors import ConfigError, CorruptArtifact, StorageError
from perimetry.runtime import generator, native_bf16
from perimetry.sae.steps import native
from perimetry.sae.steps.native.int8 import Int8Product, int8_usable
from perimetry.storage import read_json, write_json

__all__ = ["Costs", "Prediction", "crossover", "host_costs", "measure_costs", "predict", "selection"]

PIN = "PERIMETRY_DENSE_ABOVE"
SELECTION = "PERIMETRY_SELECTION"
TOKENS, D_MODEL, WIDTH, ACTIVE = 512, 512, 8192, 32
REPEATS = 3
LEAST, MOST = 1 / 64, 1 / 8
"""Bounds of the crossover: a machine that was busy while it was measured shall not drive it anywhere, and a list of more
entries than that takes more memory than the dictionary."""


class Costs(NamedTuple):
    """Rates of one host, in multiply-adds a second."""

    float32: float
    """Dense float32 products."""
    bfloat16: float
    """Dense bfloat16 products; 0 where the processor has none of its own."""
    int8: float
    """Products in int8 from which the largest are read, exact values included; 0 where the kernels or the processor have none."""
    gather: float
    """Weighted sums of gathered rows."""
    kernels: bool
    """Whether the compiled kernels did the gathers."""


class Prediction(NamedTuple):
    """Seconds of one training step, without the optimiser."""

    dense: float
    """Five dense float32 products."""
    sparse: float
    """The float32 encoder product and gathers."""
    low: float | None
    """The encoder product in int8 or bfloat16, whichever is faster, and gathers; None where neither is to be had or kernels are
    missing."""


def _best(call: Callable[[], object]) -> float:
    call()
    times: list[float] = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return max(min(times), 1e-9)


def measure_costs() -> Costs:
    """Time three small products on the CPU: a fraction of a second."""
    draw = generator(0)
    acts, weights = torch.randn(TOKENS, D_MODEL, generator=draw), torch.randn(WIDTH, D_MODEL, generator=draw)
    dense = TOKENS * D_MODEL * WIDTH
    low, low_weights = acts.bfloat16(), weights.bfloat16()
    bias, rounds = torch.zeros(WIDTH), int8_usable(acts, weights)
    columns = torch.randint(WIDTH, (TOKENS * ACTIVE,), generator=draw)
    offsets = torch.arange(0, TOKENS * ACTIVE + 1, ACTIVE)
    values = torch.randn(TOKENS * ACTIVE, generator=draw)

    def gather() -> Tensor:
        if native.usable(values, weights):
            return native.decode(offsets, columns, values, weights)
        return torch.nn.functional.embedding_bag(columns, weights, offsets[:-1], mode="sum", per_sample_weights=values)

    return Costs(
        float32=dense / _best(lambda: acts @ weights.T),
        bfloat16=dense / _best(lambda: low @ low_weights.T) if native_bf16() else 0.0,
        int8=dense / _best(lambda: Int8Product(acts, weights, bias).top(ACTIVE, 3 * ACTIVE, 6.0)) if rounds else 0.0,
        gather=TOKENS * ACTIVE * D_MODEL / _best(gather),
        kernels=native.usable(values, weights),
    )


def _file() -> Path:
    info = Path("/proc/cpuinfo")
    model = (
        [line for line in info.read_text(errors="ignore").splitlines() if "model name" in line][:1]
        if info.is_file()
        else []
    )
    kernels = native.usable(torch.zeros(1))
    parts = [
        platform.node(),
        platform.machine(),
        *model,
        str(os.cpu_count()),
        str(torch.get_num_threads()),
        str(kernels),
    ]
    name = hashlib.sha256("\0".join([*parts, torch.__version__]).encode()).hexdigest()[:16]
    return cache_folder() / "kernels" / f"costs-{name}.json"


@functools.cache
def host_costs() -> Costs:
    """The rates of this host, measured on first use."""
    file = _file()
    try:
        return Costs(**read_json(file)) if file.is_file() else _keep(measure_costs(), file)
    except (CorruptArtifact, TypeError):
        return _keep(measure_costs(), file)


def _keep(costs: Costs, file: Path) -> Costs:
    try:
        write_json(file, costs._asdict())
    except (StorageError, OSError):
        return costs  # a cache that cannot be written costs a measurement each time, no more
    return costs


def crossover() -> float:
    """Density of active entries above which dense products are predicted to be faster, or the value pinned by
    `PERIMETRY_DENSE_ABOVE`. Errors: `ConfigError` when that is no number."""
    pinned = os.environ.get(PIN, "").strip()
    if pinned:
        try:
            return float(pinned)
        except ValueError as error:
            raise ConfigError(f"{PIN} is {pinned!r}; a density between 0 and 1 is wanted, such as 0.1") from error
    costs = host_costs()
    return min(MOST, max(LEAST, costs.gather / costs.float32))


def selection() -> Literal["int8", "bf16", "float32"]:
    """The product by which the latents that may fire are found: the fastest that this host has, or the one pinned by
    `PERIMETRY_SELECTION`. Errors: `ConfigError` when that cannot be had."""
    costs = host_costs()
    rates = {"int8": costs.int8, "bf16": costs.bfloat16, "float32": costs.float32}
    pinned = os.environ.get(SELECTION, "").strip()
    if pinned and not rates.get(pinned):
        had = ", ".join(name for name, rate in rates.items() if rate)
        raise ConfigError(f"{SELECTION} is {pinned!r}; one that this host has is wanted: {had}")
    found = pinned or max(rates, key=lambda name: rates[name])
    return "int8" if found == "int8" else "bf16" if found == "bf16" else "float32"


def predict(costs: Costs, tokens: int, d_model: int, width: int, l0: float) -> Prediction:
    """Time of a step in each way: encode, decode, gradient of the codes and of both matrices.

    >>> fast = predict(Costs(1e11, 4e11, 0.0, 1e10, True), 1000, 100, 10_000, 10.0)
    >>> fast.dense, fast.sparse
    (0.05, 0.0104)
    """
    dense = tokens * d_model * width / costs.float32
    gathers = 4 * tokens * l0 * d_model / costs.gather
    low = None
    few_bits = max(costs.bfloat16, costs.int8)
    if few_bits and costs.kernels:
        low = tokens * d_model * width / few_bits + gathers * 1.25
    return Prediction(5 * dense, dense + gathers, low)
