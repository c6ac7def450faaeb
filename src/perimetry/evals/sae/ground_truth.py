"""Whether a recipe finds the features of a world where they are known: a fresh dictionary is trained there, then judged.

What is judged is the recipe of a subject, its architecture with its options, not its weights: they belong to another model. The
same dictionary on the same world comes out of the same settings and seeds. As in the published benchmark the dictionary has a
quarter as many latents as there are features, and its count is the expected number of true features among as many of the most
frequent ones as it has latents (25 of 34 there).
"""

import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, final

from pydantic import Field, model_validator
from torch import Tensor
from typing_extensions import override

from perimetry.config import build
from perimetry.errors import Incompatible
from perimetry.evals.sae.base import AbstractEvaluation, Metric, Subject
from perimetry.evals.sae.judging import JUDGED, Sums, merged, require_judgeable, sums_of, units_of
from perimetry.evals.sae.probe_ceiling import probe_ceiling
from perimetry.evals.sae.shelf import Shelf
from perimetry.evals.sae.synthetic import World, WorldSource
from perimetry.evals.sae.synthetic_config import WorldConfig, world_named
from perimetry.evals.sae.units import Units
from perimetry.sae import ARCHITECTURES
from perimetry.sae.base import AbstractSAE
from perimetry.storage import hash_json
from perimetry.train import TrainConfig, train_many

__all__ = [
    "LENGTHS",
    "GroundTruth",
    "Length",
    "Recipe",
    "drawn_world",
    "flat",
    "recipe_of",
    "training_folder",
    "unflat",
]


class Length(NamedTuple):
    """How long dictionaries are trained on a preset, and how they are held out."""

    tokens: int
    """Training tokens."""
    batch: int
    """Tokens of a step."""
    lr: float
    """Peak learning rate."""
    blocks: int
    """Held-out blocks of 1,024 tokens."""
    probe_steps: int
    """Steps of the probes that the ceiling is made with."""


LENGTHS = {
    "published": Length(200_000_000, 1024, 3e-4, 512, 4000),
    "small": Length(2**20, 1024, 3e-3, 64, 400),
    "tiny": Length(128 * 40, 128, 1e-2, 2, 40),
}
"""Preset -> length. That of `published` is the published one; that of `small` has, of the rates 1e-3 and 3e-3, the
one with the higher explained variance of BatchTopK on seed 0 (.816 and .836); the F1 of Matryoshka at both was known by then."""


class Recipe(NamedTuple):
    """What is judged."""

    architecture: str
    """Name in `ARCHITECTURES`."""
    options: Mapping[str, Any]
    """Its options, plain."""
    k: int | None = None
    """Its own count; None where it has none."""


def recipe_of(sae: AbstractSAE) -> Recipe:
    """The recipe that made a dictionary, as far as the dictionary tells. Errors: `Incompatible` as `require_judgeable`."""
    require_judgeable(sae)
    settings = sae.state().settings
    known = ARCHITECTURES[sae.architecture].options_type.model_fields
    options = {name: value for name, value in settings.items() if name in known and name != "max_iterations"}
    k = settings.get("k", settings.get("max_iterations"))
    return Recipe(sae.architecture, options, None if k is None else int(k))


def drawn_world(config: WorldConfig) -> World:
    """The world of a config; making the published one takes minutes, so the last two are kept."""
    return _drawn(config.model_dump_json())


@lru_cache(maxsize=2)
def _drawn(config: str) -> World:
    return World(WorldConfig.model_validate_json(config))


