"""Training of sparse autoencoders: the recipe, the loop, checkpoints and the log."""

from perimetry.train.loop import train, train_many
from perimetry.train.recipe import TrainConfig
from perimetry.train.run import TrainResult
from perimetry.train.source import Restorable, Source

__all__ = ["Restorable", "Source", "TrainConfig", "TrainResult", "train", "train_many"]
