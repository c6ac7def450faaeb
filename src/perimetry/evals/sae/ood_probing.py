"""Probing out of distribution: probes that were trained on the rows of a set, judged on rows that were shifted.

Two kinds of shift:

* published: the shifted files of sae-probes for seven sets (fictional characters, an inserted letter, reversed names, three translations,
  one of the GLUE-X sets). The eighth, QNLI, is dropped: its prompts lack the question that they are to be judged by, so that only 167 of
  300 are distinct and 22 stand under both labels. No probe can be right about those.
* own: typing errors, case and word order at one dose (`perimetry.perturb`), on rows of every chosen set that were set aside before
  any probe was trained. The same rows, as they were, give the area in distribution, so the two differ by the shift alone.
"""

import random
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Final, NamedTuple

import torch
from jaxtyping import Float
from pydantic import Field, PositiveInt
from torch import Tensor

from perimetry.assets import read_texts
from perimetry.evals.sae.base import AbstractEvaluation, Metric, Subject
from perimetry.evals.sae.probe_features import Task, encode_rows, judge, require_probed, sparse_task
from perimetry.evals.sae.probe_sets import (
    SETS,
    ProbeData,
    ProbeSet,
    Split,
    labelled,
    last_tokens,
    read_sets,
    reserve,
    split,
)
from perimetry.evals.sae.shelf import Shelf
from perimetry.evals.sae.units import Cell, Units, ratios
from perimetry.measures.logistic import Labelled
from perimetry.perturb import AbstractPerturbation, LetterCase, Typos, WordOrder
from perimetry.storage import hash_json
from perimetry.ui import track

__all__ = ["DROPPED", "OWN", "PUBLISHED", "OodProbing", "read_shifted"]

Areas = Float[Tensor, "seed test"]

PUBLISHED: Final = (
    "5_hist_fig_ismale",
    "6_hist_fig_isamerican",
    "7_hist_fig_ispolitician",
    "66_living-room",
    "67_social-security",
    "73_control-group",
    "87_glue_cola",
)
"""Sets with a published shift that can be judged."""
DROPPED: Final = {
    "90_glue_qnli": "its shifted prompts lack the question: 167 of 300 are distinct, and 22 stand under both labels"
}
"""Sets whose published shift is left out, and why; own shifts of them are measured."""
OWN: Final[dict[str, AbstractPerturbation]] = {"case": LetterCase(), "typos": Typos(), "word_order": WordOrder()}
"""Own shifts: the letters of words in random case, one typing error a word, words that trade places across the prompt."""
GROUP: Final = 8


class _Shifted(NamedTuple):
    """Rows of a set after a shift."""

    shift: str
    rows: ProbeSet


class _World(NamedTuple):
    """One set with all that its probes are judged on."""

    plain: ProbeSet
    held: Tensor
    """Rows of `plain` that are never trained on."""
    shifted: tuple[_Shifted, ...]

    def labels(self) -> list[Tensor]:
        """Of the rows that judge: held ones, then each shift."""
        return [self.plain.labels[self.held], *(s.rows.labels for s in self.shifted)]

    def units(self) -> list[str]:
        """A name for each shift of this set."""
        return [f"{self.plain.name}/{s.shift}" for s in self.shifted]