@final
class GroundTruth(AbstractEvaluation):
    """Dictionaries of the subject's recipe, one a seed, trained and judged on a world of known features."""

    name: ClassVar[str] = "ground_truth"
    definition: ClassVar[str] = "1"
    metrics: ClassVar[dict[str, Metric]] = JUDGED
    source: ClassVar[str] = "SynthSAEBench, arXiv 2602.14687; F1, MCC, uniqueness and explained variance as there"
    caveat: ClassVar[str] = (
        "judges the recipe on a synthetic world, not the weights; the small preset has more superposition than the published "
        "one (mean largest cosine .28 against .15) and a two-hundredth of its training tokens"
    )

    preset: str = "small"
    """World and length of training: `small`, `published` or `tiny`."""
    seeds: tuple[int, ...] = Field(default=(0, 1, 2), min_length=1)
    """One dictionary is trained for each, on tokens of the same seed."""
    width: int | None = Field(default=None, ge=1)
    """Latents; None is a quarter of the features."""
    k: int | None = Field(default=None, ge=1)
    """Active latents of a token that training aims at; None is the expected number of features among the most frequent."""
    own_k: bool = False
    """Aim at the subject's own count instead."""
    tokens: int | None = Field(default=None, ge=1)
    """Training tokens; None is the preset's."""
    lr: float | None = Field(default=None, gt=0)
    """Peak learning rate; None is the preset's."""
    blocks: int | None = Field(default=None, ge=2)
    """Held-out blocks of 1,024 tokens; None is the preset's."""
    held_seed: int = 0
    """Of the held-out tokens and of the probes' ones."""
    ceiling: bool = True
    """Also fit linear probes with the truth; their numbers have the arm `probe`."""

    @model_validator(mode="after")
    def _fits(self) -> "GroundTruth":
        world_named(self.preset)
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds {list(self.seeds)} come twice; give different ones")
        if self.own_k and self.k is not None:
            raise ValueError(f"k = {self.k} and own_k are two counts; leave one out")
        return self

    @classmethod
    @override
    def tiny(cls) -> "GroundTruth":
        return cls(preset="tiny", seeds=(0, 1))

    @property
    def world(self) -> World:
        """The world that is trained on."""
        return drawn_world(world_named(self.preset))

    @property
    def latents(self) -> int:
        """Latents of the dictionaries."""
        return self.width or max(1, world_named(self.preset).features // 4)

    def config_of(self, recipe: Recipe, seed: int) -> TrainConfig:
        """How a recipe is trained here. Errors: `ConfigError`, `Incompatible` where its own count is wanted and unknown."""
        length, k = LENGTHS[self.preset], self.k
        if self.own_k:
            k = recipe.k
            if k is None:
                raise Incompatible(
                    f"{recipe.architecture} does not say which count it was trained for; give k, or leave out own_k"
                )
        tokens = self.tokens or length.tokens
        values: dict[str, Any] = {
            "architecture": recipe.architecture,
            "options": dict(recipe.options),
            "width": self.latents,
            "k": k or max(1, round(self.world.expected_l0(min(self.latents, self.world.config.features)))),
            "tokens": tokens,
            "batch": length.batch,
            "lr": self.lr or length.lr,
            "seed": seed,
            "data_seed": seed,
            "fit_tokens": min(8192, tokens),
            "threshold_tokens": min(32_768, tokens),
        }
        return build(TrainConfig, values, f"training of {recipe.architecture} on the {self.preset} world")

    def of_seed(
        self, recipes: Sequence[Recipe], seed: int, shelf: Shelf, *, progress: bool = False
    ) -> list[dict[str, Sums]]:
        """The sums of each recipe, all trained on the same batches, which are drawn once; killed, the same call goes on."""
        configs = [self.config_of(recipe, seed) for recipe in recipes]
        blocks = self.blocks or LENGTHS[self.preset].blocks
        key = self._key("dictionaries", configs=[c.model_dump(mode="json") for c in configs], blocks=blocks)

        def make() -> dict[str, Tensor]:
            outs = [folder / f"{i}-{config.architecture}" for i, config in enumerate(configs)]
            done = train_many(configs, WorldSource(self.world), outs, progress=progress)
            found = [sums_of(one.sae, self.world, blocks=blocks, seed=self.held_seed) for one in done]
            return {f"{i}.{name}": value for i, sums in enumerate(found) for name, value in flat(sums).items()}

        with training_folder(shelf, key) as folder:
            tensors = shelf.get(key, make)
        return [unflat(tensors, f"{i}.") for i in range(len(configs))]

    def probes(self, shelf: Shelf) -> dict[str, Sums]:
        """The sums of the linear probes."""
        length = LENGTHS[self.preset]
        blocks, count = self.blocks or length.blocks, min(self.latents, self.world.config.features)

        def make() -> dict[str, Tensor]:
            found = probe_ceiling(self.world, count, steps=length.probe_steps, blocks=blocks, seed=self.held_seed)
            return flat(found)

        return unflat(shelf.get(self._key("probes", count=count, steps=length.probe_steps, blocks=blocks), make))

    def _key(self, what: str, **more: Any) -> dict[str, Any]:
        world = world_named(self.preset).model_dump(mode="json")
        return {"evaluation": self.name, "definition": self.definition, "of": what, "world": world, **more} | {
            "held_seed": self.held_seed
        }

    @override
    def measure(self, subject: Subject, shelf: Shelf, *, progress: bool = False) -> list[Units]:
        recipe = recipe_of(subject.sae)
        by_seed = [self.of_seed([recipe], seed, shelf, progress=progress)[0] for seed in self.seeds]
        units = units_of(merged(by_seed))
        for seed, sums in zip(self.seeds, by_seed, strict=True):
            units += units_of(sums, case=f"seed {seed}")
        return units + (units_of(self.probes(shelf), arm="probe") if self.ceiling else [])


@contextmanager
def training_folder(shelf: Shelf, key: Mapping[str, Any]) -> Iterator[Path]:
    """Where trainings lie while they last: beside the shelf, where a killed one goes on, or in a temporary place."""
    if shelf.folder is None:
        with tempfile.TemporaryDirectory() as place:
            yield Path(place)
        return
    folder = shelf.folder / "training" / hash_json(dict(key))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def flat(sums: Mapping[str, Sums]) -> dict[str, Tensor]:
    """Sums as a shelf keeps them: each with memory of its own, though several metrics have the same one below."""
    return {f"{name}.{part}": getattr(value, part).clone() for name, value in sums.items() for part in Sums._fields}


def unflat(tensors: Mapping[str, Tensor], prefix: str = "") -> dict[str, Sums]:
    """The sums that `flat` was given."""
    names = [
        name.removeprefix(prefix)[: -len(".over")]
        for name in tensors
        if name.startswith(prefix) and name.endswith(".over")
    ]
    return {name: Sums(*[tensors[f"{prefix}{name}.{part}"] for part in Sums._fields]) for name in sorted(names)}
