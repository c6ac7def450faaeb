"""Each kernel of the GPU against the torch operations that it stands for.

Where Triton is installed, its interpreter runs them on the CPU (in a process of its own: the switch must be set before
Triton is imported) and its compiler makes machine code of them; where there is a GPU, the whole step runs on it.
"""

import copy
import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.sae.steps.test_native import ragged
from tests.sae.steps.test_parity import NAMES, OBJECTIVE, batch, compare, make, mask, worst

from perimetry.runtime import generator
from perimetry.sae.affine import AffineSAE
from perimetry.sae.steps import device, native, products, triton_kernels
from perimetry.sae.steps.auto import dense_step
from perimetry.sae.steps.sparse import sparse_step
from perimetry.train.rows import update_rows
from perimetry.train.trainer import apply_gradients

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")
interpreted = pytest.mark.skipif(not INTERPRETED, reason="run by test_the_numbers_in_the_interpreter")
compiled = pytest.mark.skipif(INTERPRETED, reason="not in the interpreter")
on_a_gpu = pytest.mark.skipif(INTERPRETED or not torch.cuda.is_available(), reason="no GPU here")

shapes = given(
    rows=st.integers(1, 20),
    width=st.integers(1, 30),
    d=st.sampled_from([1, 7, 16, 50, 600]),
    span=st.sampled_from([1, 4, 256]),
    seed=st.integers(0, 10_000),
)


@pytest.fixture(scope="module", autouse=True)
def here() -> Iterator[None]:
    """In the interpreter, tensors of the CPU pass for those of a GPU."""
    with pytest.MonkeyPatch.context() as patch:
        if INTERPRETED:
            patch.setattr(device, "DEVICES", {"cpu"})
            patch.setattr(native, "usable", lambda *_: False)
            patch.setattr(products, "DENSE_ABOVE", 2.0)
        device._failure.clear()
        yield
        assert device._failure == []


@compiled
@pytest.mark.slow
def test_the_numbers_in_the_interpreter() -> None:
    command = [sys.executable, "-m", "pytest", __file__, "-p", "no:cacheprovider"]
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stdout[-4000:]
    assert re.search(r"\d+ passed", done.stdout)


@interpreted
@settings(max_examples=15, deadline=None)
@shapes
def test_products_of_entries(rows: int, width: int, d: int, span: int, seed: int) -> None:
    active, draw = ragged(rows, width, seed), generator(seed + 1)
    weights, upstream = torch.randn(width, d, generator=draw), torch.randn(rows, d, generator=draw)
    places, order, dense = (active.offsets, active.columns), active.by_column(), active.dense()
    close: Callable[..., None] = torch.testing.assert_close
    close(device.decode(*places, active.values, weights), dense @ weights, rtol=1e-4, atol=1e-4)
    inner = (upstream @ weights.T)[active.rows(), active.columns]
    close(device.sampled(*places, upstream, weights), inner, rtol=1e-4, atol=1e-4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(device, "SPAN", span)
        found = device.transposed(order.offsets, order.order, order.rows, active.values, upstream)
    close(found, dense.T @ upstream, rtol=1e-4, atol=1e-4)


@interpreted
@settings(max_examples=8, deadline=None)
@shapes
def test_the_residual(rows: int, width: int, d: int, span: int, seed: int) -> None:
    active, draw = ragged(rows, width, seed), generator(seed + 1)
    weights, target = torch.randn(width, d, generator=draw), torch.randn(rows, d, generator=draw)
    bias = torch.randn(d, generator=draw)
    found = device.residual(*active[:3], weights, bias, target, -0.25)
    assert found is not None
    left = target - bias - active.dense() @ weights
    torch.testing.assert_close(found[0], -0.25 * left, rtol=1e-4, atol=1e-4)
    assert found[1] == pytest.approx(float(left.double().square().sum()), rel=1e-4)


@interpreted
@pytest.mark.parametrize("n_dead", [0, 20])
@pytest.mark.parametrize("name", NAMES)
def test_gradients_equal_dense_autograd(name: str, n_dead: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "SPAN", 4)
    compare(make(name), batch(12), mask(n_dead))


@interpreted
def test_nothing_fires_at_all() -> None:
    sae = make("topk")
    with torch.no_grad():
        sae.b_enc.fill_(-100.0)
    compare(sae, batch(10), mask(10))


def optimizer_of(sae: AffineSAE) -> torch.optim.Adam:
    return torch.optim.Adam(sae.parameters(), lr=1e-2, betas=(0.9, 0.999), fused=True)


def updated(sae: AffineSAE, rows: torch.Tensor, clip: float, *, unit: bool) -> Any:
    optimizer, norms = optimizer_of(sae), []
    for _ in range(2):
        gradients = sparse_step(sae, rows, OBJECTIVE, None).gradients
        norms.append(apply_gradients(sae, optimizer, gradients, clip=clip, unit_decoder=unit))
    state = {f"{n}.{k}": v for n, p in sae.named_parameters() for k, v in optimizer.state[p].items()}
    return norms, state | {n: p.detach() for n, p in sae.named_parameters()}


def same_updates(sae: AffineSAE, rows: torch.Tensor, clip: float, *, unit: bool) -> None:
    norms, found = updated(copy.deepcopy(sae), rows, clip, unit=unit)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(device, "DEVICES", set())
        wanted_norms, wanted = updated(sae, rows, clip, unit=unit)
    assert norms == pytest.approx(wanted_norms, rel=1e-4)
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-4, atol=2e-5, msg=lambda m, n=name: f"{n}: {m}")


