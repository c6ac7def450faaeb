"""Transcoders: read one place of a model and write another, through sparse concepts, with a linear skip if asked for.

Assumes that the map between the two places is sparse in concepts. A row of the source is the input with the target beside it.
Which concepts fire is another architecture's rule (`gate`), and with it whether the active count is free or fixed; the class
says free, which is so for every gate but `topk`. Decoder rows start at 0 and have any norm; `b_dec` is added to the output and
never taken off the input.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, final

import torch
from pydantic import Field
from torch import Tensor, nn
from typing_extensions import override

from perimetry.axes import Acts, Latents, ModelBias, Read, Rows, Written
from perimetry.errors import ConfigError, WidthMismatch
from perimetry.sae.affine import AffineSAE, Weights, initial_weights
from perimetry.sae.base import Codes, CountMode, Defaults, Options, Reads, SAEOutput, SAEState, Start
from perimetry.sae.batchtopk import BatchTopKSAE
from perimetry.sae.jumprelu import JumpReLUSAE
from perimetry.sae.standard import StandardSAE
from perimetry.sae.steps.active import Active
from perimetry.sae.steps.base import Forward, Objective, Penalty, Terms
from perimetry.sae.steps.select import Collector, PreActivations
from perimetry.sae.threshold import fit_threshold, settle_threshold
from perimetry.sae.topk import TopKSAE

__all__ = ["GATES", "TranscoderOptions", "TranscoderSAE"]

Gate = Literal["batchtopk", "jumprelu", "standard", "topk"]
GATES: dict[str, type[AffineSAE]] = {
    "batchtopk": BatchTopKSAE,
    "jumprelu": JumpReLUSAE,
    "standard": StandardSAE,
    "topk": TopKSAE,
}
"""Rules by which the latents of a transcoder fire."""


class TranscoderOptions(Options):
    """How a transcoder reads a row, and which rule its latents follow."""

    gate: Gate = "topk"
    """Architecture whose rule says which latents fire."""
    d_in: int | None = Field(default=None, ge=1)
    """Width of the input, the first part of a row; None is half of it."""
    skip: bool = False
    """Add a linear map of the input, which starts at 0."""


@final
class TranscoderSAE(AffineSAE):
    """Codes are those of the gate on the input; the output is codes times `W_dec`, plus `b_dec`, plus the skip."""

    architecture: ClassVar[str] = "transcoder"
    count_mode: ClassVar[CountMode] = "free"
    defaults: ClassVar[Defaults] = GATES["topk"].defaults._replace(unit_decoder=False)
    anneals_k: ClassVar[bool] = True
    options_type: ClassVar[type[Options]] = TranscoderOptions
    reads: ClassVar[Reads] = "pair"

    def __init__(self, gate: AffineSAE, *, W_skip: Tensor | None = None) -> None:
        super().__init__()
        # In a tuple, so that its parameters are registered here alone.
        self._gate = (gate,)
        self.W_enc, self.W_dec, self.b_enc, self.b_dec = gate.W_enc, gate.W_dec, gate.b_enc, gate.b_dec
        self.subtract_b_dec = False
        if isinstance(gate, JumpReLUSAE):
            self.threshold = gate.threshold
        wanted = (self.W_dec.shape[1], self.W_enc.shape[1])
        if W_skip is not None and tuple(W_skip.shape) != wanted:
            raise WidthMismatch(
                f"W_skip has shape {tuple(W_skip.shape)}, {wanted} is wanted (output by input); give tensors of one transcoder"
            )
        self.W_skip = None if W_skip is None else nn.Parameter(W_skip)

    @property
    def gate(self) -> AffineSAE:
        """The rule by which latents fire, on the same parameters."""
        return self._gate[0]

    @property
    @override
    def d_model(self) -> int:
        return self.W_enc.shape[1]

    @property
    @override
    def row_width(self) -> int:
        return self.W_enc.shape[1] + self.W_dec.shape[1]

    @classmethod
    @override
    def defaults_for(cls, options: Options) -> Defaults:
        assert isinstance(options, TranscoderOptions), "checked by the recipe"
        gate = GATES[options.gate]
        return gate.defaults_for(gate.options_type())._replace(unit_decoder=False)

    @classmethod
    @override
    def row_parts(cls, row_width: int, options: Options) -> tuple[int, ...]:
        assert isinstance(options, TranscoderOptions), "checked by the recipe"
        d_in = options.d_in if options.d_in is not None else row_width // 2
        if not 1 <= d_in < row_width or (options.d_in is None and row_width % 2):
            raise ConfigError(
                f"a row of {row_width} numbers cannot hold an input of {d_in} and a target; give d_in, and a source whose rows "
                "are the input with the target beside it"
            )
        return d_in, row_width - d_in

    @override
    def inputs(self, rows: Rows) -> Read:
        self._check_rows(rows)
        return rows[:, : self.d_model].contiguous()

    @override
    def targets(self, rows: Rows) -> Written:
        self._check_rows(rows)
        return rows[:, self.d_model :].contiguous()

    def _check_rows(self, rows: Rows) -> None:
        if rows.shape[1] != self.row_width:
            raise WidthMismatch(
                f"rows of {rows.shape[1]} numbers for a transcoder from {self.d_model} to {self.W_dec.shape[1]}; give rows of input "
                f"and target, {self.row_width} wide"
            )

    @override
    def remainder(self, acts: Read, target: Written) -> Written:
        return target if self.W_skip is None else target - acts @ self.W_skip.detach().T

    @override
    def further_gradients(self, acts: Read, upstream: Written) -> dict[str, Tensor]:
        return {} if self.W_skip is None else {"W_skip": upstream.T @ acts}

    @override
    def dense_reconstruction(self, acts: Read, codes: Latents) -> Written:
        plain = codes @ self.W_dec + self.b_dec
        return plain if self.W_skip is None else plain + acts @ self.W_skip.T

    @override
    def forward(self, acts: Acts) -> SAEOutput:
        """Codes of the input, and the output for it."""
        codes = self.encode(acts)
        plain = self.decode(codes)
        return SAEOutput(codes, plain if self.W_skip is None else plain + acts @ self.W_skip.detach().T)

    @override
    def decode(self, codes: Codes) -> Acts:
        """The output without the skip, which reads the input."""
        return super().decode(codes)

    @override
    def fire(self, pre: Latents) -> tuple[Tensor, Tensor]:
        return self.gate.fire(pre)

    @override
    def collectors(self, pre: PreActivations, objective: Objective) -> list[Collector]:
        return self.gate.collectors(pre, objective)

    @override
    def terms(self, found: list[Active], pre: PreActivations, target: Acts, objective: Objective) -> Terms | None:
        return self.gate.terms(found, pre, target, objective)

    @override
    def own_terms(self) -> bool:
        return self.gate.own_terms()

    @override
    def penalty(self, forward: Forward, objective: Objective) -> Penalty:
        return self.gate.penalty(forward, objective)

    @override
    def dense_codes(self, pre: Latents, objective: Objective) -> Latents:
        return self.gate.dense_codes(pre, objective)

    @override
    def dense_penalty(self, pre: Latents, codes: Latents, objective: Objective) -> Tensor:
        return self.gate.dense_penalty(pre, codes, objective)

    @override
    def after_update(self) -> None:
        self.gate.after_update()

    @override
    def settle(self, acts: Acts, k: int) -> dict[str, Any]:
        gate = self.gate
        if not isinstance(gate, BatchTopKSAE):
            return {}
        gate.threshold = fit_threshold(self, self.inputs(acts), k)
        return settle_threshold(gate.threshold)

    @torch.no_grad()
    @override
    def fold_scales(self, scales: tuple[float, ...]) -> None:
        read, write = scales
        self.W_enc.mul_(read)
        self.W_dec.div_(write)
        self.b_dec.div_(write)
        if self.W_skip is not None:
            self.W_skip.mul_(read / write)

    @override
    def fold_scale(self, scale: float) -> None:
        self.fold_scales((scale, scale))

    @override
    def extras(self) -> dict[str, Tensor]:
        return self.gate.extras() | ({} if self.W_skip is None else {"W_skip": self.W_skip.detach()})

    @override
    def settings(self) -> dict[str, Any]:
        return {"gate": self.gate.architecture, **self.gate.settings()}

    @override
    def state(self) -> SAEState:
        tensors, settings = super().state()
        return SAEState(tensors, {name: value for name, value in settings.items() if name != "subtract_b_dec"})

    @classmethod
    @override
    def restore(cls, state: SAEState) -> "TranscoderSAE":
        return super().restore(SAEState(state.tensors, {**state.settings, "subtract_b_dec": False}))

    @classmethod
    @override
    def rebuild(
        cls,
        weights: Weights,
        *,
        extras: Mapping[str, Tensor],
        settings: Mapping[str, Any],
        subtract_b_dec: bool | None = None,
    ) -> "TranscoderSAE":
        name = settings.get("gate")
        if name not in GATES or subtract_b_dec:
            raise ConfigError(
                f"a transcoder with gate {name!r}, subtract_b_dec {subtract_b_dec!r}; wanted one of {', '.join(GATES)} and false"
            )
        inner = {key: value for key, value in settings.items() if key != "gate"}
        own = {key: value for key, value in extras.items() if key != "W_skip"}
        if weights.W_enc.ndim != 2 or weights.W_enc.shape[0] != weights.W_dec.shape[0]:
            raise WidthMismatch(
                f"W_enc has shape {tuple(weights.W_enc.shape)}, {weights.W_dec.shape[0]} rows are wanted; give tensors of one transcoder"
            )
        # The gate is made as if it read what it writes, and is then given the encoder.
        square = weights._replace(W_enc=torch.zeros_like(weights.W_dec))
        gate = GATES[name].rebuild(square, extras=own, settings=inner, subtract_b_dec=False)
        gate.W_enc = nn.Parameter(weights.W_enc)
        return cls(gate, W_skip=extras.get("W_skip"))

    @classmethod
    @override
    def fresh(cls, start: Start) -> "TranscoderSAE":
        options = start.options
        assert isinstance(options, TranscoderOptions), "checked by the recipe"
        d_in, d_out = cls.row_parts(start.centre.shape[0], options)
        read = initial_weights(d_in, start.d_sae, start.seed)
        b_dec: ModelBias = start.centre[d_in:].float().clone()
        weights = Weights(read.W_enc, torch.zeros(start.d_sae, d_out), read.b_enc, b_dec)
        skip = {"W_skip": torch.zeros(d_out, d_in)} if options.skip else {}
        return cls.rebuild(weights, extras=skip, settings={"gate": options.gate, "k": start.k})

    @classmethod
    @override
    def tiny(cls) -> "TranscoderSAE":
        read, write = initial_weights(8, 32, seed=0), initial_weights(6, 32, seed=1)
        weights = Weights(read.W_enc, write.W_dec, 0.05 * read.W_enc[:, 0], 0.1 * write.W_dec[0])
        extras = {"W_skip": 0.1 * read.W_enc[:6], "threshold": torch.linspace(0, 0.4, 32)}
        return cls.rebuild(weights, extras=extras, settings={"gate": "jumprelu"})
