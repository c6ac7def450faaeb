"""Temporal feature analysis: what the tokens before predict, and the k largest latents of what is new (arXiv 2511.01836).

Assumes that activations are slow context plus sparse novelty. Rows are consecutive tokens: every `context` of them are one
sequence, which starts at row 0. The predicted part is dense and is no code; the novel part is at most k latents, so that the
count is fixed. `decode` of the novel codes is not a reconstruction: `forward` gives the whole, `parts` both parts. The
prediction is scaled to fit the token that it predicts, so it is no forecast; compare with sequences whose tokens were
shuffled.
"""

from typing import Any, ClassVar, NamedTuple, final

import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import linear, pad, scaled_dot_product_attention
from typing_extensions import override

from perimetry.axes import Acts, Decoder, ModelBias
from perimetry.errors import ConfigError
from perimetry.runtime import generator
from perimetry.sae.base import AutogradSAE, Codes, CountMode, Defaults, Options, SAEOutput, SAEState, Start
from perimetry.sae.entries import codes_of, combine, decode_codes, losses_of, nothing, place, products_at, tensors_of
from perimetry.sae.steps.active import Active, stack_rows
from perimetry.sae.steps.base import Losses, Objective
from perimetry.sae.steps.products import chunk_rows
from perimetry.sae.steps.select import PreActivations, TopK, collect

__all__ = ["TemporalOptions", "TemporalParts", "TemporalRules", "TemporalSAE"]

Sequences = Float[Tensor, "sequence position d_model"]


class TemporalOptions(Options):
    """Length of the sequences and size of the attention."""

    context: int = Field(default=128, ge=1)
    """Tokens of one sequence; a batch holds whole ones only."""
    heads: int = Field(default=4, ge=1)
    """Attention heads; the width must be a multiple."""
    bottleneck: int = Field(default=64, ge=1)
    """Width over the length of a query."""


class TemporalRules(NamedTuple):
    """The numbers beside the weights."""

    k: int
    """Most novel latents of a token."""
    context: int
    """Tokens of one sequence."""
    heads: int
    """Attention heads."""
    slope: float
    """Lambda: what products with decoder rows are multiplied with; 1 / (4 d_model) before a scale is folded in."""


class TemporalParts(NamedTuple):
    """What tokens are made of, beside `b_dec`."""

    novel: Codes
    """The latents that the tokens before did not predict."""
    predicted: Acts
    """What they did predict, as a vector."""


