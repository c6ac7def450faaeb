"""Memory that a step may write gradients to, where a caller has some that nobody reads until then.

Adam without a first moment (beta1 = 0) reads its average of gradients nowhere: that matrix can hold the gradient itself.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

__all__ = ["lent", "zeros"]

_NOTHING: Mapping[str, Tensor] = {}
_LENT: ContextVar[Mapping[str, Tensor]] = ContextVar("lent")


@contextmanager
def lent(buffers: Mapping[str, Tensor]) -> Iterator[None]:
    """Within it, gradients of the parameters of these names may be made in `buffers`, whose contents are lost."""
    token = _LENT.set(buffers)
    try:
        yield
    finally:
        _LENT.reset(token)


def zeros(name: str, like: Tensor) -> Tensor:
    """Zeros of the shape of `like`, the parameter of that name: in what was lent, or in new memory.

    >>> held = torch.ones(2)
    >>> with lent({"W_enc": held}):
    ...     zeros("W_enc", torch.empty(2)) is held, zeros("W_dec", torch.empty(2)) is held
    (True, False)
    """
    found = _LENT.get(_NOTHING).get(name)
    return torch.zeros_like(like) if found is None else found.zero_()
