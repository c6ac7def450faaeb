"""Archetypal dictionaries: each decoder row is a mixture of fixed points, and little more (arXiv 2502.12892).

Assumes that the directions of concepts lie near the hull of the data, so that a dictionary made of data is the same whatever
the seed. D = exp(m) (A C + Lambda): rows of A are at least 0 and sum to 1, C are fixed points, rows of Lambda have a norm of
at most delta. Part of that sameness may be nothing but the common start, wherefore `start_decoder` gives the dictionary as
it was at step 0: compare two seeds there too, and seeds with points of their own. The active count is fixed over a TopK gate,
free over a ReLU gate.
"""

import math
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, final

import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor, nn
from typing_extensions import override

from perimetry.axes import Acts, Decoder, Latents, ModelBias
from perimetry.errors import ConfigError
from perimetry.runtime import generator
from perimetry.sae.base import AutogradSAE, Codes, CountMode, Defaults, Options, SAEState, Start
from perimetry.sae.entries import (
    codes_of,
    combine,
    decode_codes,
    explain,
    losses_of,
    nothing,
    place,
    products_at,
    tensors_of,
)
from perimetry.sae.points import Points, read_points, seeded_points
from perimetry.sae.steps.active import Active
from perimetry.sae.steps.base import Losses, Objective
from perimetry.sae.steps.dense import dense_aux
from perimetry.sae.steps.select import AboveCut, Collector, PreActivations, TopK, collect
from perimetry.sae.steps.sparse import aux_count

__all__ = ["ArchetypalOptions", "ArchetypalSAE", "Archetypes", "start_mixture"]

Mixing = Literal["identity", "random"]


class ArchetypalOptions(Options):
    """Gate, hull and start of an archetypal dictionary."""

    gate: Literal["topk", "relu"] = "topk"
    """`topk`: the k largest of a token; `relu`: all above 0, held down by the sparsity weight."""
    delta: float = Field(default=1.0, ge=0)
    """Largest norm of what a row adds to its mixture, where points have norm 1."""
    points: int | None = Field(default=None, ge=1)
    """Number of seeded points; None is one a latent. Unused with `points_file`."""
    points_seed: int | None = None
    """Seed of seeded points; None is the seed of the weights, so that seeds differ at step 0 already."""
    points_file: str | None = None
    """safetensors file with a matrix `points`, chosen from data (`choose_points`, `write_points`)."""
    points_sha256: str | None = None
    """Hash that the file must have; None takes any."""
    mixture: Mixing = "identity"
    """`identity`: row i starts as point i, whatever the seed; `random`: each starts between two points of its seed's choice."""


class Archetypes(NamedTuple):
    """How an archetypal dictionary chooses, and how it started."""

    k: int
    """Most latents of a token, under the gate `topk`."""
    gate: Literal["topk", "relu"]
    """Which pre-activations fire."""
    delta: float
    """Largest norm of a row of Lambda."""
    mixture: Mixing
    """How A started."""
    seed: int
    """What A started from, where it was random."""
    subtract_b_dec: bool
    """True where `b_dec` is taken off the input first."""


def start_mixture(kind: Mixing, d_sae: int, points: int, seed: int) -> Float[Tensor, "d_sae point"]:
    """A at step 0. Errors: `ConfigError` for fewer points than latents under `identity`.

    >>> start_mixture("identity", 2, 3, seed=0).tolist()
    [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]
    """
    if kind == "identity":
        if points < d_sae:
            raise ConfigError(
                f"{points} points for {d_sae} latents: with the mixture 'identity' each latent starts at a point of its "
                "own; give more points, or mixture = 'random'"
            )
        return torch.eye(d_sae, points)
    source = generator(seed)
    pairs = torch.randint(points, (d_sae, 2), generator=source)
    share = torch.rand(d_sae, 1, generator=source)
    return torch.zeros(d_sae, points).scatter_add_(1, pairs, torch.cat([share, 1 - share], dim=1))


