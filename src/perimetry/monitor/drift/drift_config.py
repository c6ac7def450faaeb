"""How the traffic is held against the calibration."""

from pydantic import Field

from perimetry.config import Config

__all__ = ["DriftConfig"]


class DriftConfig(Config):
    """How the traffic is held against the calibration."""

    window: int = Field(default=500, ge=50, le=10_000)
    """Prompts of a window; windows do not overlap."""
    level: float = Field(default=0.0025, gt=0, le=0.05)
    """Chance that one test calls a window drifted which is not. Two tests can: with .0025 that is one window in 200 together."""
    permutations: int = Field(default=2_000, ge=99, le=100_000)
    """Relabellings of a test at most. 1 / (permutations + 1) is the smallest p-value that it can give."""
    auroc_gap: float = Field(default=0.05, ge=0, lt=0.5)
    """The ranks have moved where the AUROC of the window against the calibration is at least this far from .5 ..."""
    wasserstein: float = Field(default=0.2, ge=0)
    """... or the scores by at least this much (Wasserstein-1 distance, in robust standard deviations)."""
    witness: float = Field(default=0.6, ge=0.5, lt=1)
    """The summaries have moved where the witness of the maximum mean discrepancy tells held-out prompts apart with this AUROC."""
    mix: float = Field(default=0.1, ge=0, lt=1)
    """The mix of groups has moved where this share of the prompts is in other groups (total variation). It never alarms."""
    points: int = Field(default=1_000, ge=50, le=5_000)
    """Calibration prompts that the summaries are compared with."""
    cusum: float = Field(default=9.5, gt=0)
    """The cumulative sum alarms from here on: a false alarm in about 5 % of runs of 10,000 prompts."""
    persist_every: int = Field(default=100, ge=1)
    """Prompts after which the state is written down, at the latest."""
    queue: int = Field(default=10_000, ge=1)
    """Prompts that wait at most; further ones are left out and counted."""
    follow_s: float = Field(default=1.0, gt=0)
    """Seconds between two looks into a PostgreSQL that several replicas share."""
    settle_s: float = Field(default=5.0, ge=0)
    """Age in seconds from which the events of such a database are taken, so that none is written before one that was taken already."""
    seed: int = 0
    """Of relabellings and of the calibration prompts that are drawn."""
