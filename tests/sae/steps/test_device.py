"""What happens around the kernels of a GPU where there is none: torch takes their place, and says so once."""

import importlib
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.sae.steps.test_parity import batch, compare, make, mask

from perimetry.runtime import generator
from perimetry.sae.steps import device, native, products, triton_kernels
from perimetry.sae.steps.active import sorted_sums


@pytest.fixture
def as_if_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Tensors of the CPU pass for those of a GPU."""
    monkeypatch.setattr(device, "DEVICES", {"cpu"})
    monkeypatch.setattr(native, "usable", lambda *_: False)
    monkeypatch.setattr(products, "DENSE_ABOVE", 2.0)
    device._failure.clear()
    yield
    device._failure.clear()


REAL_IMPORT = importlib.import_module


def without_triton(name: str) -> Any:
    if name.startswith("triton"):
        raise ImportError(f"No module named {name!r}")
    return REAL_IMPORT(name)


class Broken:
    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        def launch(*_: Any, **__: Any) -> None:
            raise RuntimeError("ptxas died")

        return launch


def test_tensors_of_the_cpu_are_not_taken() -> None:
    assert not device.usable(torch.zeros(3, 4))
    assert device.decode(torch.tensor([0, 1]), torch.tensor([0]), torch.ones(1), torch.ones(1, 2)) is None


@pytest.mark.usefixtures("as_if_on_a_gpu")
def test_only_contiguous_numbers_in_float32_and_places_in_int64_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "_imported", lambda: True)
    good = torch.zeros(3, 4)
    assert device.usable(good, torch.zeros(3, dtype=torch.int64))
    assert not device.usable(good, good.double())
    assert not device.usable(torch.zeros(3, dtype=torch.int32))
    assert not device.usable(good.T)
    assert not device.usable(good.to("meta"))


@pytest.mark.usefixtures("as_if_on_a_gpu")
def test_they_can_be_switched_off(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(device, "_imported", lambda: True)
    monkeypatch.setenv("PERIMETRY_KERNELS", "off")
    assert not device.usable(torch.zeros(3))
    assert caplog.records == []


@pytest.mark.usefixtures("as_if_on_a_gpu")
def test_without_triton_torch_takes_their_place_with_one_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(importlib, "import_module", without_triton)
    with caplog.at_level(logging.WARNING):
        compare(make("batchtopk"), batch(50), mask(8))
    assert [r.getMessage() for r in caplog.records] == [
        "the training step runs on torch operations, which is slower: Triton cannot be imported "
        "(No module named 'triton.language')"
    ]


@pytest.mark.usefixtures("as_if_on_a_gpu")
def test_a_kernel_that_fails_is_reported_once_and_torch_takes_over(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(device, "_imported", lambda: not device._failure)
    monkeypatch.setattr(triton_kernels, "kernel", lambda _: Broken())
    with caplog.at_level(logging.WARNING):
        compare(make("topk"), batch(50), mask(8))
    assert [r.getMessage() for r in caplog.records] == [
        "the training step runs on torch operations, which is slower: kernel gather_rows failed (ptxas died)"
    ]


@given(counts=st.lists(st.integers(0, 40), min_size=1, max_size=30), span=st.sampled_from([1, 2, 5, 16, 256]))
def test_pieces_cover_the_long_latents_and_nothing_else(counts: list[int], span: int) -> None:
    entries = sum(counts)
    starts = torch.nn.functional.pad(torch.tensor(counts).cumsum(0), (1, 0))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(device, "SPAN", span)
        ends, first, last = device._pieces(starts, entries)
    for latent, count in enumerate(counts):
        mine = range(int(ends[latent]), int(ends[latent + 1]))
        covered = [entry for p in mine for entry in range(int(first[p]), int(last[p]))]
        wanted = range(int(starts[latent]), int(starts[latent + 1])) if count > span else range(0)
        assert covered == list(wanted)
        assert all(0 < int(last[p] - first[p]) <= span for p in mine)
    assert not (last - first)[int(ends[-1]) :].any()


@given(entries=st.integers(0, 60), width=st.integers(1, 20), seed=st.integers(0, 1000))
def test_sorted_sums_are_the_sums_by_latent(entries: int, width: int, seed: int) -> None:
    draw = generator(seed)
    columns, values = torch.randint(width, (entries,), generator=draw), torch.randn(entries, generator=draw)
    torch.testing.assert_close(
        sorted_sums(columns, values, width), torch.bincount(columns, values.double(), width).float()
    )
