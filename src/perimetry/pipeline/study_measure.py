"""What a study measures: suites of one split of the documents, and the AUROC of every score on them."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from perimetry.activations.model import LanguageModel
from perimetry.activations.prompts import SURROGATES
from perimetry.assets import Document
from perimetry.evals.arms import Arm, arm_row, make_arm
from perimetry.evals.contrasts import ALL, Contrast
from perimetry.evals.rows import Row
from perimetry.evals.scores import ScoreTable, checked
from perimetry.pipeline.bench_parts import score_prompts
from perimetry.pipeline.bench_suites import at_doses
from perimetry.pipeline.study_config import StudyConfig
from perimetry.pipeline.study_saes import Cell, Quality, StudySAE
from perimetry.runtime import generator
from perimetry.shift import DETECTORS
from perimetry.shift.meter import Meter
from perimetry.shift.tables import all_score_names
from perimetry.suites import SUITES, Suite, SuiteInputs

__all__ = ["OVER_DOSES", "StudyRow", "Table", "arms_of", "score_suites", "study_suites", "validation_rows"]

OVER_DOSES = 0.0
"""Stands for the mean over the doses of a suite."""
BOOTSTRAP_SEED = 0
CONFIDENCE = 0.95


class StudyRow(NamedTuple):
    """One measurement of a study."""

    split: str
    """`validation` or `test`."""
    cell: Cell
    """Layer and SAE that `detector` reads."""
    measured: Row
    """The measurement itself."""
    fvu: float | None = None
    """Fraction of variance that the SAE leaves unexplained; None where no SAE is read."""
    l0: float | None = None
    """Mean active count of the SAE; None where no SAE is read."""

    def to_json(self) -> dict[str, Any]:
        """Plain values, flat."""
        about = {"split": self.split, **self.cell._asdict(), "fvu": self.fvu, "l0": self.l0}
        return about | self.measured.to_json()

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> "StudyRow":
        """The row that `to_json` gave."""
        cell = Cell(**{name: found[name] for name in Cell._fields})
        measured = Row(**{name: found[name] for name in Row._fields})
        return cls(found["split"], cell, measured, found["fvu"], found["l0"])


class Table(NamedTuple):
    """Scores of one SAE on one suite."""

    suite: Suite
    """The cases."""
    scores: ScoreTable
    """A score a case."""


def study_suites(
    config: StudyConfig, lm: LanguageModel, documents: Sequence[Document], *, n: int, seed: int
) -> list[Suite]:
    """The suites of a study, made of the clean documents of one split. Errors: those of the suites."""

    def length(text: str) -> int:
        tokens = lm.plain_tokenizer.encode(SURROGATES.sub("\ufffd", text), add_special_tokens=False).ids
        return min(len(tokens), lm.context)

    inputs = SuiteInputs(documents, (), (), length, lm.context - 8, config.words, n, seed)
    return [at_doses(SUITES[name](inputs), config.doses) for name in config.suites]


def score_suites(
    meters: Sequence[Meter], suites: Sequence[Suite], batch_tokens: int, *, progress: bool
) -> list[list[Table]]:
    """For each meter of a layer, its scores on each suite: one run of the model for all of them. Errors: `NonFinite`."""
    kinds: dict[str, Any] = {n: "baseline" if _class(n).baseline else "concept" for n in all_score_names()}
    cases = [(f"{suite.name}/{case.id}", case.text) for suite in suites for case in suite.cases]
    prompts = meters[0].extractor.prepare(*zip(*cases, strict=True))
    scored = score_prompts(meters, prompts, f"layer {meters[0].extractor.tap.layer}", batch_tokens, progress)
    found: list[list[Table]] = []
    for table in scored.tables:
        first, mine = 0, list[Table]()
        for suite in suites:
            own = {name: values[first : first + len(suite.cases)] for name, values in table.items()}
            mine.append(Table(suite, checked(ScoreTable(own, kinds), suite)))
            first += len(suite.cases)
        found.append(mine)
    return found


def _class(score: str) -> Any:
    return DETECTORS[score.partition(".")[0]]


def _doses(suite: Suite) -> list[Contrast]:
    """All the shifted cases of each dose, whatever their family, against all the clean ones."""
    clean = tuple(i for i, case in enumerate(suite.cases) if not case.shifted)
    doses = sorted({case.dose for case in suite.cases if case.shifted})
    return [
        Contrast(
            ALL, dose, ALL, clean, tuple(i for i, case in enumerate(suite.cases) if case.shifted and case.dose == dose)
        )
        for dose in doses
    ]


def arms_of(table: Table, names: Sequence[str], seed: int, resamples: int) -> list[Arm]:
    """One arm a dose of a suite, for some of its scores.

    All arms of a suite, under every SAE, draw the same passages: their draws may be averaged and subtracted.
    """
    bare = ScoreTable({name: table.scores.scores[name] for name in names}, table.scores.kinds)
    return [
        make_arm(
            table.suite,
            contrast,
            bare,
            generator(BOOTSTRAP_SEED),
            seed=seed,
            resamples=resamples,
            confidence=CONFIDENCE,
        )
        for contrast in _doses(table.suite)
    ]


def validation_rows(
    saes: Sequence[StudySAE],
    tables: Sequence[Sequence[Table]],
    qualities: Sequence[Quality],
    resamples: int,
    *,
    alone: bool,
) -> list[StudyRow]:
    """AUROC of every score on every dose of the validation suites, under every SAE.

    What reads no SAE is measured once a layer, where `alone` says so, under the first of them.
    """
    rows: list[StudyRow] = []
    for i, (sae, mine, quality) in enumerate(zip(saes, tables, qualities, strict=True)):
        bare = Cell(sae.cell.layer, "", 0)
        for table in mine:
            names = [n for n in table.scores.scores if _class(n).needs_sae or (alone and not i)]
            for arm in arms_of(table, names, sae.seed, resamples):
                for name in names:
                    row = arm_row(arm, name, table.scores.kinds[name], "auroc", arm.areas[name], arm.draws[name])
                    if _class(name).needs_sae:
                        rows.append(StudyRow("validation", sae.cell, row, quality.fvu, quality.l0))
                    else:
                        rows.append(StudyRow("validation", bare, row._replace(seed=0)))
    return rows
