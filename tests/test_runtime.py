"""Device, dtype, threads, generators."""

import json
from collections.abc import Iterator

import pytest
import torch
from pydantic import ValidationError

from perimetry import runtime
from perimetry.errors import ConfigError
from perimetry.runtime import RuntimeConfig, dtype_name, fingerprint, generator, native_bf16, start


@pytest.fixture(autouse=True)
def threads() -> Iterator[int]:
    before = torch.get_num_threads()
    yield before
    torch.set_num_threads(before)


def test_what_is_asked_for_is_chosen() -> None:
    found = start(RuntimeConfig(device="cpu", dtype="float32", threads=2))
    assert (found.device.type, found.dtype) == ("cpu", torch.float32)
    assert torch.get_num_threads() == 2
    assert start(RuntimeConfig(device="cpu", dtype="bfloat16")).dtype == torch.bfloat16
    assert torch.get_num_threads() == 2, "0 leaves the threads as they are"


@pytest.mark.parametrize("native", [True, False])
def test_auto_takes_bfloat16_where_it_is_native(monkeypatch: pytest.MonkeyPatch, native: bool) -> None:
    monkeypatch.setattr(runtime, "native_bf16", lambda: native)
    assert start().dtype == (torch.bfloat16 if native else torch.float32)


@pytest.mark.parametrize(
    ("flags", "native"), [("fpu avx512f", False), ("fpu avx512_bf16", True), ("fpu amx_bf16 amx_tile", True)]
)
def test_native_bfloat16_is_read_off_the_processor(monkeypatch: pytest.MonkeyPatch, flags: str, native: bool) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(runtime.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(runtime.Path, "is_file", lambda self: True)
    monkeypatch.setattr(runtime.Path, "read_text", lambda self, errors: f"flags : {flags}\n")
    assert native_bf16() is native


def test_devices_that_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="device 'gpu' is no device; wanted auto, cpu, cuda or cuda:N"):
        start(RuntimeConfig(device="gpu"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="there is no CUDA device here; use --device cpu"):
        start(RuntimeConfig(device="cuda"))


def test_threads_are_not_negative() -> None:
    with pytest.raises(ValidationError, match="greater than or equal to 0"):
        RuntimeConfig(threads=-1)


def test_generators_depend_on_their_seed_alone() -> None:
    torch.manual_seed(0)
    one = torch.rand(3, generator=generator(7))
    torch.manual_seed(1)
    assert torch.equal(one, torch.rand(3, generator=generator(7)))
    assert not torch.equal(one, torch.rand(3, generator=generator(8)))


def test_the_fingerprint_is_plain_json() -> None:
    found = json.loads(json.dumps(fingerprint(), allow_nan=False))
    assert found["torch"] == torch.__version__
    assert found["threads"] == torch.get_num_threads()
    assert {"perimetry", "python", "processor", "cores", "transformers", "cuda"} <= found.keys()


def test_names_of_dtypes() -> None:
    assert [dtype_name(d) for d in (torch.float32, torch.bfloat16)] == ["float32", "bfloat16"]
