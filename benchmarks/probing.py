"""k-sparse probes here and as sae-probes fits them: `python benchmarks/probing.py --sae DIR --peers DIR`.

All arms get the same latents of the same rows (cells of set, seed and k) and choose the strength on the same validation rows.
`sae-probes` is that package itself, in the environment `saebench` of peers/environments.py; without `--peers` the arm `saga`
stands for it and does the same in this process: one scikit-learn fit a strength, at most 1,000 steps of saga, and a last one on
shuffled rows. `perimetry` solves all cells of a k together, to convergence. Seconds are those of the processor, on one thread unless
`--threads` says otherwise.

`auroc_difference` is ours less theirs in the test area, its mean over cells with the least and the greatest. Against `scikit-learn`, which
is given the strength that validation chose here and runs to convergence (liblinear), it says whether the solver is right;
against the other arm it also holds what 1,000 steps leave undone.
"""

import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, Final, NamedTuple

from _common import Spread, finish, parser, ratio, row, runtime_of, spread
from _meters import given_sae, sae_flag
from _probes import Fitted, exact_areas, ours, sae_probes, saga, subject_of, write_cells
from perimetry.evals.sae.base import Subject
from perimetry.evals.sae.probe_features import Task
from perimetry.evals.sae.probe_sets import SETS, ProbeData, last_tokens, read_sets
from perimetry.evals.sae.probing import Probing
from perimetry.evals.sae.shelf import Shelf

__all__ = ["CHOSEN", "Compared", "cells_of", "compare", "rows_of"]

CHOSEN: Final = SETS[3::11][:10]
"""Ten sets, one in eleven; chosen before any was fitted."""
Arm = Callable[[Sequence[Task], int], Fitted]


class Compared(NamedTuple):
    """All arms on the same cells of one k."""

    seconds: dict[str, list[float]]
    """Of the processor, by arm, one a turn."""
    areas: dict[str, list[float]]
    """Test area of each cell, by arm, of the last turn."""


def compare(tasks: Sequence[Task], k: int, turns: int, other: tuple[str, Arm], *, exact: bool = True) -> Compared:
    """Both arms in turns, each computing every cell anew; then scikit-learn's exact fits once, untimed."""
    arms = dict([other, ("perimetry", ours)])
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    areas: dict[str, list[float]] = {}
    for _ in range(turns):
        for name, fit in arms.items():
            found = fit(tasks, k)
            seconds[name].append(found.seconds)
            areas[name] = found.areas
    return Compared(seconds, areas | ({"scikit-learn": exact_areas(tasks, k)} if exact else {}))


def package(peers: Path, folder: Path) -> Arm:
    """sae-probes in its own environment, on cells that are written for it."""

    def fit(tasks: Sequence[Task], k: int) -> Fitted:
        write_cells(tasks, folder / "cells.safetensors")
        job = folder / "cells.json"
        job.write_text(json.dumps({"cells": str(folder / "cells.safetensors"), "ks": [k], "seed": 0}), encoding="utf-8")
        [found] = sae_probes(peers, job)
        return Fitted(found["seconds"], found["areas"])

    return fit


def cells_of(subject: Subject, probing: Probing, shelf: Shelf) -> list[Task]:
    """What the probes of every set and seed read."""
    sets = read_sets(probing.data)
    acts = last_tokens({s.name: s.texts for s in sets}, subject.place, shelf, probing.data)
    return [task for found in sets for task in probing.tasks(subject.sae, found, acts[found.name])]


def rows_of(both: Compared, about: dict[str, Any]) -> list[dict[str, Any]]:
    """Ratio, seconds and differences of the cells of one k, or of all of them as k = 0."""
    other = next(iter(both.seconds))
    out = [row("time_ratio", other, "perimetry", ratio(both.seconds, other, "perimetry"), **about)]
    out += [row("seconds", arm, "", spread(taken), **about) for arm, taken in both.seconds.items()]
    for arm in both.areas:
        if arm != "perimetry":
            gaps = [a - b for a, b in zip(both.areas["perimetry"], both.areas[arm], strict=True)]
            method = "mean over cells of ours less theirs; low and high are the least and the greatest"
            box = Spread(fmean(gaps), min(gaps), max(gaps), len(gaps))
            out.append(row("auroc_difference", "perimetry", arm, box, **about) | {"method": method})
    return out


def _together(compared: Sequence[Compared]) -> Compared:
    first = compared[0]
    seconds = {
        arm: [sum(t, 0.0) for t in zip(*(c.seconds[arm] for c in compared), strict=True)] for arm in first.seconds
    }
    return Compared(seconds, {arm: [area for c in compared for area in c.areas[arm]] for arm in first.areas})


def main() -> None:
    """Measure and print."""
    found = parser(__doc__)
    sae_flag(found)
    found.add_argument("--peers", type=Path, help="folder of the peers' environments (default: saga in this process)")
    found.add_argument("--sets", nargs="+", default=list(CHOSEN), help="labelled sets (default: ten)")
    found.add_argument("--ks", nargs="+", type=int, default=[1, 2, 5, 16, 128], help="latents of a probe")
    found.add_argument("--seeds", type=int, default=5, help="draws of the rows of each set (default: 5)")
    found.add_argument("--shelf", type=Path, help="folder that keeps activations for the next run")
    found.set_defaults(threads=1, repeats=1)
    arguments = found.parse_args()
    runtime = runtime_of(arguments)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        made = Path() if arguments.tiny else given_sae(arguments, folder, runtime)
        subject = subject_of(made, runtime, tiny=arguments.tiny)
        sets, ks = (("toy_animals", "toy_moods"), [1, 4]) if arguments.tiny else (tuple(arguments.sets), arguments.ks)
        ks = ks[-1:] if arguments.quick else ks
        probing = Probing(data=ProbeData(sets=sets), seeds=arguments.seeds, ks=tuple(ks))
        tasks = cells_of(subject, probing, Shelf(arguments.shelf))
        other = ("sae-probes", package(arguments.peers, folder)) if arguments.peers else ("saga", saga)
        compared = {k: compare(tasks, k, arguments.repeats, other) for k in ks}
    about = {"dictionary": subject.name, "model": subject.place.lm.name, "layer": subject.place.layer}
    about |= {"width": subject.sae.d_sae, "sets": len(sets), "cells": len(tasks)}
    rows = [line for k, both in compared.items() for line in rows_of(both, about | {"k": k})]
    rows += rows_of(_together(list(compared.values())), about | {"k": 0, "cells": len(tasks) * len(ks)})
    finish(arguments, "probing", rows, sets=list(sets))


if __name__ == "__main__":
    main()
