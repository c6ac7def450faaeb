"""What all dial suites share: clean passages and their twins, corrupted by more and more of one thing."""

import random
from collections.abc import Mapping, Sequence

from perimetry.assets.documents import Document
from perimetry.perturb import AbstractPerturbation
from perimetry.perturb.base import share
from perimetry.suites.base import Case, Length, Suite, check_suite, compare_lengths

__all__ = ["dial_suite"]

CLEAN = "clean"


def dial_suite(
    name: str,
    description: str,
    documents: Sequence[Document],
    dials: Mapping[str, AbstractPerturbation],
    doses: Sequence[float],
    *,
    length: Length,
    seed: int,
) -> Suite:
    """Each document as it is and, for each dial and dose, corrupted; all of them one pair.

    The generator of a twin is seeded by `seed`, the dial and the document, not by the dose, so that doses nest. The
    matching says how the token lengths of twins and originals compare at each dose (their words are the same in number),
    how many twins could not be changed, and the mean share of the eligible units that was changed: at least one of
    each text, hence more than a small dose asks for in a short text.
    """
    cases = [Case(f"{doc.id}/clean", doc.text, doc.id, CLEAN, 0.0, shifted=False) for doc in documents]
    rows: list[dict[str, object]] = []
    for family, dial in dials.items():
        able = [units for units in (dial.eligible(doc.text) for doc in documents) if units]
        for dose in sorted(doses):
            twins = [
                Case(
                    f"{doc.id}/{family}/{dose:g}",
                    dial.apply(doc.text, dose, random.Random(f"{seed}:{family}:{doc.id}")),
                    doc.id,
                    family,
                    dose,
                    shifted=True,
                )
                for doc in documents
            ]
            cases += twins
            unchanged = sum(twin.text == doc.text for twin, doc in zip(twins, documents, strict=True))
            lengths = compare_lengths([t.text for t in twins], [d.text for d in documents], length) if twins else {}
            realised = sum(share(dose, units) / units for units in able) / len(able) if able else 0.0
            row = {"family": family, "dose": dose, "realised_dose": realised, "unchanged": unchanged}
            rows.append({**row, **lengths})
    matching = {"negatives": "the same passages, uncorrupted", "doses": rows}
    return check_suite(Suite(name, description, tuple(cases), matching))
