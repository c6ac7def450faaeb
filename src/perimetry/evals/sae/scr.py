"""Spurious correlation removal: whether a biased probe can be mended by taking out the latents of what it should not heed.

After `sae_bench.evals.scr_and_tpp` of SAEBench 0.6 (Karvonen et al., arXiv 2503.09532; Marks et al., arXiv 2403.19647). Prompts that
stand in two sets of sae-probes have two labels: people who are male and politicians, say. A probe is trained for the one label
where both agree; it is tested where they are independent. What differs: these sets in place of two of a hub, the last token in
place of the mean over tokens, probes solved to the end, both directions of a pair rather than the one of the larger gap, and one
ratio of sums over pairs and draws rather than a mean of ratios, in which a small gap counts as much as a large one.
"""

from typing import ClassVar, Final, NamedTuple, TypeVar, final

import torch
from jaxtyping import Bool, Int
from pydantic import Field
from torch import Tensor

from perimetry.axes import Acts
from perimetry.errors import Incompatible, TooFewSamples
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
from perimetry.evals.sae.probe_sets import ProbeData, last_tokens, read_set
from perimetry.evals.sae.shelf import Shelf
from perimetry.evals.sae.tpp import UNRELIABLE
from perimetry.evals.sae.units import Cell, Units, means, ratios
from perimetry.runtime import generator
from perimetry.sae.base import AbstractSAE

__all__ = ["PAIRS", "SpuriousCorrelationRemoval"]

PAIRS: Final = (
    ("5_hist_fig_ismale", "7_hist_fig_ispolitician"),
    ("56_wikidatasex_or_gender", "57_wikidatais_alive"),
)
"""Sets that share prompts in all four combinations of their labels."""
LEAST: Final = 8
S = TypeVar("S", bound="SpuriousCorrelationRemoval")


class _Shared(NamedTuple):
    """Prompts with two labels."""

    names: tuple[str, str]
    """Of the two sets."""
    texts: tuple[str, ...]
    first: Bool[Tensor, " row"]
    second: Bool[Tensor, " row"]


class _Draw(NamedTuple):
    """Rows of one draw; all sides are balanced in the label that they are for."""

    biased: Int[Tensor, " row"]
    """Both labels agree."""
    clean: Int[Tensor, " row"]
    """Each combination equally often."""
    test: Int[Tensor, " row"]
    """Likewise, and none of it trains."""


class _Gaps(NamedTuple):
    """Balanced accuracies on rows where the labels are independent."""

    biased: float
    clean: float
    mended: tuple[float, ...]
    """Of the biased probe, by the number of latents taken out."""


