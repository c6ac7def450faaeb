"""What a check of edits found, as flat rows, and in a word for each edit and ring."""

import datetime
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from perimetry import __version__
from perimetry.activations.model import LanguageModel
from perimetry.editing.health import METRICS, Finding, HealthLimits, flag_of
from perimetry.editing.moments import KeyMoments
from perimetry.editing.probes import Ring, UsableRing
from perimetry.editing.requests import EditRequest
from perimetry.editing.rings import Shattering
from perimetry.measures.stats import mean_interval
from perimetry.pipeline.edit_check_config import EditCheckConfig
from perimetry.runtime import fingerprint

__all__ = ["ALL", "EditCheckRow", "Rings", "about_edit", "results_of", "rows_of"]

ALL = "all"
Rings = dict[str, tuple[Ring, UsableRing]]
Looked = Sequence[tuple[EditRequest, list[Finding]]]


class EditCheckRow(NamedTuple):
    """One number."""

    edit: str
    """What was edited, in words; `all` for the mean over the edits of a family."""
    family: str
    """Kind of fact."""
    arm: str
    """`edit`, or `drawn` for updates of random direction with the same norm, mean over draws."""
    metric: str
    """Name in `METRICS`."""
    probe: str
    """Ring, facts or text that was looked at."""
    before: float
    """Of the model as given."""
    after: float
    """Of the edited one."""
    estimate: float
    """What changed."""
    low: float
    """Lower end of its interval."""
    high: float
    """Upper end."""
    n: int
    """Texts, facts, draws or edits that it is a mean of; 1 where it is one number."""
    seed: int
    """Of what was drawn."""
    method: str
    """How the interval was made."""


def rows_of(looked: Looked, seed: int) -> list[EditCheckRow]:
    """Every number of every edit and of the drawn updates beside it, then the means over the edits of each family."""
    rows: list[EditCheckRow] = []
    for request, found in looked:
        for one in found:
            about = (request.said, request.family)
            box = one.interval
            ends = (box.low, box.high, box.n, box.method) if box else (one.change, one.change, 1, "one number")
            rows.append(
                EditCheckRow(
                    *about, "edit", one.metric, one.probe, one.before, one.after, one.change, *ends[:3], seed, ends[3]
                )
            )
            if one.drawn:
                base = one.before if one.metric != "size" else 0.0
                rows.append(
                    _mean(
                        (*about, "drawn", one.metric, one.probe),
                        [base] * len(one.drawn),
                        one.drawn,
                        seed,
                        "t over draws",
                    )
                )
    return rows + _over_edits(rows, seed)


def _mean(
    about: tuple[str, str, str, str, str], before: Sequence[float], changes: Sequence[float], seed: int, method: str
) -> EditCheckRow:
    change, first = sum(changes) / len(changes), sum(before) / len(before)
    if len(changes) < 2:
        return EditCheckRow(*about, first, first + change, change, change, change, 1, seed, "one number")
    box = mean_interval(torch.tensor(changes, dtype=torch.float64))
    return EditCheckRow(*about, first, first + change, change, box.low, box.high, box.n, seed, method)


def _over_edits(rows: Sequence[EditCheckRow], seed: int) -> list[EditCheckRow]:
    groups: dict[tuple[str, str, str, str], list[EditCheckRow]] = {}
    for row in rows:
        groups.setdefault((row.family, row.arm, row.metric, row.probe), []).append(row)
    return [
        _mean((ALL, *key), [r.before for r in own], [r.estimate for r in own], seed, "t over edits")
        for key, own in groups.items()
        if len(own) > 1
    ]


def about_edit(request: EditRequest, found: Sequence[Finding], limits: HealthLimits) -> dict[str, Any]:
    """An edit in words: how large, whether it took, and what each ring shows."""
    by = {(f.metric, f.probe): f for f in found}
    rings: list[dict[str, Any]] = []
    for ring in dict.fromkeys(f.probe for f in found if f.metric == "ring_r"):
        moved = Shattering(*(by[m, ring].after for m in ("ring_r", "ring_r_scaled", "ring_scale")))
        times = by["ring_r", ring].times
        rings.append(
            {
                **{"ring": ring, "own": ring == request.family, "flag": flag_of(moved, limits)},
                **{"times_drawn": times if times == times else None, "by_size": moved.by_size},
            }
        )
    return {
        **{"edit": request.said, "family": request.family, "rings": rings},
        **{"size": by["size", "the edited blocks"].after, "p_target": by["p_target", "the edited prompt"].after},
    }


def results_of(
    lm: LanguageModel, config: EditCheckConfig, moments: KeyMoments, looked: Looked, rings: Rings
) -> dict[str, Any]:
    """What the file of results holds, but for the command."""
    where = ", ".join(map(str, moments.matrices))
    return {
        "kind": "edit-check",
        "title": f"What an edit does to {lm.name}",
        "subtitle": f"{config.editor.method} on block {where}, {len(looked)} edits one at a time, {config.draws} drawn updates beside each",
        "version": __version__,
        "hardware": fingerprint(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "rows": [row._asdict() for row in rows_of(looked, config.seed)],
        "edits": [about_edit(request, found, config.limits) for request, found in looked],
        "rings": [
            {
                "ring": name,
                "words": len(ring.words),
                "layers": list(found.layers),
                "orders": list(found.orders),
                "refusal": found.refusal,
            }
            for name, (ring, found) in rings.items()
        ],
        "metrics": {name: measure._asdict() for name, measure in METRICS.items()},
        "configuration": config.model_dump(mode="json")
        | {"model": lm.name, "revision": lm.revision, "tokens": moments.tokens},
    }
