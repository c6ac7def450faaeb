"""Readings of a meter over several layers, made comparable with its clean prompts.

The joint score of a reading is a rank among clean prompts, and that of a clean prompt would be a rank among the others of its
kind: not alike even where nothing drifted. For drift the joint score is therefore the largest of the taps' scores in clean
standard deviations, measured on prompts apart from the calibration: a fixed function of each prompt, so that the tests of
`drift` stay as exact as with one layer.
"""

from typing import NamedTuple

import torch

from perimetry.axes import PerPrompt
from perimetry.shift.conformal import Calibration, conformal_p
from perimetry.shift.joint import JointCalibration
from perimetry.shift.reading import Reading

__all__ = ["MadeAlike", "TapScores", "make_alike"]


class TapScores(NamedTuple):
    """The main score of each clean prompt in each tap."""

    names: tuple[str, ...]
    """The taps, in the order of the columns."""
    joint: JointCalibration
    """Their scores, and the groups of like length."""


class MadeAlike(NamedTuple):
    """Clean prompts and readings under one fixed score."""

    calibration: Calibration
    """Joint scores of the clean prompts, by group."""
    clean: PerPrompt
    """The same, prompt by prompt."""
    readings: list[Reading]
    """The readings with the joint score, the p-value and the flag that this gives."""


def make_alike(taps: TapScores, main: str, readings: list[Reading], alpha: float) -> MadeAlike:
    """Joint score and alarms of clean prompts and of readings, by the same function.

    An alarm is then a reading whose joint score at most a share `alpha` of the clean prompts of its group reach.
    """
    joint = taps.joint
    new = torch.tensor([[(r.taps or {})[name].score for name in taps.names] for r in readings])
    clean, seen = joint.yardstick.height(joint.scores), joint.yardstick.height(new)
    members = joint.groups.names(joint.lengths)
    table = {g: clean[torch.tensor([m == g for m in members])].sort().values for g in dict.fromkeys(members)}
    table["pooled"] = clean.sort().values
    made: list[Reading] = []
    for reading, score in zip(readings, seen, strict=True):
        group = "pooled" if reading.fallback else reading.group
        p = float(conformal_p(table[group], score[None])[0]) if group in table else reading.p_value
        new_scores = reading.scores | {main: float(score)}
        made.append(reading._replace(score=float(score), p_value=p, flagged=p <= alpha, scores=new_scores))
    return MadeAlike(Calibration(joint.groups, {main: table}, joint.minimum, frozenset()), clean, made)
