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

    def split(self, x: Tensor, turn: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values by head."""
        batch, seq, width = x.shape
        both, v = self.qkv(self.norm_1(x)).split((2 * width, width), -1)
        if turn is not None:
            both = _turned(both, turn)
        q, k = both.view(batch, seq, 2, self.heads, -1).permute(2, 0, 3, 1, 4)
        return q, k, v.view(batch, seq, self.heads, -1).transpose(1, 2)

    def forward(self, x: Tensor, turn: Tensor | None, off: Collection[int] = (), sees: Tensor | None = None) -> Tensor:
        q, k, v = self.split(x, turn)
        mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=sees, is_causal=sees is None)
        if off:
            keep = torch.ones(self.heads, 1, 1)
            keep[list(off)] = 0
            mixed = mixed * keep
        x = x + self.out(mixed.transpose(1, 2).reshape(x.shape))
        return x + self.down(functional.gelu(self.up(self.norm_2(x))))


def _turned(both: Tensor, turn: Tensor) -> Tensor:
    """Rotary positions (Su et al. 2021), neighbours against each other, as complex numbers: one pass, which is what is fast."""
    return torch.view_as_real(torch.view_as_complex(both.unflatten(-1, (-1, 2))) * turn).flatten(-2)


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
        # Of queries and keys side by side, every head's.
        self.register_buffer(
            "turn", torch.polar(torch.ones_like(angle), angle).repeat(1, 2 * config.heads), persistent=False
        )
        self.turn: Tensor

    def forward(self, ids: TokenIds) -> Float[Tensor, "batch seq vocab"]:
        """Scores of the next token at each position."""
        return self.read(ids).logits

    def read(
        self,
        ids: TokenIds,
        taps: Collection[int] = (),
        replace: Replace | None = None,
        off: Collection[tuple[int, int]] = (),
        *,
        embed: Callable[[Tensor], Tensor] | None = None,
        places: Int[Tensor, "batch seq"] | None = None,
    ) -> NanoOutput:
        """One pass; `taps`: blocks whose output is wanted, after `replace` where that changes it; `off`: heads that write nothing, as
        block and head; `embed`: embeddings of the tokens -> what stands in their place; `places`: where each token stands (None: one
        after another). Errors: `ConfigError`."""
        x, turn = self._begin(ids, places, embed)
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

    @torch.no_grad()
    def after(self, ids: TokenIds, k: int) -> Float[Tensor, "batch candidate vocab"]:
        """Scores after a sequence and each of the first k tokens put behind it alone: one pass, in which candidates see not each other."""
        batch, seq = ids.shape
        places = torch.cat([torch.arange(seq), torch.full((k,), seq)])
        sees = torch.ones(seq + k, seq + k, dtype=torch.bool).tril()
        sees[seq:, seq:] = torch.eye(k, dtype=torch.bool)
        x, turn = self._begin(torch.cat([ids, torch.arange(k).expand(batch, k)], 1), places)
        for block in self.blocks:
            x = block(x, turn, sees=sees)
        return self.unembed(self.norm(x[:, seq:]))

    def _begin(
        self, ids: Tensor, places: Tensor | None = None, embed: Callable[[Tensor], Tensor] | None = None
    ) -> tuple[Tensor, Tensor | None]:
        seq = ids.shape[1] if places is None else int(places.max()) + 1
        if seq > self.config.context:
            raise ConfigError(f"{seq} tokens, and the model has positions for {self.config.context}; give fewer")
        where = torch.arange(seq, device=ids.device) if places is None else places
        x = self.embed(ids) if embed is None else embed(self.embed(ids))
        if self.place is not None:
            return x + self.place(where), None
        return x, self.turn[where]

    def loss(self, ids: Int[Tensor, "batch seq"]) -> Float[Tensor, ""]:
        """Mean next-token loss, in nats."""
        logits = self(ids[:, :-1])
        return functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
