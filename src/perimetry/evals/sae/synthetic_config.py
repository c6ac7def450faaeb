"""What a synthetic world is like: the settings of the published benchmark (SynthSAEBench, arXiv 2602.14687), and smaller ones.

The published preset takes every number from the benchmark's documentation and its code of experiments (16,384 features in 768
dimensions, 128 trees of branching 4 and depth 3, rates from .4 to 5e-4 with exponent .5, magnitudes from 5 to 4 with a spread of
|N(.5, .5)|, correlation of rank 25 and scale .1, 100 steps of orthogonalisation, bias of norm .5). Its rates are compensated: a
child's chance given its parent is its own rate over the parent's, times one plus the expected number of its rivals, at most 1.
That bound is reached almost everywhere in the trees, so that a parent hardly fires without a child, and the rates of children
are below their Zipf rates: `World.rates` are the ones that result where the copula does not tie a child to its kin.

The small preset is the published one with features, trees and dimensions divided by 16, by 16 and by 6: chosen here, before any
dictionary was trained on it. Chosen here, too, are the seeds and the order of the draws, so that no token equals a published one.
"""

from typing import Final

from pydantic import Field, model_validator

from perimetry.config import Config
from perimetry.errors import UnknownName

__all__ = ["WORLDS", "WorldConfig", "world_named"]


class WorldConfig(Config):
    """What a world is like. The defaults are the published benchmark."""

    features: int = Field(default=16_384, ge=2)
    """Number of features."""
    d_model: int = Field(default=768, ge=2)
    """Width of a token."""
    trees: int = Field(default=128, ge=0)
    """Number of trees; their roots are the first, most frequent features."""
    branching: int = Field(default=4, ge=1)
    """Children of each feature of a tree that is not a leaf."""
    depth: int = Field(default=3, ge=1)
    """Levels of a tree below its root."""
    exclusive: bool = True
    """At most one child of a parent fires in a token."""
    scaled_children: bool = True
    """A child's magnitude is multiplied by its parent's over the parent's mean."""
    together: float | None = Field(default=None, gt=0, le=1)
    """Chance that a child would fire given its parent, before its rivals; None derives it from the Zipf rates."""
    rate_first: float = Field(default=0.4, gt=0, lt=1)
    """Rate of the first feature."""
    rate_last: float = Field(default=5e-4, gt=0, lt=1)
    """Rate of the last feature, before the trees take effect."""
    exponent: float = Field(default=0.5, gt=0)
    """Exponent of Zipf's law."""
    magnitude_first: float = Field(default=5.0, gt=0)
    """Mean magnitude of the first feature where it fires; it changes linearly with the number of the feature."""
    magnitude_last: float = Field(default=4.0, gt=0)
    """Mean magnitude of the last feature."""
    spread_mean: float = Field(default=0.5, ge=0)
    """Mean of the normal whose absolute value is a feature's standard deviation of magnitude."""
    spread_sd: float = Field(default=0.5, ge=0)
    """Standard deviation of that normal."""
    correlation_rank: int = Field(default=25, ge=0)
    """Rank of the copula's correlation; 0 makes firing independent but for the trees."""
    correlation_scale: float = Field(default=0.1, ge=0)
    """Standard deviation of its loadings."""
    orthogonal_steps: int = Field(default=100, ge=0)
    """Steps of Adam that push the directions apart."""
    orthogonal_lr: float = Field(default=3e-4, gt=0)
    """Learning rate of those steps."""
    bias_norm: float = Field(default=0.5, ge=0)
    """Length of the vector that every token has in common."""
    seed: int = 0
    """Of directions, loadings, spreads and bias."""

    @model_validator(mode="after")
    def _fits(self) -> "WorldConfig":
        if self.rate_last >= self.rate_first:
            raise ValueError(
                f"rate_last = {self.rate_last} is not below rate_first = {self.rate_first}; give a smaller one"
            )
        if self.in_trees > self.features:
            raise ValueError(
                f"{self.trees} trees of branching {self.branching} and depth {self.depth} want {self.in_trees} features, there "
                f"are {self.features}; give more features, or fewer trees"
            )
        return self

    @property
    def in_trees(self) -> int:
        """Features that belong to a tree.

        >>> WorldConfig().in_trees
        10880
        """
        return sum(self.level_sizes)

    @property
    def level_sizes(self) -> tuple[int, ...]:
        """Features of each level of the trees, from the roots down."""
        return tuple(self.trees * self.branching**level for level in range(self.depth + 1)) if self.trees else ()


WORLDS: Final = {
    "published": WorldConfig(),
    "small": WorldConfig(features=1024, d_model=128, trees=8),
    "tiny": WorldConfig(
        features=48, d_model=16, trees=2, branching=3, depth=2, orthogonal_steps=20, correlation_rank=4
    ),
}
"""Presets by name: the published benchmark, one for two cores, and one for tests."""


def world_named(name: str) -> WorldConfig:
    """A preset. Errors: `UnknownName`."""
    if name not in WORLDS:
        raise UnknownName("synthetic world", name, WORLDS)
    return WORLDS[name]
