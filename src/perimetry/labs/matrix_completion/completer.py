"""Transformers that complete matrices: what is shown goes in entry by entry, a value for every entry comes out."""

from collections.abc import Iterator
from typing import Literal, NamedTuple, final

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from perimetry.config import Config
from perimetry.labs.descent import descend
from perimetry.labs.matrix_completion.world import Law, Masked, masked, matrices
from perimetry.runtime import generator

__all__ = ["Completer", "CompletionArm", "Fit", "copy_error", "looked_at", "oddness", "train_completer"]

Entries = Float[Tensor, "matrix row column"]
CENTS, FAR = 100, 10
"""A value is a token of a hundredth; the least is -10."""


class CompletionArm(Config):
    """The matrices, the model and its training."""

    rows: int = 5
    """Rows."""
    columns: int = 5
    """Columns."""
    rank: int = 1
    """Rank."""
    hidden: float = 0.3
    """Chance that an entry is masked."""
    law: Law = "uniform"
    """What the factors are drawn from; `full`: of no rank (control)."""
    inputs: Literal["linear", "tokens"] = "linear"
    """Whether a value goes in as a number, or as one of 2,002 tokens."""
    layers: int = 3
    """Blocks."""
    width: int = 128
    """Width of the residual stream."""
    heads: int = 4
    """Attention heads of a block."""
    batch: int = 32
    """Matrices of an update."""
    steps: int = 1500
    """Updates."""
    lr: float = 5e-4
    """Learning rate of Adam, constant."""
    device: str = "cpu"
    """Where it is trained: `cpu`, `cuda` ..."""

    def draw(self, count: int, source: torch.Generator) -> Masked:
        """Matrices as the model is trained on."""
        values = matrices(count, self.rows, self.columns, self.rank, source, law=self.law)
        return masked(values, self.hidden, source)


@final
class Completer(nn.Module):
    """An encoder, norms before each part and at the end; every entry attends to every other."""

    def __init__(self, arm: CompletionArm, seed: int) -> None:
        """First weights by the seed."""
        super().__init__()
        self.inputs = arm.inputs
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            width = arm.width
            self.value = nn.Linear(2, width)
            self.token = nn.Embedding(2 * FAR * CENTS + 2, width) if arm.inputs == "tokens" else None
            self.row = nn.Parameter(0.02 * torch.randn(arm.rows, 1, width))
            self.column = nn.Parameter(0.02 * torch.randn(1, arm.columns, width))
            layer = nn.TransformerEncoderLayer(
                width, arm.heads, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
            )
            self.blocks = nn.TransformerEncoder(layer, arm.layers, enable_nested_tensor=False)
            for block in self.blocks.layers:
                # The copies that the encoder makes of one block begin alike; these begin apart.
                for parameter in block.parameters():
                    if parameter.dim() == 2:
                        nn.init.xavier_uniform_(parameter)
            self.norm, self.out = nn.LayerNorm(width), nn.Linear(width, 1)

    def forward(self, values: Entries, observed: Bool[Tensor, "matrix row column"]) -> Entries:
        """A value for every entry; what is not observed is not looked at."""
        return self.read(values, observed)[0]

    def read(
        self, values: Entries, observed: Bool[Tensor, "matrix row column"], layers: int | None = None
    ) -> tuple[Entries, Float[Tensor, "matrix entry d_model"]]:
        """The same, and the residual stream after so many blocks (the last of them if None)."""
        if self.token is None:
            shown = observed.to(values.dtype)
            x = self.value(torch.stack([values * shown, shown], -1))
        else:
            cents = 1 + ((values + FAR) * CENTS).round().long().clamp(0, 2 * FAR * CENTS)
            x = self.token(torch.where(observed, cents, 0))
        x = (x + self.row + self.column).flatten(1, 2)
        kept = x
        for number, block in enumerate(self.blocks.layers, 1):
            x = block(x)
            if layers is None or number <= layers:
                kept = x
        return self.out(self.norm(x))[..., 0].view(values.shape), kept


class Fit(NamedTuple):
    """A model at one step of its training."""

    shown: float
    """Mean squared error of the entries that are shown."""
    hidden: float
    """Of those that are masked."""
    size: float
    """Mean size of what is said of those."""


@torch.no_grad()
def looked_at(model: Completer, given: Masked) -> Fit:
    """Measure a model."""
    found = _completed(model, given.values, given.observed)
    squared = (found - given.values).square()
    hidden = ~given.observed
    return Fit(float(squared[given.observed].mean()), float(squared[hidden].mean()), float(found[hidden].abs().mean()))


@torch.no_grad()
def copy_error(model: Completer, given: Masked, constant: float) -> float:
    """Masked entries shown as a constant: mean distance of what is said there from it. Near 0: the model repeats what it sees."""
    values = torch.where(given.observed, given.values, constant)
    found = _completed(model, values, torch.ones_like(given.observed))
    return float((found - constant).abs()[~given.observed].mean())


@torch.no_grad()
def oddness(model: Completer, given: Masked) -> float:
    """Mean size of f(-X) + f(X): 0 for a model to which signs mean nothing."""
    both = [_completed(model, sign * given.values, given.observed) for sign in (1, -1)]
    return float((both[0] + both[1]).abs().mean())


def _completed(model: Completer, values: Entries, observed: Bool[Tensor, "matrix row column"]) -> Entries:
    device = model.out.weight.device
    return model(values.to(device), observed.to(device)).float().cpu()


def train_completer(arm: CompletionArm, seed: int, steps: int, every: int) -> Iterator[tuple[int, Completer]]:
    """Train on matrices that are never the same, all entries being asked for; hand out the model at step 0 and every so many steps."""
    model = Completer(arm, seed).to(arm.device)
    optimiser = torch.optim.Adam(model.parameters(), lr=arm.lr, fused=True)
    draw = generator(15_487_399 + seed)
    yield 0, model.eval()
    for step in range(1, steps + 1):
        given = arm.draw(arm.batch, draw)
        values = given.values.to(arm.device)
        loss = (model(values, given.observed.to(arm.device)) - values).square().mean()
        descend(optimiser, loss)
        if step % every == 0 or step == steps:
            yield step, model.eval()
