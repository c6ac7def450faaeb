"""`perimetry doctor`: what must be true of a model and a machine before any number is believed."""

import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from perimetry.activations.model import LanguageModel, load_language_model
from perimetry.activations.policy import TokenPolicy
from perimetry.activations.prompts import collate, encode
from perimetry.activations.store import HarvestConfig, estimate
from perimetry.activations.tap import Tap
from perimetry.assets import Document
from perimetry.pipeline.training import middle_layer
from perimetry.runtime import Runtime, dtype_name, fingerprint, native_bf16
from perimetry.sae.steps.costs import crossover, host_costs, predict
from perimetry.storage import free_bytes
from perimetry.train import TrainConfig
from perimetry.train.trainer import Trainer

__all__ = ["Check", "run_checkup"]

SAMPLES = (
    "The committee met on Thursday to discuss the budget for the coming year.",
    "Rivers carry sand and clay from the mountains to the sea, where they settle in layers.",
    "She opened the letter, read it twice, and put it back into the drawer without a word.",
)
SINK_RATIO = 10.0
STEP_TOKENS = 2048
STEP_L0 = (32, 128, 1024)


class Check(NamedTuple):
    """One thing that was tried."""

    name: str
    """What should be true."""
    holds: bool
    """Whether it is."""
    measured: str
    """What was seen."""


def run_checkup(model: str, layer: int | None, tokens: int, width: int, runtime: Runtime) -> dict[str, Any]:
    """Try everything and say what was seen, as plain values."""
    began = time.perf_counter()
    lm = load_language_model(model, runtime)
    loaded = time.perf_counter() - began
    where = middle_layer(lm, layer)
    tap = Tap(lm, where)
    policy = TokenPolicy(prepend_bos=lm.bos_id is not None)
    batch = collate([encode(lm, text, policy) for text in SAMPLES], lm.pad_id)
    ids, attention = batch.ids.to(lm.device), batch.attention.to(lm.device)
    residual = tap.read(ids, attention)
    checks = [
        _equals(lm, where, ids, attention, residual),
        _stops(lm, tap, where, ids, attention),
        _padding(lm, tap, policy, residual, batch.attention),
        _sinks(residual, batch.attention.bool(), batch.countable),
        Check(
            "activations are finite",
            bool(residual[attention.bool()].isfinite().all()),
            f"{int(attention.sum())} tokens",
        ),
        _dtype(runtime),
    ]
    return {
        "model": lm.name,
        "revision": lm.revision,
        "family": lm.family,
        "layer": where,
        "layers": lm.n_layers,
        "d_model": lm.d_model,
        "context": lm.context,
        "dtype": dtype_name(lm.dtype),
        "device": str(lm.device),
        "load_seconds": loaded,
        "checks": [check._asdict() for check in checks],
        "estimate": _estimate(lm, where, tokens, width, policy),
        "step": _step(lm.d_model, width),
        "hardware": fingerprint(),
    }


def _equals(lm: LanguageModel, layer: int, ids: torch.Tensor, attention: torch.Tensor, residual: torch.Tensor) -> Check:
    name = "the tap equals hidden_states"
    if layer == lm.n_layers - 1:
        return Check(
            name, holds=True, measured="last block: the model norms its last hidden state, the tap reads before that"
        )
    with torch.no_grad():
        output = lm.model(input_ids=ids, attention_mask=attention, output_hidden_states=True, use_cache=False)
    real = attention.bool()
    gap = float((output.hidden_states[layer + 1][real].float() - residual[real].float()).abs().max())
    return Check(name, gap == 0.0, f"largest difference {gap:g}")


def _stops(lm: LanguageModel, tap: Tap, layer: int, ids: torch.Tensor, attention: torch.Tensor) -> Check:
    ran: list[int] = []

    def noting(number: int) -> Callable[[nn.Module, Any], None]:
        def hook(module: nn.Module, inputs: Any) -> None:  # noqa: ARG001
            ran.append(number)

        return hook

    handles = [block.register_forward_pre_hook(noting(i)) for i, block in enumerate(lm.blocks)]
    try:
        tap.read(ids, attention)
    finally:
        for handle in handles:
            handle.remove()
    holds = ran == list(range(layer + 1))
    return Check("the pass stops at the tap", holds, f"blocks run: {len(ran)} of {lm.n_layers}, last {ran[-1]}")


def _padding(
    lm: LanguageModel, tap: Tap, policy: TokenPolicy, residual: torch.Tensor, attention: torch.Tensor
) -> Check:
    left = collate([encode(lm, text, policy) for text in SAMPLES], lm.pad_id, "left")
    other = tap.read(left.ids.to(lm.device), left.attention.to(lm.device)).float().cpu()
    one = residual.float().cpu()[attention.bool()]
    two = other[left.attention.bool()]
    gap = float(((one - two).norm(dim=1) / one.norm(dim=1)).max())
    most = 1e-4 if lm.dtype == torch.float32 else 0.05
    return Check(
        "left and right padding agree", gap <= most, f"largest relative difference {gap:.2g}, at most {most:g}"
    )


def _sinks(residual: torch.Tensor, real: torch.Tensor, countable: torch.Tensor) -> Check:
    norms = residual.float().norm(dim=-1).cpu()
    median = float(norms[countable].median())
    sinks = real & (norms > SINK_RATIO * median)
    counted = int((sinks & countable).sum())
    first = float(norms[:, 0].max()) / median
    text = f"first token {first:.1f} times the median norm; {int(sinks.sum())} sinks, {counted} of them would count"
    return Check("attention sinks stay out", counted == 0, text)


def _dtype(runtime: Runtime) -> Check:
    fits = runtime.dtype != torch.bfloat16 or native_bf16()
    kind = "native" if native_bf16() else "emulated, slower than float32"
    return Check("the dtype suits the processor", fits, f"{dtype_name(runtime.dtype)}; bfloat16 products are {kind}")


def _estimate(lm: LanguageModel, layer: int, tokens: int, width: int, policy: TokenPolicy) -> dict[str, Any]:
    texts = [Document(str(i), " ".join(SAMPLES) * 40, {}) for i in range(32)]
    config = HarvestConfig(tokens=tokens, context=min(128, lm.context), batch_rows=32, policy=policy)
    harvest = estimate(lm, layer, texts, config)
    return {
        "tokens": tokens,
        "harvest_seconds": harvest.seconds,
        "harvest_tokens_per_second": harvest.tokens_per_second,
        "store_bytes": harvest.bytes,
        "train_seconds": _train_seconds(lm.d_model, width, tokens),
        "train_bytes": 4 * 4 * (2 * width * lm.d_model + width + lm.d_model),
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "free_disk_bytes": free_bytes(Path.cwd()),
    }


def _step(d_model: int, width: int) -> dict[str, Any]:
    """The cost model of the training step: rates of this host, and the seconds it predicts for each way."""
    costs = host_costs()
    ways = {
        f"l0_{l0}": predict(costs, STEP_TOKENS, d_model, width, float(l0))._asdict() for l0 in STEP_L0 if l0 <= width
    }
    return {
        "tokens": STEP_TOKENS,
        "multiply_adds_per_second": {n: getattr(costs, n) for n in ("float32", "bfloat16", "int8", "gather")},
        "compiled_kernels": costs.kernels,
        "dense_above_density": crossover(),
        "predicted_seconds": ways,
    }


def _train_seconds(d_model: int, width: int, tokens: int) -> float:
    """Time of the optimiser steps for one BatchTopK SAE, from two measured steps."""
    config = TrainConfig(width=width, k=min(32, width), tokens=max(tokens, STEP_TOKENS), batch=STEP_TOKENS)
    trainer = Trainer(config, 1.0, torch.zeros(d_model))
    acts = torch.randn(STEP_TOKENS, d_model, generator=torch.Generator().manual_seed(0)) / d_model**0.5
    trainer.advance(acts)
    began = time.perf_counter()
    trainer.advance(acts)
    return (time.perf_counter() - began) * tokens / STEP_TOKENS
