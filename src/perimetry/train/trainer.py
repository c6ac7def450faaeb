"""The state of one SAE in training, and one step of it."""

import logging
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from perimetry.axes import Acts, ModelBias
from perimetry.errors import NonFinite
from perimetry.sae.base import AbstractSAE
from perimetry.sae.steps.audit import AUDIT_EVERY, AUDIT_MOST, Audit, audit
from perimetry.sae.steps.base import Objective, StepResult
from perimetry.sae.steps.dispatch import STEPS
from perimetry.sae.steps.room import lent
from perimetry.train.causal import Interpolation, Rest, causal_pull, require_rest
from perimetry.train.checkpoint import Checkpoint
from perimetry.train.constraints import Constraints
from perimetry.train.fits import scale_row
from perimetry.train.fused import Fused, fused_step
from perimetry.train.recipe import TrainConfig
from perimetry.train.rows import update_rows

__all__ = ["Trainer", "apply_gradients"]

log = logging.getLogger(__name__)


ROWS = 1024
"""Decoder rows that are projected together: a product of all of them would be another matrix of that size."""


@torch.no_grad()
def apply_gradients(
    sae: AbstractSAE,
    optimizer: torch.optim.Optimizer,
    gradients: dict[str, Tensor],
    *,
    clip: float,
    unit_decoder: bool,
    constraints: Constraints | None = None,
) -> float:
    """One update: take the part of the decoder's gradient along its rows away, clip, Adam, rows back to norm 1.

    Returns the norm of the gradient before clipping.
    """
    norm = update_rows(sae, optimizer, gradients, clip=clip, unit_decoder=unit_decoder)
    if norm is None:
        norm = _update(sae, optimizer, gradients, clip=clip, unit_decoder=unit_decoder)
    sae.after_update()
    if constraints is not None:
        constraints.on_weights(sae)
    return norm


def _update(
    sae: AbstractSAE,
    optimizer: torch.optim.Optimizer,
    gradients: dict[str, Tensor],
    *,
    clip: float,
    unit_decoder: bool,
) -> float:
    if unit_decoder:
        for rows, gradient in zip(sae.W_dec.split(ROWS), gradients["W_dec"].split(ROWS), strict=True):
            gradient.addcmul_(rows, (gradient * rows).sum(1, keepdim=True), value=-1)
    norm = math.sqrt(sum(float(torch.linalg.vector_norm(g)) ** 2 for g in gradients.values()))
    if norm > clip:
        for gradient in gradients.values():
            gradient.mul_(clip / norm)
    for name, parameter in sae.named_parameters():
        parameter.grad = gradients[name]
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    if unit_decoder:
        sae.W_dec.div_(sae.W_dec.norm(dim=1, keepdim=True).clamp(min=torch.finfo(sae.W_dec.dtype).tiny))
    return norm


