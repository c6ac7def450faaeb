"""Crosscoders: one code for several sources, layers of one model or several models, each with a decoder of its own.

Assumes that a concept is one thing across the sources: it fires once, and writes a direction of its own in each of them, or
none where it does not occur (Lindsey et al., October 2024). A row holds the rows of the sources side by side; errors are
summed over them.

Which latents fire is another architecture's rule (`gate`), applied to p times u, the sum of the norms of a latent's decoder
rows, so that a concept in several sources counts for all of them. Whether `b_dec` is taken off the input first is the gate's
default; the functions are the same ones, but dictionaries learn faster from centred rows. Decoder norms are free, for they say in which sources a
concept occurs; and as p u, like the output, stays when p grows as much as the row shrinks, no constraint is needed. With it
the active count is free or fixed; the class says free, which is so for every gate but `topk`.

The gate `standard` (L1) makes false source-specific latents: where a concept is weak in one source, the penalty shrinks its
decoder there towards 0 (Minder et al., arXiv 2504.02922). `batchtopk`, which is the default, has no such pull. Jumps and counts of `jumprelu` reach its cuts alone, as in that architecture.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, final

import torch
from pydantic import Field, model_validator
from torch import Tensor
from typing_extensions import override

from perimetry.axes import Acts, LatentBias, Latents, PerToken, Rows
from perimetry.errors import ConfigError
from perimetry.sae.affine import AffineSAE, Weights, initial_weights
from perimetry.sae.base import CountMode, Defaults, Options, Reads, Start
from perimetry.sae.batchtopk import BatchTopKSAE
from perimetry.sae.jumprelu import JumpReLUSAE
from perimetry.sae.sources import Part, SourceNorms, Sources
from perimetry.sae.standard import StandardSAE
from perimetry.sae.steps.active import Active
from perimetry.sae.steps.base import Forward, Objective, Penalty, Terms
from perimetry.sae.steps.by_norm import ByNorm, CountByNorm, CutByNorm, SizeGate, divisor, per_norm
from perimetry.sae.steps.gates import gate_pass, much_fires
from perimetry.sae.steps.select import AboveCut, BatchTopK, Collector, PreActivations, TopK, Window
from perimetry.sae.threshold import fit_threshold, settle_threshold
from perimetry.sae.transcoder import GATES

__all__ = ["CrosscoderOptions", "CrosscoderSAE"]


class CrosscoderOptions(Options):
    """The sources of a crosscoder, and the rule that its latents follow."""

    gate: Literal["batchtopk", "jumprelu", "standard", "topk"] = "batchtopk"
    """Architecture whose rule says which latents fire."""
    widths: tuple[int, ...] | None = Field(default=None, min_length=2)
    """Width of each source, in the order of a row; None is `parts` equal ones."""
    parts: int | None = Field(default=None, ge=2)
    """Number of sources of equal width; None is 2, or as many as `widths` has."""

    @model_validator(mode="after")
    def _agree(self) -> "CrosscoderOptions":
        if self.widths is None:
            return self
        if min(self.widths) < 1 or self.parts not in (None, len(self.widths)):
            raise ValueError(
                f"widths {list(self.widths)} with parts {self.parts}; give positive widths, and leave parts out"
            )
        return self


@final
class CrosscoderSAE(AffineSAE):
    """Codes are those of the gate on p times u, over u; when training ends u is folded in, and codes are p u from then on."""

    architecture: ClassVar[str] = "crosscoder"
    count_mode: ClassVar[CountMode] = "free"
    defaults: ClassVar[Defaults] = GATES["batchtopk"].defaults._replace(unit_decoder=False)
    anneals_k: ClassVar[bool] = True
    options_type: ClassVar[type[Options]] = CrosscoderOptions
    reads: ClassVar[Reads] = "several"

    def __init__(
        self, gate: AffineSAE, widths: Sequence[int], *, scales: Sequence[float] | None = None, by_norm: bool = True
    ) -> None:
        super().__init__()
        # In a tuple, so that its parameters are registered here alone.
        self._gate = (gate,)
        self.W_enc, self.W_dec, self.b_enc, self.b_dec = gate.W_enc, gate.W_dec, gate.b_enc, gate.b_dec
        self.subtract_b_dec = gate.subtract_b_dec
        if isinstance(gate, JumpReLUSAE):
            self.threshold = gate.threshold
        self.sources, self.by_norm = Sources.of(widths, scales), by_norm
        if sum(self.sources.widths) != self.d_model or len(self.sources.scales) != len(self.sources.widths):
            raise ConfigError(
                f"sources of widths {list(self.sources.widths)} with scales {list(self.sources.scales)} for a dictionary of "
                f"width {self.d_model}; give widths that add up to it, and a scale for each"
            )

    @property
    def gate(self) -> AffineSAE:
        """The rule by which latents fire, on the same parameters; it is asked about p u."""
        return self._gate[0]

    @classmethod
    @override
    def defaults_for(cls, options: Options) -> Defaults:
        assert isinstance(options, CrosscoderOptions), "checked by the recipe"
        gate = GATES[options.gate]
        return gate.defaults_for(gate.options_type())._replace(unit_decoder=False)

    @classmethod
    @override
    def row_parts(cls, row_width: int, options: Options) -> tuple[int, ...]:
        assert isinstance(options, CrosscoderOptions), "checked by the recipe"
        if options.widths is not None:
            if sum(options.widths) != row_width:
                raise ConfigError(
                    f"a row of {row_width} numbers for sources of widths {list(options.widths)}, {sum(options.widths)} together; "
                    "give the widths of the sources, or a source whose rows hold them side by side"
                )
            return options.widths
        parts = 2 if options.parts is None else options.parts
        if row_width % parts or row_width < parts:
            raise ConfigError(
                f"a row of {row_width} numbers does not divide into {parts} sources of equal width; give parts, or widths"
            )
        return (row_width // parts,) * parts

    def split(self, rows: Rows) -> tuple[Part, ...]:
        """The sources of rows, or of reconstructions, one by one. Errors: `WidthMismatch`."""
        self.check_width(rows)
        return self.sources.split(rows)

    @torch.no_grad()
    def source_norms(self) -> SourceNorms:
        """How strongly each latent writes into each source: which latents are shared, which belong to one."""
        return self.sources.shares(self.W_dec.detach())

    def _sizes(self) -> LatentBias:
        """u of each latent."""
        return self.sources.norms(self.W_dec.detach()).sum(1)

    @override
    def fire(self, pre: Latents) -> tuple[Tensor, Tensor]:
        if not self.by_norm:
            return self.gate.fire(pre)
        sizes = self._sizes()
        values, columns = self.gate.fire(pre * sizes)
        values, order = (values / divisor(sizes)[columns]).sort(dim=1, descending=True, stable=True)
        return values, columns.gather(1, order)

    @torch.no_grad()
    @override
    def count_above(self, acts: Acts, cut: Tensor) -> PerToken:
        """Active count of each token if the cut on p u were `cut`."""
        return super().count_above(acts, per_norm(cut.clamp(min=0), self._sizes()) if self.by_norm else cut)

    @override
    def collectors(self, pre: PreActivations, objective: Objective) -> list[Collector]:
        gate, sizes, plain = self.gate, self._sizes(), objective.smooth is None
        if isinstance(gate, BatchTopKSAE):
            inner = BatchTopK(objective.k or gate.k, pre.acts.shape[0], pre.sample() * sizes)
            return [CutByNorm(inner, sizes)]
        if isinstance(gate, JumpReLUSAE):
            theta = gate.threshold.detach()
            if plain and much_fires(pre, per_norm(theta - objective.bandwidth / 2, sizes)):
                return []
            return [CutByNorm(AboveCut(theta), sizes), CutByNorm(Window(theta, objective.bandwidth), sizes)]
        if isinstance(gate, StandardSAE):
            cut = sizes.new_zeros(())
            return [] if plain and much_fires(pre, per_norm(cut, sizes)) else [CutByNorm(AboveCut(cut), sizes)]
        return [ByNorm(TopK(objective.k or int(gate.settings()["k"])), sizes)]

    @override
    def terms(self, found: list[Active], pre: PreActivations, target: Acts, objective: Objective) -> Terms | None:
        if found:
            return None
        sizes, tokens = self._sizes(), target.shape[0]
        counts = self._count_gate(sizes, objective, tokens)
        held = self._size_gate(sizes, objective, tokens) if counts is None else counts
        return gate_pass(pre, target, self.W_dec.detach(), self.b_dec.detach(), held)

    @override
    def own_terms(self) -> bool:
        # The penalty of this gate reaches the decoder, which a fused update does not know.
        return isinstance(self.gate, StandardSAE)

    def _count_gate(self, sizes: LatentBias, objective: Objective, tokens: int) -> CountByNorm | None:
        gate = self.gate
        if not isinstance(gate, JumpReLUSAE):
            return None
        return CountByNorm(gate.threshold.detach(), sizes, objective, gate.mode or objective.l0_loss, tokens)

    def _size_gate(self, sizes: LatentBias, objective: Objective, tokens: int) -> SizeGate:
        return SizeGate(sizes, self.sources.directions(self.W_dec.detach()), objective.sparsity, tokens)

    @override
    def penalty(self, forward: Forward, objective: Objective) -> Penalty:
        active, sizes = forward.active, self._sizes()
        if isinstance(self.gate, StandardSAE):
            return self._size_gate(sizes, objective, active.tokens).of_entries(active)
        counts = self._count_gate(sizes, objective, active.tokens)
        if counts is None:
            return Penalty(0.0, None, {})
        assert forward.extra is not None, "the second collector is the window"
        return counts.of_entries(forward, forward.extra, self.W_dec.detach())

    @override
    def dense_codes(self, pre: Latents, objective: Objective) -> Latents:
        sizes = self.sources.norms(self.W_dec).sum(1)
        return self.gate.dense_codes(pre * sizes, objective) / divisor(sizes)

    @override
    def dense_penalty(self, pre: Latents, codes: Latents, objective: Objective) -> Tensor:
        sizes = self.sources.norms(self.W_dec).sum(1)
        if isinstance(self.gate, StandardSAE):
            return objective.sparsity * (codes * sizes).sum(1).mean()
        return self.gate.dense_penalty(pre * sizes, codes, objective)

    @torch.no_grad()
    def fold_norms(self) -> None:
        """Divide each latent's decoder rows by u and multiply its codes with it; reconstructions stay."""
        sizes = self._sizes()
        self.W_enc.mul_(sizes[:, None])
        self.b_enc.mul_(sizes)
        self.W_dec.div_(torch.where(sizes > 0, sizes, 1.0)[:, None])
        self.by_norm = False

    @override
    def settle(self, acts: Acts, k: int) -> dict[str, Any]:
        if self.by_norm:
            self.fold_norms()
        gate = self.gate
        if not isinstance(gate, BatchTopKSAE):
            return {}
        gate.threshold = fit_threshold(self, acts, k)
        return settle_threshold(gate.threshold)

    @torch.no_grad()
    @override
    def fold_scales(self, scales: tuple[float, ...]) -> None:
        columns = self.sources.columns(scales).to(self.W_enc)
        self.W_enc.mul_(columns)
        self.W_dec.div_(columns)
        self.b_dec.div_(columns)
        self.sources = self.sources.scaled(scales)

    @override
    def after_update(self) -> None:
        self.gate.after_update()

    @override
    def fold_scale(self, scale: float) -> None:
        self.fold_scales((scale,) * len(self.sources.widths))

    @override
    def extras(self) -> dict[str, Tensor]:
        return self.gate.extras()

    @override
    def settings(self) -> dict[str, Any]:
        sources = {name: list(value) for name, value in self.sources._asdict().items()}
        return {"gate": self.gate.architecture, **sources, "by_norm": self.by_norm, **self.gate.settings()}

    @classmethod
    @override
    def rebuild(
        cls,
        weights: Weights,
        *,
        extras: Mapping[str, Tensor],
        settings: Mapping[str, Any],
        subtract_b_dec: bool | None = None,
    ) -> "CrosscoderSAE":
        name, widths = settings.get("gate"), settings.get("widths")
        if name not in GATES or not widths:
            wanted = f"one of {', '.join(GATES)} and the width of each source"
            raise ConfigError(f"a crosscoder with gate {name!r} and widths {widths!r}; wanted {wanted}")
        own = ("by_norm", "gate", "parts", "scales", "widths")
        inner = {key: value for key, value in settings.items() if key not in own}
        gate = GATES[name].rebuild(weights, extras=extras, settings=inner, subtract_b_dec=subtract_b_dec)
        return cls(gate, widths, scales=settings.get("scales"), by_norm=bool(settings.get("by_norm", True)))

    @classmethod
    @override
    def fresh(cls, start: Start) -> "CrosscoderSAE":
        options = start.options
        assert isinstance(options, CrosscoderOptions), "checked by the recipe"
        widths = cls.row_parts(start.centre.shape[0], options)
        drawn = initial_weights(start.centre.shape[0], start.d_sae, start.seed, start.centre)
        # Every source starts with the same share, and the whole row with norm 1.
        parts = [part / part.norm(dim=1, keepdim=True) for part in drawn.W_dec.split(list(widths), dim=1)]
        rows = torch.cat(parts, dim=1) / len(widths) ** 0.5
        settings = {"gate": options.gate, "widths": widths, "k": start.k}
        weights = drawn._replace(W_enc=rows.clone(), W_dec=rows)
        return cls.rebuild(weights, extras={}, settings=settings, subtract_b_dec=start.subtract_b_dec)

    @classmethod
    @override
    def tiny(cls) -> "CrosscoderSAE":
        one, two = (initial_weights(8, 32, seed) for seed in (0, 1))
        weights = Weights(one.W_dec + 0.2 * two.W_dec, 1.5 * one.W_dec, 0.05 * two.W_dec[:, 0], 0.1 * two.W_dec[0])
        settings = {"gate": "jumprelu", "widths": (3, 5), "scales": (1.0, 2.0)}
        return cls.rebuild(weights, extras={"threshold": torch.linspace(0, 0.4, 32)}, settings=settings)