@interpreted
@pytest.mark.parametrize("unit", [True, False])
@pytest.mark.parametrize("clip", [0.05, 1e6])
def test_updates_are_those_of_torch(clip: float, unit: bool) -> None:
    same_updates(make("jumprelu"), batch(12), clip, unit=unit)


@interpreted
def test_a_matrix_whose_update_fails_is_left_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = device.adam, []

    def sometimes(*arguments: Any, **options: Any) -> bool:
        calls.append(options["unit"])
        return not options["unit"] and real(*arguments, **options)

    monkeypatch.setattr(device, "adam", sometimes)
    same_updates(make("topk"), batch(12), 0.05, unit=True)
    assert calls == [False, True] * 2  # each matrix once a step, the encoder first


@interpreted
def test_rows_too_long_for_the_update_are_left_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "ROW_LIMIT", 8)
    sae = make("topk")
    gradients = sparse_step(sae, batch(12), OBJECTIVE, None).gradients
    assert update_rows(sae, optimizer_of(sae), gradients, clip=1.0, unit_decoder=True) is None


def typed(places: str, matrices: str, numbers: str = "") -> dict[str, str]:
    """Triton's types of the parameters that are named, separated by spaces."""
    kinds = {"*i64": places, "*fp32": matrices, "fp32": numbers}
    return {name: kind for kind, names in kinds.items() for name in names.split()}


TILE = {"BLOCK": 512, "TILE": 8}
KERNELS: list[tuple[Callable[..., None], dict[str, str], dict[str, Any]]] = [
    (
        triton_kernels.gather_rows,
        typed("first last columns", "values weights bias target out errors", "scale"),
        {"FUSED": True, **TILE},
    ),
    (triton_kernels.sampled_products, typed("offsets columns", "upstream weights out"), TILE),
    (
        triton_kernels.segment_rows,
        typed("starts rows ends", "values upstream pieces out"),
        {"SPAN": device.SPAN, **TILE},
    ),
    (triton_kernels.project_rows, typed("", "gradient weights squares"), {"PROJECT": True, "BLOCK": 1024}),
    (
        triton_kernels.adam_rows,
        typed("", "gradient weights mean spread", "clip beta1 rest1 beta2 rest2 step_size correction eps tiny"),
        {"UNIT": True, "BLOCK": 1024},
    ),
]


@compiled
@pytest.mark.slow
@pytest.mark.parametrize("capability", [80, 90])
def test_they_compile_without_atomics(capability: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    compiler = importlib.import_module("triton.compiler")
    target = importlib.import_module("triton.backends.compiler").GPUTarget("cuda", capability, 32)
    for function, types, constants in KERNELS:
        made = triton_kernels.kernel(function)
        signature = types | {"d": "i32"} | dict.fromkeys(constants, "constexpr")
        assert set(signature) == set(made.arg_names)
        ordered = {name: signature[name] for name in made.arg_names}
        source = compiler.ASTSource(fn=made, signature=ordered, constexprs=constants)
        found = compiler.compile(source, target=target, options={"num_warps": 4, "enable_fp_fusion": True})
        assert found.asm["cubin"]
        assert not re.search(r"\b(atom|red)\.", found.asm["ptx"]), function.__name__


@on_a_gpu
@pytest.mark.parametrize("n_dead", [0, 20])
@pytest.mark.parametrize("name", NAMES)
def test_the_step_on_a_gpu(name: str, n_dead: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "DENSE_ABOVE", 2.0)
    sae, rows, dead = make(name).cuda(), batch(300).cuda(), mask(n_dead).cuda()
    found = sparse_step(sae, rows, OBJECTIVE, dead)
    assert device.usable(rows)
    assert worst(found, dense_step(copy.deepcopy(sae).double(), rows.double(), OBJECTIVE, dead)) < 1e-5
    again = sparse_step(sae, rows, OBJECTIVE, dead)
    for gradient, repeated in zip(found.gradients.values(), again.gradients.values(), strict=True):
        assert torch.equal(gradient, repeated)


@on_a_gpu
@pytest.mark.parametrize("unit", [True, False])
def test_updates_on_a_gpu(unit: bool) -> None:
    same_updates(make("topk").cuda(), batch(300).cuda(), 0.05, unit=unit)