@final
class SpuriousCorrelationRemoval(AbstractEvaluation):
    """Share of the accuracy that a spurious correlation costs a probe which comes back without the latents of the spurious label."""

    name: ClassVar[str] = "scr"
    definition: ClassVar[str] = "1"
    source: ClassVar[str] = "SAEBench 0.6, arXiv 2503.09532, on prompts that two sets of sae-probes share"
    caveat: ClassVar[str] = UNRELIABLE
    reliable: ClassVar[bool] = False
    metrics: ClassVar[dict[str, Metric]] = {
        "scr": Metric(
            unit="share", higher=True, text="Gain of the biased probe over what an unbiased one has more than it."
        ),
        "accuracy": Metric(
            unit="share",
            higher=None,
            text="Balanced accuracy where the labels are independent: arms `biased` and `clean` on raw activations, `sae` with the "
            "biased probe and `k` latents taken out.",
        ),
    }

    pairs: tuple[tuple[str, str], ...] = Field(default=PAIRS, min_length=1)
    """Two sets (names in `SETS`, or `.jsonl` files) that share prompts; each is the spurious label of the other in turn."""
    ablate: tuple[int, ...] = (2, 5, 10, 20, 50)
    """How many latents of the spurious label are taken out."""
    rows: int = Field(default=5000, ge=40)
    """Most rows of a set that are searched for shared prompts."""
    context: int = Field(default=128, ge=2)
    """Most tokens of a prompt; of a longer one the end is read."""
    c: float = Field(default=0.1, gt=0)
    """One over the penalty of the probes."""
    draws: int = Field(default=3, ge=1)
    """Divisions into training and test rows that are added up."""
    seed: int = 0
    """Of the divisions."""

    @classmethod
    def tiny(cls: type[S]) -> S:
        """One pair of short prompts."""
        return cls(pairs=PAIRS[:1], context=32, ablate=(1, 4), draws=1)

    def measure(self, subject: Subject, shelf: Shelf, *, progress: bool = False) -> list[Units]:
        """Units are pairs in each direction, named `intended < spurious`; `k` is the number of latents taken out.

        Errors: `TooFewSamples` where a combination of labels is too rare, `Incompatible` where the biased probes are no worse than
        the clean ones, those of `read_set` and `last_tokens`.
        """
        require_readable(subject)
        require_counts(self.ablate, subject.sae)
        shared = {f"{one} & {two}": self._shared(one, two) for one, two in self.pairs}
        data = ProbeData(sets=tuple(name for pair in self.pairs for name in pair), rows=self.rows, context=self.context)
        texts = {name: found.texts for name, found in shared.items()}
        acts = last_tokens(texts, subject.place, shelf, data, progress=progress)
        gaps: dict[str, list[_Gaps]] = {}
        for name, found in shared.items():
            (one, two), rows = found.names, acts[name].float().cpu()
            draws = [_draw(found, self.seed + i) for i in range(self.draws)]
            gaps[f"{one} < {two}"] = [self._gaps(subject.sae, rows, found.first, found.second, d) for d in draws]
            gaps[f"{two} < {one}"] = [self._gaps(subject.sae, rows, found.second, found.first, d) for d in draws]
        return self._units(gaps)

    def _shared(self, one: str, two: str) -> _Shared:
        first, second = read_set(one, self.rows), read_set(two, self.rows)
        labels = dict(zip(second.texts, second.labels.tolist(), strict=True))
        own = dict(zip(first.texts, first.labels.tolist(), strict=True))
        texts = tuple(text for text in own if text in labels)
        both = [(own[text], labels[text]) for text in texts]
        sides = [torch.tensor([pair[i] for pair in both], dtype=torch.bool) for i in (0, 1)]
        return _Shared((first.name, second.name), texts, *sides)

    def _gaps(
        self, sae: AbstractSAE, acts: Acts, intended: Bool[Tensor, " row"], spurious: Bool[Tensor, " row"], draw: _Draw
    ) -> _Gaps:
        biased = fit_probe(Rows(acts[draw.biased], intended[draw.biased]), self.c)
        clean = fit_probe(Rows(acts[draw.clean], intended[draw.clean]), self.c)
        apart = Rows(acts[draw.clean], spurious[draw.clean])
        effects = attribution(sae, apart, fit_probe(apart, self.c), "both")
        test, wanted = acts[draw.test], intended[draw.test]

        def after(probe: LinearProbe, k: int) -> float:
            return balanced_accuracy(probe, without(sae, test, strongest(effects, k)), wanted)

        return _Gaps(
            balanced_accuracy(biased, test, wanted),
            balanced_accuracy(clean, test, wanted),
            tuple(after(biased, k) for k in self.ablate),
        )

    def _units(self, gaps: dict[str, list[_Gaps]]) -> list[Units]:
        names = list(gaps)
        biased = torch.tensor([[g.biased for g in found] for found in gaps.values()], dtype=torch.float64).mean(1)
        clean = torch.tensor([[g.clean for g in found] for found in gaps.values()], dtype=torch.float64).mean(1)
        mended = torch.tensor([[g.mended for g in found] for found in gaps.values()], dtype=torch.float64).mean(1)
        if not float((clean - biased).sum()) > 0:
            raise Incompatible(
                f"probes that were trained on biased rows reach {float(biased.mean()):.3f} where the labels are independent, clean ones "
                f"{float(clean.mean()):.3f}: no correlation was learned that could be removed; give another layer or other pairs"
            )
        found = [
            means(Cell("accuracy", arm="biased"), names, biased),
            means(Cell("accuracy", arm="clean"), names, clean),
        ]
        for i, k in enumerate(self.ablate):
            found.append(ratios(Cell("scr", k=k), names, mended[:, i] - biased, clean - biased))
            found.append(means(Cell("accuracy", k=k), names, mended[:, i]))
        return found


def _draw(shared: _Shared, seed: int) -> _Draw:
    cells = {
        (a, b): ((shared.first == a) & (shared.second == b)).nonzero()[:, 0]
        for a in (False, True)
        for b in (False, True)
    }
    least = min(map(len, cells.values()))
    if least < LEAST:
        raise TooFewSamples(
            f"{' and '.join(shared.names)} share {len(shared.texts)} prompts, and the rarest combination of labels has {least}; wanted {LEAST} "
            "of each; give sets that share more, or raise rows"
        )
    draw = generator(seed)
    mixed = {labels: rows[torch.randperm(len(rows), generator=draw)] for labels, rows in cells.items()}
    test, train = least // 2, least - least // 2
    # Twice as many of each agreeing combination, so that both probes have as many rows.
    most = min(2 * train, *(len(mixed[a, a]) - test for a in (False, True)))
    return _Draw(
        torch.cat([mixed[a, a][test : test + most] for a in (False, True)]),
        torch.cat([rows[test : test + train] for rows in mixed.values()]),
        torch.cat([rows[:test] for rows in mixed.values()]),
    )
