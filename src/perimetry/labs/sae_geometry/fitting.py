"""Dictionaries trained on the worlds by the published loop: plain Adam on exact gradients, clipped at norm 1."""

import math
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from perimetry.axes import Acts, Latents
from perimetry.labs.descent import descend
from perimetry.labs.sae_geometry.reviving import reviving_step
from perimetry.runtime import generator
from perimetry.sae.affine import Weights
from perimetry.sae.base import AbstractSAE, Codes, SAEOutput, Start
from perimetry.sae.jumprelu import JumpReLUSAE
from perimetry.sae.spade import PrototypeOptions, SpaDESAE
from perimetry.sae.sparsemax import SparsemaxSAE
from perimetry.sae.standard import StandardSAE
from perimetry.sae.steps.base import Objective
from perimetry.sae.steps.dispatch import exact_step
from perimetry.sae.topk import TopKSAE

__all__ = ["Fitted", "Kind", "Loop", "Softened", "cosine", "fit", "rise_and_fall", "train"]

Kind = Literal["spade", "sparsemax", "softmax", "relu", "jumprelu", "topk"]
Fitted = AbstractSAE | nn.Module
"""A dictionary, or a control that is none of the architectures."""


class Loop(NamedTuple):
    """How to train; every step clips the gradient's norm at 1."""

    steps: int
    """Steps."""
    rate: Callable[[float], float]
    """Learning rate at a share of the steps."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Moments of Adam."""
    rows: Literal["free", "unit", "projected"] = "free"
    """`unit`: decoder rows are brought back to norm 1; `projected`: their gradient's part along themselves is removed first."""
    frozen: tuple[str, ...] = ()
    """Parameters that stay."""
    encoder_unit: float = 1.0
    """Adam moves the encoder and its bias in these units."""
    dead_after: int = 0
    """Batches without firing after which a latent takes part in the auxiliary loss of TopK; 0 = there is none."""
    logs: tuple[str, ...] = ()
    """Parameters that are trained by their logarithm, and so stay above 0."""
    wanted: float | None = None
    """Active count towards which the weight of sparsity moves, by 3e-4 a step; None leaves it."""


def cosine(share: float) -> float:
    """From 1e-2 to 1e-4.

    >>> cosine(0.0), round(cosine(1.0), 6)
    (0.01, 0.0001)
    """
    return 1e-4 + (1e-2 - 1e-4) * 0.5 * (1 + math.cos(math.pi * share))


def rise_and_fall(steps: int) -> Callable[[float], float]:
    """3e-2 after 100 steps, and a tenth of that at the end, reached in the last fifth."""
    return lambda share: 3e-2 * min((share * steps + 1) / 100, 1.0, 0.1 + 0.9 * (1 - share) / 0.2)


def train(
    sae: AbstractSAE,
    batches: Iterator[Tensor],
    objective: Objective,
    loop: Loop,
    counts: Callable[[int], int] | None = None,
) -> None:
    """Plain Adam on the exact gradients; `counts`: the active count at a step, where it is annealed."""
    moved = {n: p for n, p in sae.named_parameters() if n not in loop.frozen}
    units = {n: loop.encoder_unit if n in ("W_enc", "b_enc") else 1.0 for n in moved}
    held = {n: (p.detach().log() if n in loop.logs else p.detach() / units[n]) for n, p in moved.items()}
    for parameter in held.values():
        parameter.requires_grad_()
    optimizer = torch.optim.Adam(held.values(), lr=1.0, betas=loop.betas, fused=True)
    silent = torch.zeros(sae.d_sae, dtype=torch.int64)
    for step in range(loop.steps):
        if counts is not None:
            objective = objective._replace(k=counts(step))
        rows = next(batches)
        if loop.dead_after:
            assert isinstance(sae, TopKSAE)
            gradients, fired = reviving_step(sae, rows, objective.aux, (silent >= loop.dead_after).nonzero()[:, 0])
            silent = torch.where(fired, 0, silent + 1)
        else:
            result = exact_step(sae, rows, objective)
            gradients = result.gradients
            if loop.wanted is not None:
                change = 3e-4 if result.l0 > loop.wanted else -3e-4
                objective = objective._replace(sparsity=max(0.0, objective.sparsity + change))
        if loop.rows == "projected":
            atoms, slope = sae.W_dec.detach(), gradients["W_dec"]
            slope -= atoms * (atoms * slope).sum(1, keepdim=True)
        for name, parameter in held.items():
            parameter.grad = gradients[name] * (moved[name].detach() if name in loop.logs else units[name])
        torch.nn.utils.clip_grad_norm_(list(held.values()), 1.0)
        optimizer.param_groups[0]["lr"] = loop.rate(step / loop.steps)
        optimizer.step()
        with torch.no_grad():
            if loop.rows != "free":
                held["W_dec"].div_(held["W_dec"].norm(dim=1, keepdim=True))
            for name, parameter in moved.items():
                parameter.copy_(held[name].exp() if name in loop.logs else held[name] * units[name])


