"""Does breaking co-occurrence reduce absorption? A causal test on features that are known.

In the planted world a general feature (a parent) fires often alone and often with one of its specific ones (children), which
never fire without it. Dictionaries are trained on tokens of it as they are, and on tokens from which firing features were
dropped before mixing, as masking drops words before the model reads them; all are judged on whole tokens. The arms:

* `none`: nothing is dropped.
* `masked`: every firing feature is dropped with the given probability: the analogue of masking.
* `broken`: only features that fire together with their own child or parent are, with the same probability.
* `control`: as many features as in `broken`, batch by batch, but such as have neither child nor parent: the same loss of
  features and the same computation, and co-occurrence stays as it is. (Parents that fire alone are not dropped: that would raise it.)

Absorption is counted against the known features: at a token where parent and child fire, the latent nearest to the parent is
silent, while the latent nearest to the child is active, has a cosine of at least .025 with the parent's direction, and writes
at least .4 of the parent's true magnitude along it. These are the thresholds of the first-letter task (arXiv 2409.14507,
SAEBench), with the known direction and magnitude in the place of a probe and its projection.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple, final

import torch
from jaxtyping import Bool, Float
from pydantic import Field, model_validator
from torch import Tensor

from perimetry.axes import Acts, Decoder
from perimetry.config import Config, build
from perimetry.errors import ConfigError, TooFewSamples
from perimetry.evals.sae.base import Metric
from perimetry.evals.sae.ground_truth import drawn_world, flat, training_folder, unflat
from perimetry.evals.sae.judging import Sums, entries_of, sums_of, units_of
from perimetry.evals.sae.matching import best, cosines, look
from perimetry.evals.sae.shelf import Shelf
from perimetry.evals.sae.synthetic import Fired, World, WorldSource, mixed_seed
from perimetry.evals.sae.synthetic_config import WorldConfig
from perimetry.evals.sae.truth_rows import TruthRow, differences, numbers
from perimetry.evals.sae.units import Cell, Units, ratios
from perimetry.runtime import generator
from perimetry.sae.base import AbstractSAE, Codes
from perimetry.train import TrainConfig, train

__all__ = ["ARMS", "CAUSAL", "PLANTED", "Absorbed", "CausalTest", "ThinnedSource", "absorbed", "causal_rows", "thin"]

PLANTED: Final = WorldConfig(
    features=192,
    d_model=96,
    trees=24,
    branching=3,
    depth=1,
    together=0.25,
    rate_first=0.15,
    rate_last=0.01,
    correlation_rank=0,
)
"""24 general features with 3 specific ones each and 96 that stand alone; a general one fires with a specific one in more than
half of its tokens. Chosen before any dictionary was trained on it."""
ARMS: Final = ("none", "masked", "broken", "control")
CAUSAL: Final[dict[str, Metric]] = {
    "absorption": Metric(
        unit="share",
        higher=False,
        text="Share of the tokens of a parent at which a child's latent stands in for its own.",
    ),
    "silence": Metric(
        unit="share", higher=False, text="Share of the tokens of a parent at which its latent is silent."
    ),
}
"""What the causal test measures beside `JUDGED`; its units are the parents."""


class Absorbed(NamedTuple):
    """Tokens, by feature; features without children have 0 everywhere."""

    absorbed: Float[Tensor, " feature"]
    """Where the feature fires, its latent is silent, and a child's latent carries it."""
    silent: Float[Tensor, " feature"]
    """Where the feature fires and its latent is silent."""
    fires: Float[Tensor, " feature"]
    """Where the feature fires."""


def absorbed(
    codes: Codes, fired: Fired, world: World, decoder: Decoder, *, cosine: float = 0.025, projection: float = 0.4
) -> Absorbed:
    """Count absorption in the codes of tokens whose true features are `fired`. Errors: `WidthMismatch`, `NonFinite`."""
    nearest = best(cosines(decoder, world.directions)).latent
    active, features = entries_of(codes), world.config.features
    order = (active.tokens * active.width + active.columns).argsort()
    keys = (active.tokens * active.width + active.columns)[order]
    values = codes.values[codes.values != 0][order]
    is_parent = torch.zeros(features, dtype=torch.bool)
    is_parent[world.parents[world.parents >= 0]] = True
    general = fired.keep(is_parent[fired.features])
    speaks, _ = look(general.tokens * active.width + nearest[general.features], keys)

    specific = fired.keep(world.parents[fired.features] >= 0)
    parents = world.parents[specific.features]
    # Parents and their tokens rise together, as entries lie by token, then by feature.
    there, which = look(specific.tokens * features + parents, general.tokens * features + general.features)
    latent = nearest[specific.features]
    heard, place = look(specific.tokens * active.width + latent, keys)
    rows, directions = decoder.detach()[latent], world.directions[parents]
    along = (rows * directions).sum(1)
    said = values[place] if values.numel() else torch.zeros_like(along)
    carried = torch.where(heard, said, 0) * along
    near = along >= cosine * rows.norm(dim=1)
    true = general.values[which] if general.values.numel() else torch.zeros_like(along)
    hit = there & heard & near & (latent != nearest[parents]) & (carried >= projection * true)
    hit = hit & ~(speaks[which] if speaks.numel() else torch.zeros_like(hit))
    # Several children may carry one parent at one token.
    taken = torch.zeros(general.tokens.shape[0], dtype=torch.bool)
    taken[which[hit]] = True

    def count(mask: Bool[Tensor, " entry"]) -> Float[Tensor, " feature"]:
        return torch.bincount(general.features[mask], minlength=features).double()

    return Absorbed(count(taken), count(~speaks), count(torch.ones_like(speaks)))