class OodProbing(AbstractEvaluation):
    """Probes judged on shifted rows, beside the same probes on rows as they were, and beside probes on all of the activation."""

    name: ClassVar[str] = "ood_probing"
    definition: ClassVar[str] = "2"
    metrics: ClassVar[dict[str, Metric]] = {
        "auroc_ood": Metric(
            "AUC", higher=True, text="Area under the ROC curve on shifted rows; the probe saw none such."
        ),
        "auroc_id": Metric(
            "AUC", higher=True, text="The area of the same probe on held-out rows of its own set, as they were."
        ),
        "gap": Metric(
            "AUC",
            higher=True,
            text="Area on shifted rows of the probe on the dictionary minus that of an L2 probe on all of the activation.",
        ),
    }
    source: ClassVar[str] = "sae-probes 0.4.2; arXiv 2502.16681; arXiv 2604.06495; repaired, own shifts added"
    caveat: ClassVar[str] = (
        "Seven published shifts; " + "; ".join(f"{name} is dropped: {why}" for name, why in DROPPED.items()) + "."
    )

    data: ProbeData = ProbeData()
    """Which sets, and how much of them."""
    seeds: int = Field(default=5, ge=1)
    """Draws of the training rows, and with them probes, of each set."""
    ks: tuple[PositiveInt, ...] = Field(default=(16, 128), min_length=1)
    """How many latents a probe may read."""
    dose: float = Field(default=0.3, gt=0, le=1)
    """Share of the words of a prompt that an own shift changes, at least one; a prompt without such words stays as it is."""
    held: int = Field(default=100, ge=8)
    """Rows of each set, half of each class, that are set aside, shifted and judged."""
    shift_seed: int = 0
    """Of the changes that own shifts make."""

    @classmethod
    def tiny(cls) -> "OodProbing":
        """Two draws of two made-up sets."""
        return cls(data=ProbeData(sets=("toy_animals", "toy_moods")), seeds=2, ks=(1, 4), held=40)

    def files(self) -> list[Path]:
        """The shifted twins of sets of the user's own."""
        names = () if self.data.sets == "all" else self.data.sets
        return [twin for name in names if (twin := twin_of(name))]

    def measure(self, subject: Subject, shelf: Shelf, *, progress: bool = False) -> list[Units]:
        """Areas by set, over all its shifts (no case) and by kind of shift: `published`, `case`, `typos`, `word_order`.

        All shifts of a set share its probes, so the set is the unit.

        Errors: those of `require_probed`, `read_sets`, `reserve` and `split`; `UsageError` for shifted rows with other labels.
        """
        require_probed(subject.sae, subject.place.lm, self.ks)
        worlds = self._worlds()
        texts = {w.plain.name: w.plain.texts for w in worlds}
        texts |= {unit: s.rows.texts for w in worlds for unit, s in zip(w.units(), w.shifted, strict=True)}
        acts = last_tokens(texts, subject.place, shelf, self.data, progress=progress)
        found: dict[int, list[Areas]] = {k: [] for k in self.ks}
        raw: list[Areas] = []
        groups = [worlds[i : i + GROUP] for i in range(0, len(worlds), GROUP)]
        for group in track(groups, "probes", len(worlds), progress, len):
            tasks = [task for world in group for task in self._tasks(subject, world, acts)]
            for k in self.ks:
                areas = judge(tasks, "l1", k)
                found[k] += [
                    torch.tensor(areas[i : i + self.seeds], dtype=torch.float64)
                    for i in range(0, len(areas), self.seeds)
                ]
            raw += [self._raw(world, acts, subject, shelf) for world in group]
        return self._units(
            worlds, {k: [a.mean(0) for a in areas] for k, areas in found.items()}, [a.mean(0) for a in raw]
        )

    def _worlds(self) -> list[_World]:
        given = SETS if self.data.sets == "all" else self.data.sets
        out: list[_World] = []
        for name, plain in zip(given, read_sets(self.data), strict=True):
            held = reserve(plain, self.held)
            shifted = [_Shifted(shift, self._perturbed(plain, held, shift)) for shift in OWN]
            published = read_shifted(name, plain) if name not in DROPPED else None
            if published is not None:
                shifted.append(_Shifted("published", published))
            out.append(_World(plain, held, tuple(shifted)))
        return out

    def _perturbed(self, plain: ProbeSet, held: Tensor, shift: str) -> ProbeSet:
        texts = tuple(
            OWN[shift].apply(plain.texts[i], self.dose, random.Random(f"{shift}:{self.shift_seed}:{plain.texts[i]}"))
            for i in held.tolist()
        )
        return plain._replace(texts=texts, labels=plain.labels[held])

    def _splits(self, world: _World) -> list[Split]:
        return [split(world.plain, seed, leaks=self.data.leaks, reserved=world.held) for seed in range(self.seeds)]

    def _tasks(self, subject: Subject, world: _World, acts: Mapping[str, Tensor]) -> list[Task]:
        codes = encode_rows(subject.sae, acts[world.plain.name])
        judged = [codes.select(world.held), *(encode_rows(subject.sae, acts[unit]) for unit in world.units())]
        tests = list(zip(judged, world.labels(), strict=True))
        return [
            sparse_task(codes.select(rows.train), world.plain.labels[rows.train], tests, max(self.ks))
            for rows in self._splits(world)
        ]

    def _raw(self, world: _World, acts: Mapping[str, Tensor], subject: Subject, shelf: Shelf) -> Areas:
        """Areas of the raw probes of a set: no dictionary changes them, so they are kept with the activations."""
        shifted = [[list(s.rows.texts), s.rows.labels.tolist()] for s in world.shifted]
        rows = hash_json([list(world.plain.texts), world.plain.labels.tolist(), shifted])
        key: dict[str, Any] = subject.place.key() | {"what": "raw probes out of distribution", "rows": rows}
        key |= {"seeds": self.seeds, "context": self.data.context, "leaks": self.data.leaks}
        key |= {"definition": self.definition, "held": self.held}
        return shelf.get(key, partial(self._fit_raw, world, acts))["areas"]

    def _fit_raw(self, world: _World, acts: Mapping[str, Tensor]) -> dict[str, Tensor]:
        plain = acts[world.plain.name].float()
        judged = [plain[world.held], *(acts[unit].float() for unit in world.units())]
        tests = tuple(Labelled(rows, labels) for rows, labels in zip(judged, world.labels(), strict=True))
        tasks = [Task(Labelled(plain[s.train], world.plain.labels[s.train]), tests) for s in self._splits(world)]
        return {"areas": torch.tensor(judge(tasks, "l2"), dtype=torch.float64)}

    def _units(self, worlds: Sequence[_World], found: Mapping[int, list[Tensor]], raw: list[Tensor]) -> list[Units]:
        """A unit a set, each of its shifts once: entry 0 of an area is that of the rows as they were, the others those of the shifts."""
        out: list[Units] = []
        for case in ("", *sorted({s.shift for w in worlds for s in w.shifted})):
            out += _of_case(case, worlds, found, raw)
        return out


