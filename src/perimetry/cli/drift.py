"""`perimetry drift`: whether the traffic still is what the meter was calibrated on."""

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from perimetry.cli.common import Json, emit

__all__ = ["drift"]


def drift(
    meter: Annotated[Path, Parameter(help="The meter that made the readings.")],
    readings: Annotated[
        Path,
        Parameter(help="JSON lines of `perimetry score --json`; - is standard input.", allow_leading_hyphen=True),
    ],
    *,
    window: Annotated[int | None, Parameter(help="Prompts of a window; without it all are one.")] = None,
    budget: Annotated[float, Parameter(help="Chance of a false drift alarm over all windows together.")] = 0.05,
    alpha: Annotated[float, Parameter(help="False-alarm rate at which alarms of single prompts are counted.")] = 0.05,
    scores: Annotated[
        str | None, Parameter(help="Scores that are compared together, with commas; by default all in the readings.")
    ] = None,
    reference: Annotated[
        Path | None, Parameter(help="Readings of clean prompts to compare with, in place of the meter's own.")
    ] = None,
    permutations: Annotated[int, Parameter(help="Relabellings of a permutation test, at least.")] = 999,
    seed: Annotated[int, Parameter(help="Seed of permutations and bootstraps.")] = 0,
    fail: Annotated[bool, Parameter(negative="", help="Exit with 1 when a window drifted.")] = False,
    json: Json = False,
) -> int:
    """Compare windows of readings with the clean prompts that the meter was calibrated on.

    Prints for each window the p-values of four tests, the alarms expected and found, and how large the difference is. The
    language model is not needed.
    """
    from perimetry.cli.show import show_drift
    from perimetry.shift.drift import DriftConfig
    from perimetry.shift.drift import drift as judge
    from perimetry.shift.drift_files import load_reference, read_readings

    settings = {"window": window, "budget": budget, "alpha": alpha, "permutations": permutations, "seed": seed}
    names = tuple(n.strip() for n in scores.split(",") if n.strip()) if scores is not None else None
    config = DriftConfig.model_validate(settings | {"scores": names or None})
    rows = read_readings(sys.stdin) if str(readings) == "-" else read_readings(readings)
    clean = load_reference(meter, None if reference is None else read_readings(reference))
    found = list(judge(clean, rows, config))
    drifted = any(w.drifted for w in found)
    value = {"meter": clean.digest, "detector": clean.main, "drifted": drifted, "budget": budget}
    emit(value | {"windows": [w.to_json() for w in found]}, json, lambda: show_drift(found, budget))
    return int(fail and drifted)
