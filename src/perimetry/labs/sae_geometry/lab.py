"""The lab: which dictionaries of which worlds, what must come out."""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Final, final

from pydantic import Field

from perimetry.labs.base import AbstractLab, Asked, Expectation, Job, LabConfig, Outcome, Panel, Source, own_config
from perimetry.labs.sae_geometry.arms import CLUSTERS, TREES
from perimetry.labs.sae_geometry.expected import ASKED, EXPECTED
from perimetry.labs.sae_geometry.panels import clusters, dimensions, turned
from perimetry.labs.sae_geometry.running import run_clusters, run_held_out, run_tree

__all__ = ["GeometryConfig", "SAEGeometry"]

HELD_OUT: Final = {"held_out_spade": "a_spade", "held_out_relu": "a_relu"}
JUDGED: Final = frozenset(one.arm for one in EXPECTED)
"""Arms that something is expected of; the others are reported."""
WHOLE = tuple(name for name in (*CLUSTERS, *TREES, *HELD_OUT) if not name.startswith("published"))
QUICK = tuple(name for name in WHOLE if name not in ("b_topk_10", "c_batchtopk", "c_matryoshka"))
"""Four and twenty latents lie on both sides of the dimensions of the clusters already; of the two trees nothing is expected."""


class GeometryConfig(LabConfig):
    """Sizes of the lab."""

    seeds: dict[str, int] = Field(default={"dictionary": 3, "reported": 3}, min_length=1)
    """Seeds of each dictionary: of its first weights and of its data; `reported`: of those that nothing is expected of."""
    arms: tuple[str, ...] = QUICK
    """Which dictionaries and which meters, by name."""
    shorten: float = 1.0
    """Share of its steps that a dictionary is trained for."""
    points: int = 12_000
    """Points that it is measured on."""


@final
class SAEGeometry(AbstractLab):
    """What a dictionary can see, given how its encoder projects."""

    name: ClassVar[str] = "sae-geometry"
    title: ClassVar[str] = "Which concepts a dictionary can see is decided by its encoder"
    question: ClassVar[str] = (
        "Every encoder projects onto a set, and that set decides the regions that a latent can stand for: half-spaces, cones, or regions "
        "around prototypes. Which dictionaries see clusters that no half-space cuts out, and clusters of different dimension?"
    )
    source: ClassVar[Source] = Source(
        "Projecting Assumptions: The Duality Between Sparse Autoencoders and Concept Geometry; the tree: From Flat to Hierarchical",
        "S. S. R. Hindupur, E. S. Lubana, T. Fel, D. Ba; the tree: V. Costa and others",
        "arXiv 2503.01822 and 2506.03093, both NeurIPS 2025",
    )
    presets: ClassVar[Mapping[str, LabConfig]] = {
        "quick": GeometryConfig(seeds={"dictionary": 3, "reported": 1}),
        "paper": GeometryConfig(arms=(*WHOLE, *(n for n in (*CLUSTERS, *TREES) if n.startswith("published")))),
        "tiny": GeometryConfig(
            seeds={"dictionary": 1, "reported": 1},
            judged="controls",
            arms=(
                "a_spade",
                "a_relu",
                "a_softmax",
                "b_spade",
                "c_matching_pursuit",
                "held_out_spade",
            ),
            shorten=0.05,
            points=2000,
        ),
    }
    expected: ClassVar[tuple[Expectation, ...]] = EXPECTED
    asked: ClassVar[tuple[Asked, ...]] = ASKED

    def jobs(self, config: LabConfig) -> list[Job]:
        """A dictionary under a seed each."""
        own = own_config(config, GeometryConfig, self.name)
        kinds = {arm: "dictionary" if arm in JUDGED else "reported" for arm in own.arms}
        return [Job(arm, seed) for arm in own.arms for seed in range(own.seeds[kinds[arm]])]

    def run(self, config: LabConfig, job: Job, folder: Path, *, progress: bool = False) -> Outcome:  # noqa: ARG002
        """Train one dictionary and measure it; each takes seconds, so nothing is kept half way."""
        own = own_config(config, GeometryConfig, self.name)
        if job.arm in CLUSTERS:
            return run_clusters(CLUSTERS[job.arm], job.seed, own.shorten, own.points)
        if job.arm in TREES:
            return run_tree(TREES[job.arm], job.seed, own.shorten)
        return run_held_out(CLUSTERS[HELD_OUT[job.arm]], job.seed, own.shorten, own.points)

    def panels(self, config: LabConfig, found: Mapping[Job, Outcome]) -> list[Panel]:  # noqa: ARG002
        """Clusters, dimensions, a turned support."""
        return [clusters(found), dimensions(found), turned(found)]