def _of_case(case: str, worlds: Sequence[_World], found: Mapping[int, list[Tensor]], raw: list[Tensor]) -> list[Units]:
    """The numbers of one kind of shift, or of all of them."""
    every = [(i, [j for j, s in enumerate(w.shifted, 1) if case in ("", s.shift)]) for i, w in enumerate(worlds)]
    at = [(i, shifts) for i, shifts in every if shifts]
    names = [worlds[i].plain.name for i, _ in at]
    counts = torch.tensor([len(shifts) for _, shifts in at], dtype=torch.float64)

    def shifted(cell: Cell, areas: list[Tensor]) -> Units:
        return ratios(cell, names, torch.stack([areas[i][shifts].sum() for i, shifts in at]), counts)

    def plain(cell: Cell, areas: list[Tensor]) -> Units:
        return ratios(cell, names, torch.stack([areas[i][0] for i, _ in at]) * counts, counts)

    out = [shifted(Cell("auroc_ood", case, arm="raw"), raw), plain(Cell("auroc_id", case, arm="raw"), raw)]
    for k, areas in found.items():
        gaps = [mine - theirs for mine, theirs in zip(areas, raw, strict=True)]
        out += [shifted(Cell("auroc_ood", case, k), areas), plain(Cell("auroc_id", case, k), areas)]
        out.append(shifted(Cell("gap", case, k), gaps))
    return out


def twin_of(name: str) -> Path | None:
    """Of a set `x/NAME.jsonl` of the user's own the file `x/ood/NAME_OOD.jsonl`, where there is one."""
    path = Path(name)
    if path.suffix not in (".jsonl", ".gz"):
        return None
    stem = path.name.removesuffix(".gz").removesuffix(".jsonl")
    twins = [path.parent / "ood" / f"{stem}_OOD{ending}" for ending in (".jsonl", ".jsonl.gz")]
    return next((twin for twin in twins if twin.is_file()), None)


def read_shifted(name: str, plain: ProbeSet) -> ProbeSet | None:
    """The published shift of a set, or of `x/NAME.jsonl` the file `x/ood/NAME_OOD.jsonl` where there is one; else None.

    Errors: `UsageError` where its labels are not those of the set.
    """
    if name in PUBLISHED:
        return labelled(plain.name, list(read_texts(f"probe-texts/ood/{name}_OOD")), plain.classes)
    twin = twin_of(name)
    return None if twin is None else labelled(plain.name, list(read_texts(twin)), plain.classes)
