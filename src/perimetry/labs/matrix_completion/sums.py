"""A sum of neighbours: sixteen numbers, a mark, and the sums of each two neighbours; one block of linear attention learns it all at once."""

import math
from collections.abc import Iterator
from typing import Final, Literal, NamedTuple, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from perimetry.axes import Residual, TokenIds
from perimetry.config import Config
from perimetry.labs.descent import descend
from perimetry.runtime import generator

__all__ = ["FLOOR", "LENGTH", "Look", "Sums", "SumsArm", "looked_at", "sequences", "train_sums"]

LENGTH: Final = 16
"""Numbers, and sums."""
MARK: Final = 17
VOCAB: Final = 18
MODULUS: Final = 17
FLOOR: Final = (LENGTH - 1) * math.log(LENGTH) / (2 * LENGTH)
"""Training loss of who foretells all that can be foretold, in nats: the numbers after the first are drawn evenly."""
Answer = Literal["sum", "random"]


class SumsArm(Config):
    """The model and its training."""

    answer: Answer = "sum"
    """What stands after the mark: the sums, or numbers that nothing determines (control)."""
    uniform: bool = False
    """Whether attention is even over all that came before, whatever the input (control)."""
    width: int = 128
    """Width of the residual stream."""
    batch: int = 128
    """Sequences of an update."""
    steps: int = 500
    """Updates."""
    lr: float = 3e-4
    """Learning rate of Adam, constant."""


def sums(numbers: Int[Tensor, "sequence number"], window: int = 2) -> Int[Tensor, "sequence number"]:
    """Each number with the `window` - 1 before it, as far as there are, modulo 17.

    >>> sums(torch.tensor([[3, 16, 2]])).tolist()
    [[3, 2, 1]]
    """
    found = numbers.clone()
    for back in range(1, window):
        found[:, back:] += numbers[:, :-back]
    return found % MODULUS


def sequences(count: int, draw: torch.Generator, answer: Answer = "sum") -> TokenIds:
    """Numbers from 1 to 16, the mark, then their sums."""
    numbers = torch.randint(1, LENGTH + 1, (count, LENGTH), generator=draw)
    return joined(numbers, sums(numbers) if answer == "sum" else _anything(count, draw))


def _anything(count: int, draw: torch.Generator) -> Tensor:
    return torch.randint(0, MODULUS, (count, LENGTH), generator=draw)


def joined(numbers: Int[Tensor, "sequence number"], answers: Int[Tensor, "sequence number"]) -> TokenIds:
    """With the mark between them."""
    return torch.cat([numbers, torch.full_like(numbers[:, :1], MARK), answers], 1)


class SumsOutput(NamedTuple):
    """What one pass gives."""

    logits: Float[Tensor, "batch seq vocab"]
    """Scores of the next token."""
    attention: Float[Tensor, "batch seq seq"]
    """Linear weights, signed; row attends to column."""
    states: Float[Tensor, "batch seq d_model"]
    """After the last norm."""