def thin(world: World, fired: Fired, arm: str, drop: float, seed: int) -> Fired:
    """What an arm leaves of the firing features. Errors: `ConfigError` for an unknown arm, or too few features to drop."""
    if arm == "none":
        return fired
    if arm not in ARMS:
        raise ConfigError(f"{arm!r} is no arm of the causal test; give one of {', '.join(ARMS)}")
    chance = torch.rand(fired.tokens.shape[0], generator=generator(seed))
    if arm == "masked":
        return fired.keep(chance >= drop)
    above = world.parents[fired.features]
    has_parent = above >= 0
    with_child = torch.unique(fired.tokens[has_parent] * world.config.features + above[has_parent])
    together = has_parent | look(fired.tokens * world.config.features + fired.features, with_child)[0]
    out = together & (chance < drop)
    if arm == "control":
        alone = ~has_parent
        alone &= ~torch.isin(fired.features, world.parents[world.parents >= 0])
        others = alone.nonzero()[:, 0]
        wanted = int(out.sum())
        if wanted > others.numel():
            raise ConfigError(
                f"{wanted} features are to be dropped that have no parent and no child, {others.numel()} such fire; lower drop, "
                "or give a world with more features outside the trees"
            )
        out = torch.zeros_like(out)
        out[others[chance[others].argsort(stable=True)[:wanted]]] = True
    return fired.keep(~out)


@final
class ThinnedSource:
    """Tokens of a world as an arm trains on them; the tokens of a step are the same in every arm, but for what is dropped."""

    def __init__(self, world: World, arm: str, drop: float) -> None:
        self.inner, self.arm, self.drop = WorldSource(world), arm, drop

    def batches(self, batch: int, seed: int = 0, start_step: int = 0) -> Iterator[Acts]:
        """Batches from step `start_step` on."""
        step = start_step
        while True:
            fired = self.inner.fired(batch, seed, step)
            kept = thin(self.inner.world, fired, self.arm, self.drop, mixed_seed("drop", seed, step))
            yield self.inner.world.mix(kept)
            step += 1


