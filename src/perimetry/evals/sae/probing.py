"""Sparse probing: how well a few latents of a dictionary tell the classes of 113 labelled sets apart."""

from functools import partial
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from pydantic import Field, PositiveInt
from torch import Tensor

from perimetry.evals.sae.base import AbstractEvaluation, Metric, Subject
from perimetry.evals.sae.probe_features import Task, encode_rows, judge, require_probed, sparse_task
from perimetry.evals.sae.probe_sets import ProbeData, ProbeSet, last_tokens, read_sets, split
from perimetry.evals.sae.shelf import Shelf
from perimetry.evals.sae.units import Cell, Units, means
from perimetry.measures.logistic import Labelled
from perimetry.sae.base import AbstractSAE
from perimetry.storage import hash_json
from perimetry.ui import track

__all__ = ["Probing"]

GROUP = 8
"""Sets whose probes are fitted together."""


class Probing(AbstractEvaluation):
    """k-sparse probes on the labelled sets; `probe_sets` says what follows sae-probes and what does not."""

    name: ClassVar[str] = "probing"
    definition: ClassVar[str] = "2"
    metrics: ClassVar[dict[str, Metric]] = {
        "auroc": Metric(
            "AUC",
            higher=True,
            text="Area under the ROC curve of a logistic probe on rows that did not train it, mean over draws of the training rows, "
            "then over labelled sets.",
        )
    }
    source: ClassVar[str] = "sae-probes 0.4.2; Kantamneni et al., arXiv 2502.16681"
    caveat: ClassVar[str] = (
        "Probes are fitted to convergence, where the published ones stop after 1,000 steps of saga; rows and prompt lengths are capped by "
        "the settings; test prompts that also train are left out unless `leaks`."
    )

    data: ProbeData = ProbeData()
    """Which sets, and how much of them."""
    seeds: int = Field(default=5, ge=1)
    """Draws of the training rows, and with them probes, of each set."""
    ks: tuple[PositiveInt, ...] = Field(default=(1, 2, 5, 16, 128), min_length=1)
    """How many latents a probe may read."""

    @classmethod
    def tiny(cls) -> "Probing":
        """Two draws of two made-up sets."""
        return cls(data=ProbeData(sets=("toy_animals", "toy_moods")), seeds=2, ks=(1, 4))

    def measure(self, subject: Subject, shelf: Shelf, *, progress: bool = False) -> list[Units]:
        """Areas by set: arm `sae` for each k, arm `raw` for an L2 probe on all of the activation.

        Errors: those of `require_probed`, `read_sets` and `split`.
        """
        require_probed(subject.sae, subject.place.lm, self.ks)
        sets = read_sets(self.data)
        acts = last_tokens({s.name: s.texts for s in sets}, subject.place, shelf, self.data, progress=progress)
        found: dict[int, list[float]] = {k: [] for k in self.ks}
        raw: list[float] = []
        groups = [sets[i : i + GROUP] for i in range(0, len(sets), GROUP)]
        for group in track(groups, "probes", len(sets), progress, len):
            tasks = [task for s in group for task in self.tasks(subject.sae, s, acts[s.name])]
            for k in self.ks:
                areas = torch.tensor(judge(tasks, "l1", k), dtype=torch.float64).reshape(len(group), self.seeds)
                found[k] += areas.mean(1).tolist()
            raw += [float(self._raw(s, acts[s.name], subject, shelf).mean()) for s in group]
        names = [s.name for s in sets]
        out = [
            means(Cell("auroc", k=k), names, torch.tensor(values, dtype=torch.float64)) for k, values in found.items()
        ]
        return [*out, means(Cell("auroc", arm="raw"), names, torch.tensor(raw, dtype=torch.float64))]

    def tasks(self, sae: AbstractSAE, found: ProbeSet, acts: Float[Tensor, "row d_model"]) -> list[Task]:
        """What the probes of a set read, one a draw: the best latents of its training rows. Errors: as `split`."""
        codes, out = encode_rows(sae, acts), []
        for seed in range(self.seeds):
            rows = split(found, seed, leaks=self.data.leaks)
            tests = [(codes.select(rows.test), found.labels[rows.test])]
            out.append(sparse_task(codes.select(rows.train), found.labels[rows.train], tests, max(self.ks)))
        return out

    def _raw(
        self, found: ProbeSet, acts: Float[Tensor, "row d_model"], subject: Subject, shelf: Shelf
    ) -> Float[Tensor, " seed"]:
        """Areas of the raw probes of a set: no dictionary changes them, so they are kept with the activations."""
        rows = hash_json([list(found.texts), found.labels.tolist()])
        key: dict[str, Any] = subject.place.key() | {"what": "raw probes", "rows": rows, "seeds": self.seeds}
        key |= {"context": self.data.context, "leaks": self.data.leaks, "definition": self.definition}
        return shelf.get(key, partial(self._fit_raw, found, acts))["areas"]

    def _fit_raw(self, found: ProbeSet, acts: Float[Tensor, "row d_model"]) -> dict[str, Tensor]:
        rows, tasks = acts.float(), []
        for seed in range(self.seeds):
            part = split(found, seed, leaks=self.data.leaks)
            test = Labelled(rows[part.test], found.labels[part.test])
            tasks.append(Task(Labelled(rows[part.train], found.labels[part.train]), (test,)))
        return {"areas": torch.tensor(judge(tasks, "l2"), dtype=torch.float64)[:, 0]}