class Softened(nn.Module):
    """SpaDE with a softmax in place of the projection onto the simplex: the control in which no latent is ever silent."""

    def __init__(self, width: int, d_model: int, seed: int) -> None:
        """Standard normal prototypes, the decoder equal to them; lambda 1 / (2 d_model)."""
        super().__init__()
        rows = torch.randn(width, d_model, generator=generator(seed))
        self.prototypes, self.W_dec = nn.Parameter(rows.clone()), nn.Parameter(rows)
        self.sharp = nn.Parameter(torch.tensor(math.log(math.expm1(1 / (2 * d_model)))))

    @property
    def d_sae(self) -> int:
        """Number of latents."""
        return self.W_dec.shape[0]

    def latents(self, acts: Acts) -> tuple[Latents, Latents]:
        """Codes, and squared distances to the prototypes."""
        apart = torch.cdist(acts, self.prototypes).square()
        return (-nn.functional.softplus(self.sharp) * apart).softmax(1), apart

    def forward(self, acts: Acts) -> SAEOutput:
        """Encode and decode."""
        codes, _ = self.latents(acts)
        slots = torch.arange(self.d_sae).expand(codes.shape[0], -1)
        return SAEOutput(Codes(slots, codes, self.d_sae), codes @ self.W_dec)

    def learn(self, batches: Iterator[Tensor], gamma: float, loop: Loop) -> None:
        """Adam by autograd, with the same loss as SpaDE."""
        optimizer = torch.optim.Adam(self.parameters(), lr=1.0)
        for step in range(loop.steps):
            points = next(batches)
            codes, apart = self.latents(points)
            lost = (points - codes @ self.W_dec).square().sum(1).mean() + gamma * (codes * apart).sum(1).mean()
            optimizer.param_groups[0]["lr"] = loop.rate(step / loop.steps)
            descend(optimizer, lost, clip=1.0)


def _projecting(width: int, d_model: int, seed: int) -> Weights:
    """Rows in every direction; the encoder, its bias too, stands behind a factor 1 / (2 d_model)."""
    rows = torch.randn(width, d_model, generator=generator(seed))
    unit = rows / rows.norm(dim=1, keepdim=True)
    return Weights(rows / (2 * d_model), unit, torch.zeros(width), torch.zeros(d_model))


def fit(
    kind: Kind, batches: Iterator[Tensor], *, width: int, d_model: int, gamma: float, k: int, steps: int, seed: int
) -> Fitted:
    """A dictionary of some kind; `gamma`: weight of its sparsity term, `k`: active count of topk."""
    start = Start(torch.zeros(d_model), width, max(k, 1), seed, options=PrototypeOptions(initialisation="toy"))
    loop = Loop(steps, cosine)
    projected = loop._replace(rows="projected", encoder_unit=1 / (2 * d_model))
    objective = Objective(sparsity=gamma, l0_loss="step", bandwidth=1e-3)
    if kind == "softmax":
        soft = Softened(width, d_model, seed)
        soft.learn(batches, gamma, loop)
        return soft.requires_grad_(requires_grad=False)
    weights = _projecting(width, d_model, seed)
    if kind in ("spade", "sparsemax"):
        sae: AbstractSAE = SpaDESAE.fresh(start) if kind == "spade" else SparsemaxSAE.fresh(start)
    elif kind == "relu":
        sae, loop = StandardSAE(weights), projected
    elif kind == "jumprelu":
        sae, loop = JumpReLUSAE(weights, mode="step", subtract_b_dec=True), projected._replace(logs=("threshold",))
    else:
        sae, loop = TopKSAE(weights, k=k), projected._replace(frozen=("b_enc",), dead_after=20)
        objective = objective._replace(aux=1.0)
    train(sae, batches, objective, loop)
    return sae.requires_grad_(requires_grad=False)
