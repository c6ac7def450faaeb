"""Training of sparse autoencoders: the recipe, the loop, checkpoints and the log."""

from perimetry.train.causal import Rest
from perimetry.train.loop import train, train_jobs, train_many
from perimetry.train.recipe import TrainConfig
from perimetry.train.run import Job, TrainResult
from perimetry.train.source import Restorable, Source, View

__all__ = [
    "Job",
    "Rest",
    "Restorable",
    "Source",
    "TrainConfig",
    "TrainResult",
    "View",
    "train",
    "train_jobs",
    "train_many",
]