@final
class TemporalSAE(AutogradSAE):
    """One layer of causal attention over tied codes predicts; TopK over the same dictionary codes what is left.

    A query attends to the codes of the tokens before it, and to an empty one at the start.
    """

    architecture: ClassVar[str] = "temporal"
    count_mode: ClassVar[CountMode] = "fixed"
    in_order: ClassVar[bool] = True
    defaults: ClassVar[Defaults] = Defaults(unit_decoder=False)
    options_type: ClassVar[type[Options]] = TemporalOptions

    b_dec: nn.Parameter
    query: nn.Linear
    key: nn.Linear
    value: nn.Linear
    mix: nn.Linear

    def __init__(self, W_dec: Decoder, b_dec: ModelBias, query_width: int, rules: TemporalRules) -> None:
        super().__init__()
        d_sae = W_dec.shape[0]
        if not 1 <= rules.k <= d_sae:
            raise ConfigError(f"k = {rules.k} for a dictionary of {d_sae} latents; give a k between 1 and {d_sae}")
        if d_sae % rules.heads or query_width % rules.heads:
            raise ConfigError(
                f"{rules.heads} heads for a width of {d_sae} and queries of {query_width}; give a number of heads that "
                "divides both"
            )
        self.W_dec, self.b_dec, self.rules = nn.Parameter(W_dec), nn.Parameter(b_dec), rules
        # A bias of the keys would move all scores of a query alike, and so nothing.
        self.query, self.key = _empty_linear(d_sae, query_width), _empty_linear(d_sae, query_width, bias=False)
        self.value, self.mix = _empty_linear(d_sae, d_sae), _empty_linear(d_sae, d_sae)

    def _heads(self, flat: Tensor) -> Tensor:
        sequences, positions, width = flat.shape
        return flat.view(sequences, positions, self.rules.heads, width // self.rules.heads).transpose(1, 2)

    def predict(self, centred: Sequences) -> Sequences:
        """The part of each token along the direction that the tokens before it give."""
        codes = torch.relu(self.rules.slope * (centred @ self.W_dec.T))
        before = pad(codes[:, :-1], (0, 0, 1, 0))
        found = scaled_dot_product_attention(
            self._heads(self.query(codes)),
            self._heads(self.key(before)),
            self._heads(self.value(before)),
            is_causal=True,
        )
        mixed = self.mix(found.transpose(1, 2).reshape(codes.shape))
        direction = torch.relu(mixed) @ self.W_dec
        size = direction.square().sum(2, keepdim=True)
        # A prediction of nothing has no direction to fit along.
        share = (direction * centred).sum(2, keepdim=True) / torch.where(size > 0, size, 1)
        return share * direction

    def _left(self, centred: Acts) -> Acts:
        """Flat tokens less what is predicted of them; a last sequence may be shorter."""
        context = self.rules.context
        whole = centred.shape[0] // context * context
        parts = [
            (part - self.predict(part)).flatten(0, 1)
            for part in (centred[:whole].unflatten(0, (-1, context)), centred[None, whole:])
            if part.numel()
        ]
        return torch.cat(parts) if parts else centred

    def _novel(self, left: Acts) -> Active:
        decoder = self.W_dec.detach()
        pre = PreActivations(left.detach(), self.rules.slope * decoder, decoder.new_zeros(decoder.shape[0]))
        with torch.no_grad():
            return collect(pre, [TopK(self.rules.k)])[0]

    @torch.no_grad()
    def parts(self, acts: Acts) -> TemporalParts:
        """Novel codes and predicted vectors of consecutive tokens. Errors: `WidthMismatch`."""
        self.check_width(acts)
        centred = acts.to(self.W_dec.dtype) - self.b_dec
        context = self.rules.context
        step = max(1, chunk_rows(self.d_sae) // context) * context
        found, predicted = [nothing(self.d_sae, self.W_dec.detach())], torch.empty_like(centred)
        for start in range(0, centred.shape[0], step):
            here = centred[start : start + step]
            left = self._left(here)
            found.append(self._novel(left))
            predicted[start : start + step] = here - left
        return TemporalParts(codes_of(stack_rows(found)), predicted)

    @override
    def encode(self, acts: Acts) -> Codes:
        return self.parts(acts).novel

    @override
    def decode(self, codes: Codes) -> Acts:
        """The novel part plus `b_dec`: not a reconstruction."""
        return decode_codes(codes, self.W_dec, self.b_dec)

    @override
    def forward(self, acts: Acts) -> SAEOutput:
        """Novel codes, and both parts plus `b_dec`."""
        novel, predicted = self.parts(acts)
        return SAEOutput(novel, self.decode(novel) + predicted)

    def _centred(self, rows: Acts) -> Acts:
        if rows.shape[0] % self.rules.context:
            raise ConfigError(
                f"a batch of {rows.shape[0]} tokens for sequences of {self.rules.context}; give a batch that is a multiple "
                "of the option context, from a source whose rows are consecutive tokens"
            )
        return self.inputs(rows) - self.b_dec

    @override
    def losses(self, rows: Acts, objective: Objective, dead: Bool[Tensor, " d_sae"]) -> Losses:
        left = self._left(self._centred(rows))
        active = self._novel(left)
        places = place(active)
        values = torch.relu(self.rules.slope * products_at(places, left, self.W_dec))
        residual = left - combine(places, values, self.W_dec)
        return losses_of(residual, active.columns[values.detach() > 0], self.d_sae)

    @override
    def dense_losses(self, rows: Acts, objective: Objective, dead: Bool[Tensor, " d_sae"]) -> Losses:
        parts = [self._dense_left(part) for part in self._centred(rows).split(self.rules.context)]
        left = torch.cat(parts)
        pre = self.rules.slope * left @ self.W_dec.T
        ranked = pre.detach().argsort(dim=1, descending=True, stable=True)[:, : self.rules.k]
        codes = torch.relu(pre) * torch.zeros_like(pre).scatter_(1, ranked, 1.0)
        return losses_of(left - codes @ self.W_dec, codes.detach().nonzero()[:, 1], self.d_sae)

    def _dense_left(self, centred: Acts) -> Acts:
        """One sequence, head by head and with the weights of the attention written out."""
        codes = torch.relu(self.rules.slope * centred @ self.W_dec.T)
        before = torch.cat([torch.zeros_like(codes[:1]), codes[:-1]])
        later = torch.ones(codes.shape[0], codes.shape[0], dtype=torch.bool, device=codes.device).triu(1)
        found: list[Tensor] = []
        for query, key, value in zip(
            linear(codes, self.query.weight, self.query.bias).chunk(self.rules.heads, 1),
            linear(before, self.key.weight).chunk(self.rules.heads, 1),
            linear(before, self.value.weight, self.value.bias).chunk(self.rules.heads, 1),
            strict=True,
        ):
            scores = (query @ key.T / query.shape[1] ** 0.5).masked_fill(later, -torch.inf)
            found.append(scores.softmax(1) @ value)
        direction = torch.relu(linear(torch.cat(found, 1), self.mix.weight, self.mix.bias)) @ self.W_dec
        size = (direction * direction).sum(1, keepdim=True)
        return centred - (direction * centred).sum(1, keepdim=True) / size.masked_fill(size == 0, 1) * direction

    @torch.no_grad()
    @override
    def fold_scale(self, scale: float) -> None:
        # Products of tokens and rows shrink by scale^2; the codes, and with them the attention, stay what they were.
        self.W_dec.div_(scale)
        self.b_dec.div_(scale)
        self.rules = self.rules._replace(slope=self.rules.slope * scale**2)

    @override
    def state(self) -> SAEState:
        return SAEState({n: t.detach() for n, t in self.state_dict().items()}, self.rules._asdict())

    @classmethod
    @override
    def restore(cls, state: SAEState) -> "TemporalSAE":
        shape = state.tensors["W_dec"].shape if "W_dec" in state.tensors else (1, 1)
        queries = state.tensors["query.bias"].shape[0] if "query.bias" in state.tensors else 1
        empty = cls(torch.zeros(shape), torch.zeros(shape[1]), queries, TemporalRules(1, 1, 1, 1.0))
        tensors = tensors_of(empty, state, *TemporalRules._fields)
        rules = TemporalRules(**{name: state.settings[name] for name in TemporalRules._fields})
        sae = cls(torch.zeros(shape), torch.zeros(shape[1]), queries, rules)
        sae.load_state_dict(tensors)
        return sae

    @classmethod
    @override
    def fresh(cls, start: Start) -> "TemporalSAE":
        options, d_model = start.options, start.centre.shape[0]
        assert isinstance(options, TemporalOptions), "the architecture's own options"
        source = generator(start.seed)
        rows = torch.randn(start.d_sae, d_model, generator=source)
        queries = max(1, start.d_sae // options.bottleneck // options.heads) * options.heads
        rules = TemporalRules(start.k, options.context, options.heads, 1 / (4 * d_model))
        sae = cls(rows, start.centre.float().clone(), queries, rules)
        sae.start_attention(source)
        return sae

    @torch.no_grad()
    def start_attention(self, source: torch.Generator) -> None:
        """Seeded rows, as long as keeps queries, keys, values and predictions of the size of codes; biases stay 0."""
        heads, d_sae = self.rules.heads, self.d_sae
        lengths = {
            self.query: self.query.out_features / heads,
            self.key: self.key.out_features / heads,
            self.value: d_sae / heads,
            self.mix: d_sae,
        }
        for layer, length in lengths.items():
            rows = torch.randn(layer.weight.shape, generator=source)
            layer.weight.copy_(rows / rows.norm(dim=1, keepdim=True) / length**0.5)

    @classmethod
    @override
    def tiny(cls) -> "TemporalSAE":
        """Sequences of one token, so that each token is coded alone."""
        source = generator(0)
        sae = cls(torch.randn(32, 8, generator=source), torch.linspace(-0.2, 0.2, 8), 4, TemporalRules(4, 1, 2, 1 / 32))
        sae.start_attention(source)
        with torch.no_grad():
            for bias in (sae.query.bias, sae.value.bias, sae.mix.bias):
                bias.copy_(0.1 * torch.randn(bias.shape, generator=source))
        return sae


def _empty_linear(wide: int, out: int, *, bias: bool = True) -> nn.Linear:
    """A layer that no generator is asked for."""
    layer: Any = nn.utils.skip_init(nn.Linear, wide, out, bias=bias)
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer
