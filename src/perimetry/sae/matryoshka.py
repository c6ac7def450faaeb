"""Matryoshka BatchTopK: nested dictionaries, each of which reconstructs alone, with one BatchTopK selection for all.

Assumes that general concepts are frequent and nested: the first latents learn the general ones, later groups refine. As in
BatchTopK the count is a budget that rows share in training; at inference one common cut takes its place and the active
count is free.

Level l uses the latents below its end; the loss is the sum over levels of weight times squared error (Bussmann et al.,
arXiv 2503.17547). Levels are contiguous id ranges: each range is multiplied once, reconstructions are running sums over the
levels, and the gradients of a range come from the sum of the weighted residuals of the levels that hold it.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, final

import torch
from pydantic import Field, model_validator
from torch import Tensor
from typing_extensions import override

from perimetry.axes import Acts, Latents, ModelBias
from perimetry.sae.affine import AffineSAE, Weights, tiny_weights
from perimetry.sae.base import CountMode, Defaults, Options
from perimetry.sae.slots import fire_above
from perimetry.sae.steps.active import Active
from perimetry.sae.steps.base import Objective, Penalty, Plain
from perimetry.sae.steps.products import sampled, square_sum
from perimetry.sae.steps.select import BatchTopK, Collector, PreActivations
from perimetry.sae.steps.stairs import Level, climb
from perimetry.sae.terms.smooth import smooth_term
from perimetry.sae.threshold import budget_mask, fit_threshold, settle_threshold

__all__ = ["MatryoshkaOptions", "MatryoshkaSAE", "levels"]

FRACTIONS = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 17 / 32)


class MatryoshkaOptions(Options):
    """The levels of a Matryoshka dictionary."""

    fractions: tuple[float, ...] = Field(default=FRACTIONS, min_length=1)
    """Share of the latents that each level adds, from the first on; they sum to 1."""
    weights: tuple[float, ...] | None = None
    """Weight of each level's squared error; None is 1 over the number of levels."""

    @model_validator(mode="after")
    def _sums(self) -> "MatryoshkaOptions":
        if min(self.fractions) <= 0 or not math.isclose(sum(self.fractions), 1, abs_tol=1e-6):
            raise ValueError(
                f"fractions {list(self.fractions)} sum to {sum(self.fractions)}; give positive ones of sum 1"
            )
        if self.weights is not None and (
            len(self.weights) != len(self.fractions) or min(self.weights) < 0 or not max(self.weights)
        ):
            raise ValueError(
                f"weights {list(self.weights)} for {len(self.fractions)} levels; give one a level, none negative, not all 0"
            )
        return self


def levels(options: MatryoshkaOptions, d_sae: int) -> tuple[Level, ...]:
    """The levels of a dictionary of `d_sae` latents; those that round to the same width become one with their weights' sum.

    >>> [level.end for level in levels(MatryoshkaOptions(), 4096)]
    [128, 384, 896, 1920, 4096]
    """
    weights = options.weights or [1 / len(options.fractions)] * len(options.fractions)
    ends: dict[int, float] = {}
    total = 0.0
    for fraction, weight in zip(options.fractions, weights, strict=True):
        total += fraction
        end = min(d_sae, max(1, round(total * d_sae)))
        ends[end] = ends.get(end, 0.0) + weight
    # Rounding must not leave the last latents out.
    ends[d_sae] = ends.pop(max(ends))
    starts = [0, *ends]
    return tuple(Level(start, end, weight) for start, (end, weight) in zip(starts, ends.items(), strict=False))


@final
class MatryoshkaSAE(AffineSAE):
    """Codes at inference are p where p exceeds the common threshold (strictly), 0 elsewhere."""

    architecture: ClassVar[str] = "matryoshka"
    count_mode: ClassVar[CountMode] = "free"
    defaults: ClassVar[Defaults] = Defaults(aux=1 / 32)
    anneals_k: ClassVar[bool] = True
    options_type: ClassVar[type[Options]] = MatryoshkaOptions

    def __init__(
        self,
        weights: Weights,
        *,
        k: int,
        threshold: float = 0.0,
        options: MatryoshkaOptions | None = None,
        subtract_b_dec: bool = True,
    ) -> None:
        super().__init__()
        self.hold(weights, subtract_b_dec)
        self.k = self.check_k(k)
        self.threshold = float(torch.tensor(threshold, dtype=torch.float32))
        self.options = options or MatryoshkaOptions()
        self.levels = levels(self.options, self.d_sae)

    @override
    def cut(self) -> Tensor:
        return self.b_enc.detach().new_tensor(self.threshold)

    @override
    def fire(self, pre: Latents) -> tuple[Tensor, Tensor]:
        return fire_above(pre, self.cut())

    @override
    def settings(self) -> dict[str, Any]:
        return {"k": self.k, "threshold": self.threshold, **self.options.model_dump(mode="json")}

    @override
    def settle(self, acts: Acts, k: int) -> dict[str, Any]:
        self.threshold = fit_threshold(self, acts, k)
        return settle_threshold(self.threshold)

    @override
    def collectors(self, pre: PreActivations, objective: Objective) -> list[Collector]:
        return [BatchTopK(objective.k or self.k, pre.acts.shape[0], pre.sample())]

    @override
    def plain(self, found: list[Active], target: Acts, b_dec: ModelBias, objective: Objective) -> Plain:
        active, decoder = found[0], self.W_dec.detach()
        stairs = climb(active, self.levels, decoder, target - b_dec)
        delta, upstream = torch.empty_like(active.values), torch.empty_like(target)
        for group in stairs.down(decoder, upstream):
            delta[group.mask] = sampled(group.active, upstream, decoder[group.level.start : group.level.end])
        smooth = smooth_term(active, objective.smooth)
        if smooth is not None:
            delta = delta + smooth.towards(active)
        return Plain(
            active=active,
            delta=delta,
            upstream=upstream,
            error=square_sum(stairs.residual),
            penalty=Penalty(0.0, None, {}),
            further=0.0 if smooth is None else smooth.loss,
            stairs=stairs,
        )

    @override
    def dense_codes(self, pre: Latents, objective: Objective) -> Latents:
        return torch.relu(pre) * budget_mask(pre.detach(), objective.k or self.k)

    @override
    def dense_reconstruction_loss(self, target: Acts, codes: Latents, residual: Acts, objective: Objective) -> Tensor:
        total = codes.new_zeros(())
        for level in self.levels:
            error = target - codes[:, : level.end] @ self.W_dec[: level.end] - self.b_dec
            total = total + level.weight * error.square().sum(1).mean()
        return total

    @classmethod
    @override
    def rebuild(
        cls,
        weights: Weights,
        *,
        extras: Mapping[str, Tensor],
        settings: Mapping[str, Any],
        subtract_b_dec: bool | None = None,
    ) -> "MatryoshkaSAE":
        return cls(
            weights,
            k=int(settings["k"]),
            threshold=float(settings.get("threshold", 0.0)),
            options=_options(settings),
            subtract_b_dec=True if subtract_b_dec is None else subtract_b_dec,
        )

    @classmethod
    @override
    def tiny(cls) -> "MatryoshkaSAE":
        return cls(tiny_weights(), k=4, threshold=0.3)


def _options(settings: Mapping[str, Any]) -> MatryoshkaOptions:
    fractions: Sequence[float] = settings.get("fractions") or FRACTIONS
    weights: Sequence[float] | None = settings.get("weights")
    return MatryoshkaOptions(fractions=tuple(fractions), weights=None if weights is None else tuple(weights))
