"""The small real model under the same check: months, capitals and weekdays, beside drawn updates of the same norm."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch

from perimetry.activations.model import LanguageModel, load_language_model
from perimetry.config import build
from perimetry.editing.known import known_edits
from perimetry.errors import AssetError, MissingFile
from perimetry.labs.base import Curve, Measured, Outcome
from perimetry.measures.stats import spearman
from perimetry.pipeline.edit_check import run_edit_check
from perimetry.pipeline.edit_check_config import EditCheckConfig
from perimetry.runtime import RuntimeConfig, start

__all__ = ["SCALES", "RealSizes", "numbers_of_check", "run_real", "run_scaled"]

SCALES: Final = (0.5, 1.0, 2.0, 4.0)
"""How many times an update is added."""
LARGEST: Final = SCALES[-1]
ABSENT: Final = Outcome([Measured("weights at hand", 0.0)], {})
Rows = Sequence[Mapping[str, Any]]


class RealSizes(NamedTuple):
    """Sizes."""

    model: str
    """Asset name, local folder or hub id."""
    edits: int
    """Edits: a month, a capital, a weekday, and again."""
    draws: int
    """Drawn updates beside each."""


def _loaded(model: str) -> LanguageModel | None:
    try:
        return load_language_model(model, start(RuntimeConfig.model_validate({"dtype": "float32"})))
    except (AssetError, MissingFile):
        return None


def _checked(lm: LanguageModel, seed: int, folder: Path, more: Mapping[str, Any]) -> Rows:
    """A check of some edits. Its seed draws the text, the prefixes and the drawn updates."""
    config = build(EditCheckConfig, {"seed": seed, **more}, "configuration of the check")
    return run_edit_check(lm, config, folder)["rows"]


def run_real(sizes: RealSizes, seed: int, folder: Path) -> Outcome:
    """Edits one at a time, by r-ROME; says so where the weights cannot be had."""
    lm = _loaded(sizes.model)
    if lm is None:
        return ABSENT
    rows = _checked(lm, seed, folder / "check", {"edits": sizes.edits, "draws": sizes.draws})
    return Outcome([Measured("weights at hand", 1.0), *numbers_of_check(rows)], {})


def numbers_of_check(rows: Rows) -> list[Measured]:
    """Each change, mean over the edits of a family; and how much more a family's own ring moved than under drawn updates."""
    groups: dict[tuple[str, str, str, str], list[float]] = {}
    for row in rows:
        if row["edit"] != "all":
            key = (row["family"], row["arm"], row["metric"], row["probe"])
            groups.setdefault(key, []).append(float(row["estimate"]))
    means = {key: sum(own) / len(own) for key, own in groups.items()}
    found = [
        Measured(
            f"change of {metric}" if metric in ("nll", "siblings", "p_target") else metric,
            value,
            f"{family}, {arm}, {probe}",
            n=len(groups[family, arm, metric, probe]),
        )
        for (family, arm, metric, probe), value in means.items()
    ]
    for (family, arm, metric, probe), value in means.items():
        usual = means.get((family, "drawn", metric, probe), 0.0)
        if (arm, metric) == ("edit", "ring_r") and usual > 0:
            found.append(Measured("R over that of drawn updates", value / usual, f"{family}, {probe}"))
    return found


def run_scaled(model: str, seed: int, folder: Path) -> Outcome:
    """One month, its update added several times."""
    lm = _loaded(model)
    if lm is None:
        return ABSENT
    request = known_edits(1)[0].model_dump()
    found = {
        scale: {
            (m.metric, m.case): m.value
            for m in numbers_of_check(
                _checked(lm, seed, folder / f"scale-{scale:g}", {"request": request, "editor": {"scale": scale}})
            )
        }
        for scale in SCALES
    }
    ring = [own["ring_r", "months, edit, months"] for own in found.values()]
    drawn = [own["ring_r", "months, drawn, months"] for own in found.values()]
    last = found[LARGEST]
    text = {arm: last["change of nll", f"months, {arm}, ordinary text"] for arm in ("edit", "drawn")}
    measured = [
        Measured("weights at hand", 1.0),
        *(Measured("ring_r", r, f"months, {scale:g} times") for scale, r in zip(SCALES, ring, strict=True)),
        *(Measured("change of nll", value, f"{arm}, {LARGEST:g} times") for arm, value in text.items()),
        Measured("change of nll of a drawn update, less that of the edit", text["drawn"] - text["edit"]),
        Measured("R follows the scale", spearman(torch.tensor(ring), torch.tensor(SCALES)).estimate),
    ]
    xs = list(SCALES)
    return Outcome(measured, {"edit": Curve(xs, ring), "drawn": Curve(xs, drawn)})
