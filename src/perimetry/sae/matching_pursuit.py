"""Matching pursuit: one atom after another takes its share of what is left of the token (arXiv 2506.03093).

Assumes that concepts are hierarchical, with atoms orthogonal given those chosen before. The residual is orthogonal to the
last atom only; orthogonal matching pursuit differs. Encoding costs one encoder product an atom. The active count is fixed
(at most k) where k steps end the pursuit, and free where the residual's norm does (`residual_threshold` above 0, and no
cap on the steps below d_model).
"""

from typing import ClassVar, final

import torch
from jaxtyping import Bool
from pydantic import Field
from torch import Tensor, nn
from typing_extensions import override

from perimetry.axes import Acts, Decoder, ModelBias
from perimetry.errors import ConfigError
from perimetry.sae.affine import initial_weights
from perimetry.sae.base import AutogradSAE, Codes, CountMode, Defaults, Options, SAEState, Start
from perimetry.sae.entries import codes_of, decode_codes, explain, losses_of, nothing, place, products_at, tensors_of
from perimetry.sae.pursuit import PursuitRule, entries_of, pursue, pursue_rows, residual_of
from perimetry.sae.steps.active import Active, stack_rows
from perimetry.sae.steps.base import Losses, Objective
from perimetry.sae.steps.dense import dense_aux
from perimetry.sae.steps.products import row_chunks
from perimetry.sae.steps.select import PreActivations, TopK
from perimetry.sae.steps.sparse import aux_count

__all__ = ["MatchingPursuitOptions", "MatchingPursuitSAE"]


class MatchingPursuitOptions(Options):
    """When a pursuit ends."""

    residual_threshold: float = Field(default=0.0, ge=0)
    """Stop once the residual's norm is below this, in units of scaled activations; 0 goes by the number of steps alone."""
    max_iterations: int | None = Field(default=None, ge=1)
    """Most steps of a token; None is k, or d_model where the residual's norm stops."""
    stop_on_duplicate_support: bool = True
    """Stop after a step that chose no new atom."""


