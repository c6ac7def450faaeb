"""A small causal transformer for worlds whose tokens are states: layer norm before each part, learned or rotary positions.

The output of a block can be read or replaced, as at the tap of any model: block i is what stands after its attention and its MLP have
been added to the residual stream.
"""

from collections.abc import Callable, Collection
from typing import Literal, NamedTuple, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from perimetry.axes import Residual, TokenIds
from perimetry.config import Config
from perimetry.errors import ConfigError

__all__ = ["Nano", "NanoConfig", "NanoOutput"]

Replace = Callable[[int, Tensor], Tensor]
"""Block and its output -> what stands in its place."""


class NanoConfig(Config):
    """The shape of the transformer."""

    vocab: int
    """States."""
    context: int
    """Most tokens of a sequence."""
    width: int = 32
    """Width of the residual stream."""
    layers: int = 2
    """Blocks."""
    heads: int = 2
    """Attention heads of a block."""
    mlp: int = 4
    """Width of the MLP, in widths of the stream."""
    positions: Literal["rotary", "learned"] = "rotary"
    """How a token knows where it stands."""
    tied: bool = False
    """Whether the unembedding is the embedding."""
    deviation: float = 0.02
    """Standard deviation of the first weights; those that write into the stream are divided by sqrt(2 layers) (GPT-2)."""


class NanoOutput(NamedTuple):
    """What one pass gives."""

    logits: Float[Tensor, "batch seq vocab"]
    """Scores of the next token."""
    residuals: dict[int, Residual]
    """Output of each block that was asked for."""


class _Block(nn.Module):
    def __init__(self, config: NanoConfig) -> None:
        super().__init__()
        width = config.width
        self.heads, self.rotary = config.heads, config.positions == "rotary"
        self.norm_1, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, config.mlp * width), nn.Linear(config.mlp * width, width)

    def split(self, x: Tensor, turn: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values by head."""
        batch, seq, _ = x.shape
        q, k, v = self.qkv(self.norm_1(x)).view(batch, seq, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        if turn is not None:
            q, k = _turned(q, turn), _turned(k, turn)
        return q, k, v

    def forward(self, x: Tensor, turn: tuple[Tensor, Tensor] | None, off: Collection[int] = ()) -> Tensor:
        q, k, v = self.split(x, turn)
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        if off:
            keep = torch.ones(self.heads, 1, 1)
            keep[list(off)] = 0
            mixed = mixed * keep
        x = x + self.out(mixed.transpose(1, 2).reshape(x.shape))
        return x + self.down(functional.gelu(self.up(self.norm_2(x))))


def _turned(x: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
    """Rotary positions (Su et al. 2021), halves against each other."""
    one, two = x.chunk(2, -1)
    cos, sin = turn
    return torch.cat([one * cos - two * sin, one * sin + two * cos], -1)


@final
class Nano(nn.Module):
    """The transformer."""

    def __init__(self, config: NanoConfig, seed: int) -> None:
        """First weights by the seed. Errors: `ConfigError` for heads that do not divide the width into even parts."""
        super().__init__()
        if config.width % config.heads or config.width // config.heads % 2:
            raise ConfigError(
                f"{config.heads} heads on a width of {config.width}; the width of a head must be a whole, even number"
            )
        self.config = config
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.embed = nn.Embedding(config.vocab, config.width)
            self.place = nn.Embedding(config.context, config.width) if config.positions == "learned" else None
            self.blocks = nn.ModuleList(_Block(config) for _ in range(config.layers))
            self.norm = nn.LayerNorm(config.width)
            self.unembed = nn.Linear(config.width, config.vocab, bias=False)
            for name, parameter in self.named_parameters():
                if parameter.dim() == 2:
                    writes = name.endswith(("out.weight", "down.weight"))
                    nn.init.normal_(parameter, 0.0, config.deviation / (2 * config.layers) ** (0.5 * writes))
                elif name.endswith("bias"):
                    nn.init.zeros_(parameter)
        if config.tied:
            self.unembed.weight = self.embed.weight
        half = config.width // config.heads // 2
        angle = torch.arange(config.context)[:, None] * 10_000.0 ** -(torch.arange(half) / half)
        self.register_buffer("cos", angle.cos(), persistent=False)
        self.register_buffer("sin", angle.sin(), persistent=False)
        self.cos: Tensor
        self.sin: Tensor

    def forward(self, ids: TokenIds) -> Float[Tensor, "batch seq vocab"]:
        """Scores of the next token at each position."""
        return self.read(ids).logits

    def read(
        self,
        ids: TokenIds,
        taps: Collection[int] = (),
        replace: Replace | None = None,
        off: Collection[tuple[int, int]] = (),
    ) -> NanoOutput:
        """One pass; `taps`: blocks whose output is wanted, after `replace` where that changes it; `off`: heads that write nothing, as
        block and head. Errors: `ConfigError`."""
        x, turn = self._begin(ids)
        residuals: dict[int, Tensor] = {}
        for number, block in enumerate(self.blocks):
            x = block(x, turn, [head for b, head in off if b == number])
            if replace is not None:
                x = replace(number, x)
            if number in taps:
                residuals[number] = x
        return NanoOutput(self.unembed(self.norm(x)), residuals)

    @torch.no_grad()
    def patterns(self, ids: TokenIds) -> list[Float[Tensor, "batch head seq seq"]]:
        """How much each position attends to each, block by block."""
        x, turn = self._begin(ids)
        later = torch.ones(ids.shape[1], ids.shape[1], dtype=torch.bool).triu(1)
        found: list[Tensor] = []
        for block in self.blocks:
            assert isinstance(block, _Block)
            q, k, _ = block.split(x, turn)
            found.append((q @ k.transpose(2, 3) / q.shape[-1] ** 0.5).masked_fill(later, -torch.inf).softmax(-1))
            x = block(x, turn)
        return found

    def _begin(self, ids: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor] | None]:
        seq = ids.shape[1]
        if seq > self.config.context:
            raise ConfigError(f"{seq} tokens, and the model has positions for {self.config.context}; give fewer")
        x = self.embed(ids)
        turn = None
        if self.place is not None:
            x = x + self.place(torch.arange(seq, device=ids.device))
        else:
            turn = self.cos[:seq], self.sin[:seq]
        return x, turn

    def loss(self, ids: Int[Tensor, "batch seq"]) -> Float[Tensor, ""]:
        """Mean next-token loss, in nats."""
        logits = self(ids[:, :-1])
        return functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
