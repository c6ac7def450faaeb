"""Targeted probe perturbation: whether the latents of one class can be taken out without harm to other classes.

After `sae_bench.evals.scr_and_tpp` of SAEBench 0.6 (Karvonen et al., arXiv 2503.09532; Marks et al., arXiv 2403.19647). What
differs: the classes are sets of sae-probes, in groups of one-versus-rest sets of the same source, in place of two data sets of a
hub; activations are of the last token, not the mean over tokens; probes are logistic with an L2 penalty, solved to the end,
not some epochs of a stochastic solver with L1; accuracy is balanced over the two classes; intervals are over classes.
"""

from collections.abc import Mapping
from typing import ClassVar, Final, TypeVar, final

import torch
from pydantic import Field
from torch import Tensor

from perimetry.errors import ConfigError
from perimetry.evals.sae.base import AbstractEvaluation, Metric, Subject
from perimetry.evals.sae.held_out import require_readable
from perimetry.evals.sae.probe_ablation import (
    LinearProbe,
    Rows,
    attribution,
    balanced_accuracy,
    fit_probe,
    require_counts,
    strongest,
    without,
)
from perimetry.evals.sae.probe_sets import ProbeData, last_tokens, read_set, split
from perimetry.evals.sae.shelf import Shelf
from perimetry.evals.sae.units import Cell, Units, means

__all__ = ["GROUPS", "UNRELIABLE", "TargetedProbePerturbation"]

GROUPS: Final = (
    ("161_agnews_0", "162_agnews_1", "163_agnews_2"),
    ("158_code_C", "159_code_Python", "160_code_HTML"),
    ("154_athlete_sport_football", "155_athlete_sport_basketball", "156_athlete_sport_baseball"),
    ("148_twt_emotion_worry", "149_twt_emotion_happiness", "150_twt_emotion_sadness"),
)
"""One-versus-rest sets of the same source."""
UNRELIABLE: Final = (
    "Computed for comparability only: arXiv 2605.18229 finds that TPP and SCR should not be used to judge dictionaries."
)
T = TypeVar("T", bound="TargetedProbePerturbation")


class _Class:
    """A set with its probe, and what its test rows are."""

    def __init__(self, name: str, train: Rows, test: Rows, c: float) -> None:
        self.name, self.train, self.test = name, train, test
        self.probe: LinearProbe = fit_probe(train, c)
        self.clean = balanced_accuracy(self.probe, test.acts, test.labels)

    def drop(self, acts: torch.Tensor) -> float:
        """What its probe loses on its test rows when they become `acts`."""
        return self.clean - balanced_accuracy(self.probe, acts, self.test.labels)


@final
class TargetedProbePerturbation(AbstractEvaluation):
    """Accuracy that a class loses when its latents are taken out, less what the other classes of its group lose."""

    name: ClassVar[str] = "tpp"
    definition: ClassVar[str] = "1"
    source: ClassVar[str] = "SAEBench 0.6, arXiv 2503.09532, on sets of sae-probes"
    caveat: ClassVar[str] = UNRELIABLE
    reliable: ClassVar[bool] = False
    metrics: ClassVar[dict[str, Metric]] = {
        "tpp": Metric(unit="share", higher=True, text="`intended` less `unintended`, mean over classes."),
        "intended": Metric(unit="share", higher=True, text="Balanced accuracy that a class's own probe loses."),
        "unintended": Metric(
            unit="share", higher=False, text="Balanced accuracy that the other probes of its group lose, mean."
        ),
        "accuracy": Metric(
            unit="share", higher=None, text="Balanced accuracy of the probes on raw activations (arm `raw`)."
        ),
    }

    groups: tuple[tuple[str, ...], ...] = GROUPS
    """Sets (names in `SETS`, or `.jsonl` files) whose classes are held against one another, two or more in a group."""
    ablate: tuple[int, ...] = (2, 5, 10, 20, 50)
    """How many latents of a class are taken out."""
    rows: int = Field(default=1200, ge=40)
    """Most rows of a set, training and test together."""
    context: int = Field(default=128, ge=2)
    """Most tokens of a prompt; of a longer one the end is read."""
    c: float = Field(default=0.1, gt=0)
    """One over the penalty of the probes."""
    seed: int = 0
    """Of the training rows."""

    @classmethod
    def tiny(cls: type[T]) -> T:
        """One group of the shortest prompts."""
        return cls(groups=GROUPS[2:3], rows=60, context=32, ablate=(1, 4))

    def measure(self, subject: Subject, shelf: Shelf, *, progress: bool = False) -> list[Units]:
        """Units are classes, `k` is the number of latents taken out.

        Errors: `ConfigError` for a group of one or a set named twice, those of `read_set`, `split` and `last_tokens`.
        """
        require_readable(subject)
        require_counts(self.ablate, subject.sae)
        names = [name for group in self.groups for name in group]
        if not names or min(map(len, self.groups)) < 2 or len(set(names)) != len(names):
            raise ConfigError(
                f"groups = {[list(group) for group in self.groups]}: wanted groups of two sets or more, each set once; a class is held "
                "against the others of its group"
            )
        classes = self._classes(names, subject, shelf, progress)
        units = [classes[name].name for name in names]
        raw = torch.tensor([classes[name].clean for name in names], dtype=torch.float64)
        found = [means(Cell("accuracy", arm="raw"), units, raw)]
        effects = {name: attribution(subject.sae, one.train, one.probe, "positive") for name, one in classes.items()}
        for k in self.ablate:
            latents = {name: strongest(effect, k) for name, effect in effects.items()}
            drops = [
                self._drops(subject, name, group, classes, latents[name]) for group in self.groups for name in group
            ]
            own, others = torch.tensor(drops, dtype=torch.float64).unbind(1)
            values = {"tpp": own - others, "intended": own, "unintended": others}
            found += [means(Cell(metric, k=k), units, value) for metric, value in values.items()]
        return found

    def _classes(self, names: list[str], subject: Subject, shelf: Shelf, progress: bool) -> dict[str, _Class]:
        data = ProbeData(sets=tuple(names), rows=self.rows, context=self.context)
        sets = {name: read_set(name, self.rows) for name in names}
        texts = {name: found.texts for name, found in sets.items()}
        acts = last_tokens(texts, subject.place, shelf, data, progress=progress)
        made: dict[str, _Class] = {}
        for name, found in sets.items():
            train, test = split(found, self.seed)
            rows = acts[name].float().cpu()
            made[name] = _Class(
                found.name, Rows(rows[train], found.labels[train]), Rows(rows[test], found.labels[test]), self.c
            )
        return made

    def _drops(
        self, subject: Subject, name: str, group: tuple[str, ...], classes: Mapping[str, _Class], latents: Tensor
    ) -> tuple[float, float]:
        drops = {other: classes[other].drop(without(subject.sae, classes[other].test.acts, latents)) for other in group}
        rest = [drop for other, drop in drops.items() if other != name]
        return drops[name], sum(rest) / len(rest)