@final
class MatchingPursuitSAE(AutogradSAE):
    """Codes are the greedy pursuit over tied atoms of one norm (1 in training), less `b_dec` first; values are above 0.

    Dead atoms are revived by letting those that the token did not use, and that agree best with its residual, explain it.
    """

    architecture: ClassVar[str] = "matching_pursuit"
    count_mode: ClassVar[CountMode] = "fixed"
    defaults: ClassVar[Defaults] = Defaults(aux=1 / 32)
    options_type: ClassVar[type[Options]] = MatchingPursuitOptions

    b_dec: nn.Parameter

    def __init__(self, W_dec: Decoder, b_dec: ModelBias, rule: PursuitRule) -> None:
        super().__init__()
        if rule.max_iterations < 1 or not (rule.atom_norm > 0 and rule.residual_threshold >= 0):
            raise ConfigError(
                f"a pursuit of {rule.max_iterations} steps to a residual of {rule.residual_threshold} with atoms of norm "
                f"{rule.atom_norm}; give 1 step or more, a residual of 0 or more, and a norm above 0"
            )
        self.W_dec, self.b_dec, self.rule = nn.Parameter(W_dec), nn.Parameter(b_dec), rule
        # A cap that is lower would cut off just the tokens that need more atoms than usual.
        if rule.residual_threshold > 0 and rule.max_iterations >= self.d_model:
            self.count_mode = "free"  # pyright: ignore[reportAttributeAccessIssue]

    @torch.no_grad()
    @override
    def encode(self, acts: Acts) -> Codes:
        self.check_width(acts)
        parts = [nothing(self.d_sae, self.W_dec)]
        for start, stop in row_chunks(acts.shape[0], self.d_sae):
            centred = acts[start:stop].to(self.W_dec.dtype) - self.b_dec
            choices = pursue_rows(centred, self.W_dec, self.rule, 0)
            parts.append(entries_of(choices, stop - start, self.W_dec.detach()))
        return codes_of(stack_rows(parts))

    @override
    def decode(self, codes: Codes) -> Acts:
        return decode_codes(codes, self.W_dec, self.b_dec)

    @override
    def losses(self, rows: Acts, objective: Objective, dead: Bool[Tensor, " d_sae"]) -> Losses:
        centred = self.inputs(rows) - self.b_dec
        pursued = pursue(centred.detach(), self.W_dec.detach(), self.rule)
        residual = residual_of(centred, self.W_dec, pursued, self.rule)
        active = entries_of(pursued.choices, rows.shape[0], self.W_dec.detach())
        aux = self._revive(pursued.residual, active, dead, objective.aux)
        return losses_of(residual, active.columns, self.d_sae, aux=aux)

    def _revive(self, residual: Acts, active: Active, dead: Bool[Tensor, " d_sae"], weight: float) -> Tensor:
        among = dead.nonzero()[:, 0]
        if weight == 0 or not among.numel():
            return residual.new_zeros(())
        atoms = self.W_dec[among]
        used = active.keep(dead[active.columns])
        position = dead.cumsum(0)[used.columns] - 1
        top = TopK(aux_count(self.d_model, among.shape[0]))
        pre = PreActivations(residual, atoms.detach(), residual.new_zeros(among.shape[0]))
        for start, chunk in pre.chunks():
            # What a token has used up agrees with its residual by rounding alone, whose sign must not matter.
            low, high = int(used.offsets[start]), int(used.offsets[start + chunk.shape[0]])
            chunk[used.rows()[low:high] - start, position[low:high]] = 0
            top.take(chunk)
        places = place(top.finish())
        return explain(places, torch.relu(products_at(places, residual, atoms)), atoms, residual, weight)

    @override
    def dense_losses(self, rows: Acts, objective: Objective, dead: Bool[Tensor, " d_sae"]) -> Losses:
        rule = self.rule
        residual = self.inputs(rows) - self.b_dec
        floor = rule.floor(residual.detach())
        codes = residual.new_zeros(rows.shape[0], self.d_sae)
        going = torch.ones(rows.shape[0], dtype=torch.bool, device=rows.device)
        for _ in range(rule.max_iterations):
            best = (residual.detach() @ self.W_dec.detach().T).argmax(1)
            values = rule.gain * (residual * self.W_dec[best]).sum(1)
            values = values * (going & (values > floor))
            residual = residual - values[:, None] * self.W_dec[best]
            before = codes != 0
            codes = codes.scatter_add(1, best[:, None], values.detach()[:, None])
            going = going & (values > 0) & (residual.detach().norm(dim=1) >= rule.residual_threshold)
            if rule.stop_on_duplicate_support:
                going = going & ((codes != 0) != before).any(1)
        unused = (residual.detach() @ self.W_dec.T) * (codes == 0)
        aux = dense_aux(unused, residual, self.W_dec, dead, objective.aux)
        return losses_of(residual, codes.nonzero()[:, 1], self.d_sae, aux=aux)

    @torch.no_grad()
    @override
    def fold_scale(self, scale: float) -> None:
        # Atoms of norm 1 / scale, and values taken as shares of an atom, leave the codes what they were.
        self.W_dec.div_(scale)
        self.b_dec.div_(scale)
        norm = float(torch.tensor(self.rule.atom_norm / scale, dtype=torch.float32))
        self.rule = self.rule._replace(atom_norm=norm, residual_threshold=self.rule.residual_threshold / scale)

    @override
    def state(self) -> SAEState:
        tensors = {"W_dec": self.W_dec.detach(), "b_dec": self.b_dec.detach()}
        settings = {**self.rule._asdict(), "subtract_b_dec": True}
        # A tensor of its own, so that a format which knows unit atoms only cannot take this dictionary by mistake.
        norm = settings.pop("atom_norm")
        return SAEState(tensors if norm == 1 else {**tensors, "atom_norm": torch.tensor(norm)}, settings)

    @classmethod
    @override
    def restore(cls, state: SAEState) -> "MatchingPursuitSAE":
        tensors = dict(state.tensors)
        norm = float(tensors.pop("atom_norm", 1.0))
        shape = tensors["W_dec"].shape if "W_dec" in tensors else (1, 1)
        empty = cls(torch.zeros(shape), torch.zeros(shape[1]), PursuitRule(1))
        names = ("max_iterations", "residual_threshold", "stop_on_duplicate_support")
        tensors = tensors_of(empty, SAEState(tensors, state.settings), *names)
        if not state.settings.get("subtract_b_dec", True):
            # Other libraries leave it out of the output then, too.
            tensors["b_dec"] = torch.zeros_like(tensors["b_dec"])
        rule = PursuitRule(
            int(state.settings["max_iterations"]),
            float(state.settings["residual_threshold"]),
            bool(state.settings["stop_on_duplicate_support"]),
            norm,
        )
        return cls(tensors["W_dec"], tensors["b_dec"], rule)

    @classmethod
    @override
    def fresh(cls, start: Start) -> "MatchingPursuitSAE":
        options, d_model = start.options, start.centre.shape[0]
        assert isinstance(options, MatchingPursuitOptions), "the architecture's own options"
        weights = initial_weights(d_model, start.d_sae, start.seed, start.centre)
        stop = options.residual_threshold
        steps = options.max_iterations or (d_model if stop > 0 else start.k)
        return cls(weights.W_dec, weights.b_dec, PursuitRule(steps, stop, options.stop_on_duplicate_support))

    @classmethod
    @override
    def tiny(cls) -> "MatchingPursuitSAE":
        weights = initial_weights(8, 32, seed=0)
        return cls(weights.W_dec, torch.linspace(-0.2, 0.2, 8), PursuitRule(4))
