"""How fast an SAE learns: tokens per second of one whole training step, beside the matrix product it cannot avoid.

A step is everything that `perimetry train` does with a batch: selection, exact gradients, clipping, the projection of
the decoder's gradient, Adam, unit rows, counts of dead latents. The yardstick is the encoder's product alone,
`acts @ W_enc.T` into memory that is there already, in whichever of float32 and bfloat16 is faster here. `dense` is the
same step by autograd.

The activations are sums of a few random directions with noise. The dictionaries are young: `l0` says how many latents
fire a token, which for `standard` and `jumprelu` falls much further in a long run, and makes them faster. No latent is
dead, so the auxiliary loss costs nothing.
"""

import argparse
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from _common import Spread, finish, parser, ratio, row, runtime_of, spread, take_turns
from perimetry.runtime import generator
from perimetry.sae import ARCHITECTURES
from perimetry.sae.steps.base import StepResult
from perimetry.train import TrainConfig
from perimetry.train.trainer import Trainer


class Size(NamedTuple):
    """One size of the problem."""

    batch: int
    d_model: int
    width: int
    k: int


HEADLINE = Size(4096, 576, 16_384, 32)
"""SmolLM2-135M's width with an expansion of about 28."""
SIZES = (Size(2048, 576, 4_608, 32), HEADLINE, Size(2048, 1024, 16_384, 64))
TINY = Size(64, 16, 64, 4)
ACTIVE, NOISE = 24, 0.05


def planted(size: Size, seed: int) -> Tensor:
    """Activations with structure, so that selection sees values that stand out."""
    rng = generator(seed)
    directions = torch.nn.functional.normalize(torch.randn(size.width, size.d_model, generator=rng), dim=1)
    which = torch.randint(size.width, (size.batch, ACTIVE), generator=rng)
    amount = 0.5 + torch.rand(size.batch, ACTIVE, 1, generator=rng)
    return (directions[which] * amount).sum(1) + NOISE * torch.randn(size.batch, size.d_model, generator=rng)


def stepper(architecture: str, size: Size, acts: Tensor, step: str) -> Callable[[], StepResult]:
    """A trainer past its first steps, as a call that advances it."""
    config = TrainConfig(
        architecture=architecture,
        width=size.width,
        k=size.k,
        batch=size.batch,
        tokens=1_000_000_000,
        lr_warmup=0.0,
        step="dense" if step == "dense" else "sparse",
    )
    scale = float(acts.square().sum(1).mean().rsqrt())
    trainer = Trainer(config, scale, acts.mean(0) * scale)
    for _ in range(2):
        trainer.advance(acts)
    return lambda: trainer.advance(acts)


def product(acts: Tensor, size: Size, dtype: torch.dtype) -> Callable[[], object]:
    """The encoder's product alone."""
    weight = torch.randn(size.width, size.d_model, generator=generator(1)).to(acts.device, dtype)
    left, out = acts.to(dtype), acts.new_empty(size.batch, size.width, dtype=dtype)
    return lambda: torch.mm(left, weight.T, out=out)


def waited(call: Callable[[], object], device: torch.device) -> Callable[[], object]:
    """The call with its work done when it returns."""

    def wait() -> None:
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return wait


def measure(architecture: str, size: Size, arguments: argparse.Namespace, *, dense: bool) -> list[dict[str, Any]]:
    """Rows of one architecture at one size."""
    device = runtime_of(arguments).device
    acts = planted(size, 0).to(device)
    sparse = stepper(architecture, size, acts, "sparse")
    calls: dict[str, Callable[[], object]] = {
        "gemm_float32": product(acts, size, torch.float32),
        "gemm_bfloat16": product(acts, size, torch.bfloat16),
        "perimetry": sparse,
    }
    if dense:
        calls["dense"] = stepper(architecture, size, acts, "dense")
    seconds = take_turns({name: waited(call, device) for name, call in calls.items()}, arguments.repeats)
    about = {"architecture": architecture, **size._asdict(), "l0": round(sparse().l0, 1)}
    speeds = {name: spread([size.batch / s for s in taken]) for name, taken in seconds.items()}
    rows = [row("tokens_per_s", name, "", speed, **about) for name, speed in speeds.items()]
    yardstick = max(("gemm_float32", "gemm_bfloat16"), key=lambda name: speeds[name].median)
    rows.append(row("time_ratio", "perimetry", yardstick, ratio(seconds, "perimetry", yardstick), **about))
    if dense:
        rows.append(row("time_ratio", "dense", "perimetry", ratio(seconds, "dense", "perimetry"), **about))
    return rows


def main() -> None:
    """Measure and print."""
    found = parser(__doc__)
    found.add_argument("--architecture", choices=sorted(ARCHITECTURES), help="this one only (with --quick: topk)")
    arguments = found.parse_args()
    quick = arguments.quick or arguments.tiny
    headline = TINY if arguments.tiny else HEADLINE
    sizes = (headline,) if quick else SIZES
    one = arguments.architecture or ("topk" if quick else None)
    architectures = [one] if one else list(ARCHITECTURES)
    rows: list[dict[str, Any]] = []
    for size in sizes:
        for architecture in architectures:
            rows += measure(architecture, size, arguments, dense=not quick and size == SIZES[0])
    speeds = {
        line["arm"]: Spread(line["estimate"], line["low"], line["high"], line["n"])
        for line in rows
        if line["metric"] == "tokens_per_s" and Size(*(line[f] for f in Size._fields)) == headline
        if line["architecture"] == (one or "topk")
    }
    finish(
        arguments,
        "train_step",
        rows,
        perimetry_tokens_per_s=speeds["perimetry"].median,
        gemm_tokens_per_s=max(speeds["gemm_float32"].median, speeds["gemm_bfloat16"].median),
    )


if __name__ == "__main__":
    main()