@final
class ArchetypalSAE(AutogradSAE):
    """An affine encoder with a TopK or a ReLU gate over a decoder that stays near the hull of fixed points.

    Under `relu` the sparsity term is code times decoder norm, as in `standard`.
    """

    architecture: ClassVar[str] = "archetypal"
    count_mode: ClassVar[CountMode] = "fixed"
    defaults: ClassVar[Defaults] = Defaults(sparsity=0.03, aux=1 / 32, unit_decoder=False)
    options_type: ClassVar[type[Options]] = ArchetypalOptions

    W_enc: nn.Parameter
    b_enc: nn.Parameter
    b_dec: nn.Parameter
    mixture: nn.Parameter
    """A."""
    relaxation: nn.Parameter
    """Lambda."""
    log_scale: nn.Parameter
    """m."""
    points: Tensor
    """C."""

    def __init__(self, points: Points, centre: ModelBias, d_sae: int, rules: Archetypes) -> None:
        super().__init__()
        if not 1 <= rules.k <= d_sae:
            raise ConfigError(f"k = {rules.k} for a dictionary of {d_sae} latents; give a k between 1 and {d_sae}")
        self.rules = rules
        self.register_buffer("points", points)
        self.mixture = nn.Parameter(start_mixture(rules.mixture, d_sae, points.shape[0], rules.seed))
        self.relaxation = nn.Parameter(torch.zeros(d_sae, points.shape[1]))
        self.log_scale = nn.Parameter(torch.zeros(()))
        rows = self.start_decoder()
        self.W_enc = nn.Parameter(rows / rows.norm(dim=1, keepdim=True).clamp(min=torch.finfo(rows.dtype).tiny))
        self.b_enc, self.b_dec = nn.Parameter(torch.zeros(d_sae)), nn.Parameter(centre.float().clone())
        if rules.gate == "relu":
            self.count_mode = "free"  # pyright: ignore[reportAttributeAccessIssue]

    @property
    def W_dec(self) -> Decoder:  # noqa: N802  # pyright: ignore[reportIncompatibleVariableOverride]
        """D, made anew at each call, with a graph towards A, Lambda and m."""
        return self.log_scale.exp() * (self.mixture @ self.points + self.relaxation)

    @property
    @override
    def d_sae(self) -> int:
        return self.mixture.shape[0]

    @property
    @override
    def d_model(self) -> int:
        return self.points.shape[1]

    @torch.no_grad()
    def start_decoder(self) -> Decoder:
        """D at step 0: the yardstick for the stability of what came of it."""
        rules = self.rules
        mixture = start_mixture(rules.mixture, self.d_sae, self.points.shape[0], rules.seed)
        return mixture.to(self.points) @ self.points

    @torch.no_grad()
    def distance_from_start(self) -> float:
        """Mean over latents of 1 - cosine of the decoder row now and at step 0; 0 to 2, 0 where nothing was learned."""
        return float(1 - nn.functional.cosine_similarity(self.W_dec, self.start_decoder(), dim=1).mean())

    @torch.no_grad()
    @override
    def settle(self, acts: Acts, k: int) -> dict[str, Any]:
        return {"distance_from_start": self.distance_from_start()}

    def _centred(self, acts: Acts) -> Acts:
        acts = acts.to(self.W_enc.dtype)
        return acts - self.b_dec if self.rules.subtract_b_dec else acts

    def _collect(self, centred: Acts, dead: Tensor) -> list[Active]:
        gate: Collector = AboveCut(self.b_enc.new_zeros(())) if self.rules.gate == "relu" else TopK(self.rules.k)
        collectors: list[Collector] = [gate]
        if dead.numel():
            collectors.append(TopK(aux_count(self.d_model, dead.numel()), dead))
        with torch.no_grad():
            return collect(PreActivations(centred.detach(), self.W_enc.detach(), self.b_enc.detach()), collectors)

    @torch.no_grad()
    @override
    def encode(self, acts: Acts) -> Codes:
        self.check_width(acts)
        if not acts.shape[0]:
            return codes_of(nothing(self.d_sae, self.b_enc.detach()))
        return codes_of(self._collect(self._centred(acts), acts.new_zeros(0, dtype=torch.int64))[0])

    @torch.no_grad()
    @override
    def decode(self, codes: Codes) -> Acts:
        return decode_codes(codes, self.W_dec, self.b_dec)

    @override
    def losses(self, rows: Acts, objective: Objective, dead: Bool[Tensor, " d_sae"]) -> Losses:
        centred, decoder = self._centred(self.inputs(rows)), self.W_dec
        among = dead.nonzero()[:, 0] if objective.aux > 0 else dead.new_zeros(0, dtype=torch.int64)
        active, *rest = self._collect(centred, among)
        places = place(active)
        values = torch.relu(products_at(places, centred, self.W_enc) + self.b_enc[active.columns])
        residual = self.targets(rows) - combine(places, values, decoder) - self.b_dec
        penalty = values.new_zeros(())
        if self.rules.gate == "relu":
            penalty = objective.sparsity * (values * decoder.norm(dim=1)[active.columns]).sum() / rows.shape[0]
        aux = values.new_zeros(())
        if rest:
            those = place(rest[0])
            tries = products_at(those, centred, self.W_enc[among]) + self.b_enc[among][rest[0].columns]
            aux = explain(those, torch.relu(tries), decoder[among], residual, objective.aux)
        return losses_of(residual, active.columns[values.detach() > 0], self.d_sae, penalty, aux)

    @override
    def dense_losses(self, rows: Acts, objective: Objective, dead: Bool[Tensor, " d_sae"]) -> Losses:
        pre = self._centred(self.inputs(rows)) @ self.W_enc.T + self.b_enc
        codes, penalty = torch.relu(pre), pre.new_zeros(())
        if self.rules.gate == "relu":
            penalty = objective.sparsity * (codes * self.W_dec.norm(dim=1)).sum(1).mean()
        else:
            codes = codes * self._top(pre.detach())
        residual = self.targets(rows) - codes @ self.W_dec - self.b_dec
        aux = dense_aux(pre, residual, self.W_dec, dead, objective.aux)
        return losses_of(residual, codes.detach().nonzero()[:, 1], self.d_sae, penalty, aux)

    def _top(self, pre: Latents) -> Latents:
        ranked = pre.argsort(dim=1, descending=True, stable=True)[:, : self.rules.k]
        return torch.zeros_like(pre).scatter_(1, ranked, 1.0)

    @torch.no_grad()
    @override
    def after_update(self) -> None:
        largest = self.mixture.argmax(1)
        self.mixture.clamp_(min=0)
        gone = (self.mixture.sum(1) == 0).nonzero()[:, 0]
        self.mixture[gone, largest[gone]] = 1
        self.mixture.div_(self.mixture.sum(1, keepdim=True))
        norms = self.relaxation.norm(dim=1, keepdim=True)
        self.relaxation.mul_((self.rules.delta / norms.clamp(min=torch.finfo(norms.dtype).tiny)).clamp(max=1))

    @torch.no_grad()
    @override
    def fold_scale(self, scale: float) -> None:
        self.W_enc.mul_(scale)
        self.b_dec.div_(scale)
        self.log_scale.sub_(math.log(scale))

    @override
    def state(self) -> SAEState:
        return SAEState({n: t.detach() for n, t in self.state_dict().items()}, self.rules._asdict())

    @classmethod
    @override
    def restore(cls, state: SAEState) -> "ArchetypalSAE":
        shape = tuple(state.tensors["mixture"].shape) if "mixture" in state.tensors else (1, 1)
        width = state.tensors["W_enc"].shape[-1] if "W_enc" in state.tensors else 1
        unknown = Archetypes(1, "topk", 1.0, "random", 0, subtract_b_dec=True)
        sae = cls(torch.zeros(shape[1], width), torch.zeros(width), shape[0], unknown)
        tensors = tensors_of(sae, state, *Archetypes._fields)
        rules = Archetypes(**{name: state.settings[name] for name in Archetypes._fields})
        sae = cls(tensors["points"], tensors["b_dec"], shape[0], rules)
        sae.load_state_dict(tensors)
        return sae

    @classmethod
    @override
    def fresh(cls, start: Start) -> "ArchetypalSAE":
        options, d_model = start.options, start.centre.shape[0]
        assert isinstance(options, ArchetypalOptions), "the architecture's own options"
        if options.points_file is not None:
            points = read_points(Path(options.points_file), d_model, options.points_sha256)
        else:
            seed = start.seed if options.points_seed is None else options.points_seed
            points = seeded_points(options.points or start.d_sae, d_model, seed)
        subtract = True if start.subtract_b_dec is None else start.subtract_b_dec
        rules = Archetypes(start.k, options.gate, options.delta, options.mixture, start.seed, subtract)
        return cls(points, start.centre, start.d_sae, rules)

    @classmethod
    @override
    def tiny(cls) -> "ArchetypalSAE":
        centre, source = torch.linspace(-0.2, 0.2, 8), generator(1)
        sae = cls(seeded_points(20, 8, 0), centre, 32, Archetypes(4, "topk", 1.0, "random", 0, subtract_b_dec=True))
        with torch.no_grad():
            sae.b_enc.copy_(0.05 * torch.randn(32, generator=source))
            sae.relaxation.copy_(0.2 * torch.randn(32, 8, generator=source))
            sae.log_scale.fill_(0.1)
        return sae