class CausalTest(Config):
    """The causal test and its settings."""

    world: WorldConfig = PLANTED
    """Where co-occurrence is planted."""
    arms: tuple[str, ...] = ARMS
    """Which arms are trained; `none` is what the others are compared with."""
    drop: float = Field(default=0.3, gt=0, lt=1)
    """Probability that a feature is dropped; .3 is that of the published masking."""
    architecture: str = "batchtopk"
    """Name in `ARCHITECTURES`."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Its options."""
    width: int = Field(default=192, ge=1)
    """Latents; the default is one for every feature, so that width is no reason to absorb."""
    k: int | None = Field(default=None, ge=1)
    """Active latents of a token; None is the expected number of true features, of whole tokens, in every arm."""
    seeds: tuple[int, ...] = Field(default=tuple(range(10)), min_length=1)
    """Dictionaries and tokens. With three, absorption of the control moves more between seeds than what is asked for."""
    tokens: int = Field(default=512 * 600, ge=1)
    """Training tokens of each dictionary."""
    batch: int = Field(default=512, ge=1)
    """Tokens of a step."""
    lr: float = Field(default=3e-3, gt=0)
    """Peak learning rate."""
    blocks: int = Field(default=16, ge=2)
    """Held-out blocks of 1,024 whole tokens."""
    cosine: float = Field(default=0.025, ge=0, le=1)
    """Least cosine of a child's latent with the parent's direction."""
    projection: float = Field(default=0.4, gt=0)
    """Least share of the parent's magnitude that it carries."""

    @model_validator(mode="after")
    def _fits(self) -> "CausalTest":
        unknown = [arm for arm in self.arms if arm not in ARMS]
        if unknown or "none" not in self.arms or len(set(self.arms)) < len(self.arms):
            raise ValueError(f"arms {list(self.arms)}; give `none` and others of {', '.join(ARMS)}, each once")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds {list(self.seeds)} come twice; give different ones")
        if not self.world.trees:
            raise ValueError("the world has no trees, so that nothing can be absorbed; give one with trees")
        return self

    def config_of(self, seed: int) -> TrainConfig:
        """How a dictionary is trained, whatever the arm. Errors: `ConfigError`."""
        k = self.k or max(1, round(drawn_world(self.world).expected_l0()))
        fit = min(8192, self.tokens)
        shared = {"seed": seed, "data_seed": seed, "fit_tokens": fit, "threshold_tokens": fit, "k": k}
        own = self.model_dump(include={"architecture", "options", "width", "tokens", "batch", "lr"})
        return build(TrainConfig, {**own, **shared}, f"training of {self.architecture} on the planted world")

    def sums(self, sae: AbstractSAE, seed: int) -> dict[str, Sums]:
        """What a dictionary does to whole tokens: `CAUSAL` by feature, and all of `JUDGED`. Errors: as `judge`."""
        world = drawn_world(self.world)
        found = sums_of(sae, world, blocks=self.blocks, seed=seed)
        counts = [
            absorbed(
                sae.encode(world.mix(fired)),
                fired,
                world,
                sae.W_dec,
                cosine=self.cosine,
                projection=self.projection,
            )
            for fired in world.held_out(self.blocks, seed)
        ]
        total = Absorbed(*[torch.stack(column).sum(0) for column in zip(*counts, strict=True)])
        return {"absorption": Sums(total.absorbed, total.fires), "silence": Sums(total.silent, total.fires)} | found

    def units(self, sums: dict[str, Sums]) -> list[Units]:
        """Units of `sums`: parents for `CAUSAL`, features or blocks for the rest. Errors: `TooFewSamples`."""
        rest = {name: value for name, value in sums.items() if name not in CAUSAL}
        parents = drawn_world(self.world).parents
        rows = torch.unique(parents[parents >= 0])
        found: list[Units] = []
        for name in CAUSAL:
            if not float(sums[name].under[rows].sum()):
                raise TooFewSamples("no parent fires in the held-out tokens; give more blocks, or higher rates")
            names = [str(int(row)) for row in rows]
            found.append(ratios(Cell(name), names, sums[name].over[rows], sums[name].under[rows]))
        return found + units_of(rest)


def _of_arm(test: CausalTest, arm: str, seed: int, shelf: Shelf, *, progress: bool) -> dict[str, Sums]:
    own = test.model_dump(mode="json", exclude={"arms", "seeds", "drop"} if arm == "none" else {"arms", "seeds"})
    key = {"evaluation": "cooccurrence", "definition": "2", "arm": arm, "seed": seed, "test": own}

    def make() -> dict[str, Tensor]:
        source = ThinnedSource(drawn_world(test.world), arm, test.drop)
        done = train(test.config_of(seed), source, folder / "sae", progress=progress)
        # A count that was settled on thinned tokens would be another count on whole ones, in some arms only.
        whole = torch.cat([source.inner.world.mix(block) for block in source.inner.world.held_out(8, -1 - seed)])
        done.sae.settle(whole, test.config_of(seed).k)
        return flat(test.sums(done.sae, seed))

    with training_folder(shelf, key) as folder:
        return unflat(shelf.get(key, make))


def causal_rows(
    test: CausalTest | None = None, *, shelf: Shelf | None = None, progress: bool = False
) -> list[TruthRow]:
    """Every number of every arm, and every arm less `none`, and `broken` less `control`; by seed and over all seeds.

    Over seeds a unit's sums are added, and intervals hold units and seeds. A difference below 0 in `absorption` says that the arm
    reduces it. Killed, the same call with the same shelf goes on. Errors: `ConfigError`, and those of training.
    """
    test, shelf = test or CausalTest(), shelf or Shelf()
    found = {
        (arm, seed): _of_arm(test, arm, seed, shelf, progress=progress) for seed in test.seeds for arm in test.arms
    }
    cases: Sequence[int | None] = (None, *test.seeds)
    pairs = [(arm, "none") for arm in test.arms if arm != "none"]
    pairs += [("broken", "control")] if {"broken", "control"} <= set(test.arms) else []
    rows: list[TruthRow] = []
    for case in cases:
        seeds = test.seeds if case is None else (case,)
        of = {arm: [test.units(found[arm, seed]) for seed in seeds] for arm in test.arms}
        for arm, units in of.items():
            rows += numbers("planted", arm, case, units)
        for one, two in pairs:
            rows += differences("planted", (one, two), case, of[one], of[two])
    return rows
