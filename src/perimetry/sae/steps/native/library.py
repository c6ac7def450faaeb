"""Calls into the compiled library."""

import ctypes
from typing import Any

import torch
from torch import Tensor

from perimetry.sae.steps.native.build import compiled

__all__ = ["LONG", "call", "usable"]

LONG = ctypes.c_int64


def usable(*tensors: Tensor) -> bool:
    """Whether the kernels are there and can read these tensors."""
    good = all(t.device.type == "cpu" and t.dtype == torch.float32 and t.is_contiguous() for t in tensors)
    return good and compiled() is not None


def call(name: str, *arguments: Any) -> int:
    """Call a function that gives an int, tensors by address; gives that int, 0 where all went well."""
    library = compiled()
    assert library is not None, "usable() comes first"
    raw = [ctypes.c_void_p(a.data_ptr()) if isinstance(a, Tensor) else a for a in arguments]
    function = library[name]
    function.restype = ctypes.c_int
    code = function(*raw)
    if code == 1:
        raise MemoryError(f"{name}: no memory for its scratch space")
    return code