@final
class Sums(nn.Module):
    """One block: one head of linear attention, an MLP; learned positions, norms before each part and at the end."""

    def __init__(self, width: int, seed: int, *, uniform: bool = False) -> None:
        """All weights from N(0, .02); what writes into the stream is divided by sqrt(2)."""
        super().__init__()
        self.uniform = uniform
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.embed, self.place = nn.Embedding(VOCAB, width), nn.Embedding(2 * LENGTH + 1, width)
            self.norm_1, self.norm_2, self.norm = nn.LayerNorm(width), nn.LayerNorm(width), nn.LayerNorm(width)
            self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
            self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
            self.unembed = nn.Linear(width, VOCAB, bias=False)
            for name, parameter in self.named_parameters():
                if parameter.dim() == 2:
                    writes = name in ("out.weight", "down.weight")
                    nn.init.normal_(parameter, 0.0, 0.02 / 2 ** (0.5 * writes))
                elif name.endswith("bias"):
                    nn.init.zeros_(parameter)

    def read(self, ids: TokenIds) -> SumsOutput:
        """One pass."""
        seq, width = ids.shape[1], self.embed.embedding_dim
        x = self.embed(ids) + self.place(torch.arange(seq))
        q, k, v = self.qkv(self.norm_1(x)).split(width, -1)
        if self.uniform:
            even = torch.ones(seq, seq).tril()
            attention = (even / even.sum(1, keepdim=True)).expand(ids.shape[0], -1, -1)
        else:
            attention = (q @ k.transpose(1, 2) / width**0.5).tril()
        states = self._states(x, attention @ v)
        return SumsOutput(self.unembed(states), attention, states)

    def forward(self, ids: TokenIds) -> Float[Tensor, "batch seq vocab"]:
        """Scores of the next token."""
        return self.read(ids).logits

    @torch.no_grad()
    def write(self, numbers: Int[Tensor, "sequence number"]) -> Int[Tensor, "sequence number"]:
        """The likeliest answers, each after those before it; keys and values of what stands there already are kept."""
        ids = joined(numbers, numbers)[:, : LENGTH + 1]
        keys, values = ids.new_empty(len(ids), 0, self.embed.embedding_dim, dtype=torch.float32), None
        written: list[Tensor] = []
        for _ in range(LENGTH):
            begin = keys.shape[1]
            x = self.embed(ids) + self.place(torch.arange(begin, begin + ids.shape[1]))
            q, k, v = self.qkv(self.norm_1(x)).split(x.shape[-1], -1)
            keys = torch.cat([keys, k], 1)
            values = v if values is None else torch.cat([values, v], 1)
            row = q[:, -1:] @ keys.transpose(1, 2) / x.shape[-1] ** 0.5
            if self.uniform:
                row = torch.full_like(row, 1 / keys.shape[1])
            ids = self.unembed(self._states(x[:, -1:], row @ values)).argmax(-1)
            written.append(ids)
        return torch.cat(written, 1)

    def _states(self, x: Residual, mixed: Residual) -> Residual:
        """What attention found goes into the stream, and through the MLP."""
        x = x + self.out(mixed)
        return self.norm(x + self.down(functional.gelu(self.up(self.norm_2(x)))))


class Look(NamedTuple):
    """A model at one step of its training."""

    outputs: float
    """Mean loss of the answers, in nats."""
    total: float
    """Mean loss of all targets."""
    accuracy: float
    """Share of the answers that it writes as they are."""
    repetition: float
    """Share of neighbouring written answers that are equal."""
    collapse: float
    """Mean cosine of two states at the places of the second to the last answer."""
    progress: float
    """Share of the attention, without its sign, that goes to the numbers that an answer is made of."""


@torch.no_grad()
def looked_at(model: Sums, ids: TokenIds) -> Look:
    """Measure a model on sequences with their true answers."""
    read = model.read(ids[:, :-1])
    losses = functional.cross_entropy(read.logits.transpose(1, 2), ids[:, 1:], reduction="none")
    written = model.write(ids[:, :LENGTH])
    states = functional.normalize(read.states[:, LENGTH + 1 :], dim=-1)
    pairs = states @ states.transpose(1, 2)
    n = states.shape[1]
    away = (pairs.sum((1, 2)) - n) / (n * (n - 1))
    rows = read.attention[:, LENGTH:].abs()
    right = torch.zeros(LENGTH, rows.shape[2])
    right[torch.arange(LENGTH), torch.arange(LENGTH)] = 1
    right[torch.arange(1, LENGTH), torch.arange(LENGTH - 1)] = 1
    share = (rows * right).sum((1, 2)) / rows.sum((1, 2)).clamp_min(1e-12)
    return Look(
        outputs=float(losses[:, LENGTH:].mean()),
        total=float(losses.mean()),
        accuracy=float((written == ids[:, LENGTH + 1 :]).float().mean()),
        repetition=float((written[:, 1:] == written[:, :-1]).float().mean()),
        collapse=float(away.mean()),
        progress=float(share.mean()),
    )


def train_sums(arm: SumsArm, seed: int, steps: int, every: int) -> Iterator[tuple[int, Sums]]:
    """Train on sequences that are never the same, and hand out the model at step 0 and every so many steps."""
    model = Sums(arm.width, seed, uniform=arm.uniform)
    optimiser = torch.optim.Adam(model.parameters(), lr=arm.lr, fused=True)
    draw = generator(2_750_159 + seed)
    yield 0, model
    for step in range(1, steps + 1):
        ids = sequences(arm.batch, draw, arm.answer)
        loss = functional.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())
        descend(optimiser, loss)
        if step % every == 0 or step == steps:
            yield step, model
