"""Matrices of low rank with masked entries, and which of those can be known at all."""

from typing import Final, Literal, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

__all__ = ["LAWS", "Law", "Masked", "beside", "identifiable", "masked", "matrices"]

Entries = Float[Tensor, "matrix row column"]
Law = Literal["uniform", "gaussian", "laplace", "full"]
LAWS: Final = ("uniform", "gaussian", "laplace", "full")
WIDTHS: Final = {"gaussian": 0.5, "laplace": 0.25}
"""Standard deviation and scale of the factors that are not uniform."""


class Masked(NamedTuple):
    """Matrices of which some entries are shown."""

    values: Entries
    """The truth, rounded; what is masked, too."""
    observed: Bool[Tensor, "matrix row column"]
    """True where an entry is shown."""


def _factors(law: Law, shape: tuple[int, ...], draw: torch.Generator) -> Tensor:
    if law == "gaussian":
        return WIDTHS["gaussian"] * torch.randn(shape, generator=draw)
    uniform = torch.rand(shape, generator=draw)
    if law == "laplace":
        centred = uniform - 0.5
        return -WIDTHS["laplace"] * centred.sign() * torch.log1p(-2 * centred.abs().clamp_max(0.4999999))
    return 2 * uniform - 1


def matrices(
    count: int,
    rows: int,
    columns: int,
    rank: int,
    draw: torch.Generator,
    *,
    law: Law = "uniform",
    decimals: int = 2,
) -> Entries:
    """Products of two factors drawn entry by entry, from -1 to 1 where `law` is uniform, rounded; the variance of an entry then is rank / 9.

    `law` `full`: entries drawn alone, as many-sided as can be, with that variance.
    """
    if law == "full":
        found = torch.randn(count, rows, columns, generator=draw) * (rank / 9) ** 0.5
    else:
        left, right = _factors(law, (count, rows, rank), draw), _factors(law, (count, columns, rank), draw)
        found = left @ right.transpose(1, 2)
    return found.round(decimals=decimals)


def masked(values: Entries, chance: float, draw: torch.Generator) -> Masked:
    """Hide each entry with that chance."""
    return Masked(values, torch.rand(values.shape, generator=draw) >= chance)


def identifiable(observed: Bool[Tensor, "matrix row column"]) -> Bool[Tensor, "matrix row column"]:
    """Whether a matrix of rank 1 that agrees with what is shown can have one value only at each entry: its row and its column hang
    together by shown entries.

    >>> identifiable(torch.tensor([[[True, True], [True, False]]])).tolist(), identifiable(torch.eye(2).bool()[None]).tolist()
    ([[[True, True], [True, True]]], [[[True, False], [False, True]]])
    """
    count, rows, columns = observed.shape
    links = torch.zeros(count, rows + columns, rows + columns)
    links[:, :rows, rows:] = observed.float()
    reach = (links + links.transpose(1, 2) + torch.eye(rows + columns)).clamp_max(1)
    for _ in range((rows + columns - 1).bit_length()):
        reach = (reach @ reach).clamp_max(1)
    return reach[:, :rows, rows:] > 0


def beside(observed: Bool[Tensor, "matrix row column"]) -> Float[Tensor, "matrix row column"]:
    """How many entries are shown in the row and the column of each."""
    shown = observed.float()
    return shown.sum(2, keepdim=True) + shown.sum(1, keepdim=True) - shown