class Trainer:
    """One SAE, its optimiser and its counters. Two trainers that get the same batches never influence each other."""

    def __init__(
        self, config: TrainConfig, scale: float | Sequence[float], centre: ModelBias, rest: Rest | None = None
    ) -> None:
        """Start from seeded weights; `centre` is the first `b_dec`, in units of the scaled activations.

        `scale` is one number, or one for each part of a row; `rest` is the model that a causal loss runs. Errors: `ConfigError`
        where there must be one and is none.
        """
        require_rest(config, rest)
        self.config, self.row_width, self.rest = config, centre.shape[0], rest
        self.scales = (float(scale),) if isinstance(scale, float | int) else tuple(scale)
        self.scale = scale_row(self.scales, config.row_parts(self.row_width)).to(centre.device)
        self.sae = config.sae_class.fresh(config.start(centre.cpu())).to(centre.device)
        self.constraints = Constraints.of(config, self.sae)
        self.optimizer = torch.optim.Adam(
            self.sae.parameters(), lr=config.peak_lr, betas=(config.first_moment, config.beta2), fused=True
        )
        self.since_fired = torch.zeros(config.width, dtype=torch.int64, device=centre.device)
        self.average, self.average_count = 0.0, 0
        self.audited = Audit(0, 0)
        self.interpolation: Interpolation | None = None
        """The causal loss when it was taken last."""
        self.step = 0

    @property
    def tokens(self) -> int:
        """Training tokens seen."""
        return self.step * self.config.batch

    @property
    def threshold(self) -> float:
        """Running mean of the smallest selected value, corrected for its start at 0."""
        weight = 1 - self.config.threshold_decay**self.average_count
        return self.average / weight if weight > 0 else 0.0

    def dead(self) -> Tensor:
        """Mask of the latents that have not fired for too long."""
        return self.since_fired >= self.config.dead_tokens

    def objective(self) -> Objective:
        """Weights of the loss terms at this step."""
        config = self.config
        return Objective(
            sparsity=config.sparsity_at(self.step),
            target_l0=float(config.k_at(self.step)),
            l0_loss=config.l0_loss,
            bandwidth=config.window,
            aux=config.aux_weight,
            k=None if config.k_start is None else config.k_at(self.step),
            smooth=config.contrast,
        )

    def advance(self, acts: Acts) -> StepResult:
        """Learn from one batch of raw activations. Errors: `NonFinite` when loss or gradient is no number."""
        config = self.config
        for group in self.optimizer.param_groups:
            group["lr"] = config.lr_at(self.step)
        if self.step % AUDIT_EVERY == 0:
            self._look(acts[:AUDIT_MOST] * self.scale)
        result, norm = self._learn(lambda: acts * self.scale)
        if not math.isfinite(result.loss + norm):
            raise NonFinite(
                f"step {self.step}: the loss is {result.loss} and the gradient's norm {norm}; finite numbers are wanted; "
                "lower lr or sparsity, and run the same command again: it continues from the last checkpoint"
            )
        self.since_fired += acts.shape[0]
        self.since_fired[result.fired] = 0
        if result.smallest is not None:
            decay = config.threshold_decay
            self.average = decay * self.average + (1 - decay) * result.smallest
            self.average_count += 1
        self.step += 1
        return result

    def _look(self, rows: Acts) -> None:
        """Audit the selection, and say so when it went wrong."""
        found = audit(self.sae, rows, self.objective()) if self.config.step == "sparse" else None
        if found is None:
            return
        self.audited = Audit(self.audited.rows + found.rows, self.audited.missed + found.missed)
        if found.missed:
            log.warning(
                "step %d: the selection by few bits differs from float32 in %d entries of %d rows; set PERIMETRY_SELECTION=float32 "
                "and train again if that matters, and please report it",
                self.step,
                found.missed,
                found.rows,
            )

    def _spare(self) -> dict[str, Tensor]:
        """Averages of gradients that Adam will not read, by the parameter whose gradient may be made there."""
        if self.config.first_moment != 0 or self.constraints is not None:
            return {}
        held = {name: self.optimizer.state.get(p, {}).get("exp_avg") for name, p in self.sae.named_parameters()}
        return {name: tensor for name, tensor in held.items() if tensor is not None and tensor.device.type == "cpu"}

    def _learn(self, rows: Callable[[], Acts]) -> Fused:
        """One update on scaled rows, in one go where that is possible."""
        config, objective, dead = self.config, self.objective(), self.dead()
        causal = config.causal_at(self.step)
        if config.step == "sparse" and self.constraints is None and not causal:
            fused = fused_step(
                self.sae, self.optimizer, rows, objective, dead, clip=config.clip, unit_decoder=config.unit_rows
            )
            if fused is not None:
                return fused
        with lent(self._spare()):
            result = STEPS[config.step](self.sae, rows(), objective, dead)
        if causal:
            result = self._with_causal(result, objective, causal)
        if self.constraints is not None:
            extra = self.constraints.on_gradients(self.sae, result.gradients, self.step)
            result = result._replace(further=result.further + extra)
        norm = apply_gradients(
            self.sae,
            self.optimizer,
            result.gradients,
            clip=config.clip,
            # Rows that never move would still lose their last bits to being brought to norm 1 again and again.
            unit_decoder=config.unit_rows and config.frozen != "decoder",
            constraints=self.constraints,
        )
        return Fused(result, norm)

    def _with_causal(self, result: StepResult, objective: Objective, weight: float) -> StepResult:
        """A step with the causal loss added to it."""
        config, rest = self.config, self.rest
        assert rest is not None, "checked when the trainer was made"
        turn = self.step // config.causal_every
        pull = causal_pull(
            self.sae,
            self.scale,
            lambda replace: rest(turn, replace),
            objective,
            share=config.causal_share_at(turn, config.data_seed),
            target=config.causal_target,
        )
        self.interpolation = pull.interpolation
        for name, gradient in pull.gradients.items():
            result.gradients[name].add_(gradient, alpha=weight)
        return result._replace(further=result.further + weight * float(pull.interpolation.error))

    def state(self) -> Checkpoint:
        """Everything that the next step depends on."""
        tensors: dict[str, Tensor] = {"since_fired": self.since_fired}
        for name, parameter in self.sae.named_parameters():
            tensors[f"parameter.{name}"] = parameter.detach()
            for key, value in self.optimizer.state[parameter].items():
                tensors[f"adam.{key}.{name}"] = value
        tensors |= {f"buffer.{name}": buffer for name, buffer in self.sae.named_buffers()}
        document: dict[str, Any] = {
            "config": self.config.model_dump(mode="json"),
            "scale": list(self.scales),
            "row_width": self.row_width,
            "average": self.average,
            "average_count": self.average_count,
            "audited": list(self.audited),
        }
        if self.interpolation is not None:
            document["interpolation"] = [float(value) for value in self.interpolation]
        return Checkpoint(self.step, tensors, document)

    @torch.no_grad()
    def load(self, checkpoint: Checkpoint) -> None:
        """Take over a state of `state()`; the next step then gives the same bits as it would have there."""
        for name, parameter in self.sae.named_parameters():
            parameter.copy_(checkpoint.tensors[f"parameter.{name}"])
            state = {
                key.split(".")[1]: value.clone()
                for key, value in checkpoint.tensors.items()
                if key.startswith("adam.") and key.split(".", 2)[2] == name
            }
            if state:
                self.optimizer.state[parameter] = state
        for name, buffer in self.sae.named_buffers():
            # Checkpoints of before the buffers were in them are of architectures whose buffers follow from the seed.
            buffer.copy_(checkpoint.tensors.get(f"buffer.{name}", buffer))
        self.since_fired.copy_(checkpoint.tensors["since_fired"])
        self.average = float(checkpoint.document["average"])
        self.average_count = int(checkpoint.document["average_count"])
        self.audited = Audit(*checkpoint.document.get("audited", (0, 0)))
        last = checkpoint.document.get("interpolation")
        self.interpolation = None if last is None else Interpolation(*(torch.tensor(float(value)) for value in last))
        self.step = checkpoint.step
