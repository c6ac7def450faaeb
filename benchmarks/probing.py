"""k-sparse probes here and as sae-probes fits them: `python benchmarks/probing.py --sae DIR --sets 87_glue_cola 92_glue_sst2`.

Both arms get the same latents of the same rows (cells of set, seed and k) and choose the strength on the same validation rows. `saga` is
what sae-probes runs: one scikit-learn fit a strength, at most 1,000 steps, and a last one on shuffled rows; `perimetry` solves
all cells of a k together, to convergence. Seconds are those of the processor, on one thread unless `--threads` says otherwise.
`auroc_difference` is the largest difference between the two in a cell's test area.
"""

import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from _common import Spread, finish, parser, ratio, row, runtime_of, spread
from _meters import clean_documents, make_sae
from perimetry.activations.model import load_language_model, tiny_language_model
from perimetry.activations.policy import TokenPolicy
from perimetry.config import build
from perimetry.errors import UsageError
from perimetry.evals.sae.base import Place, Subject
from perimetry.evals.sae.probe_features import Task, encode_rows, judge, sparse_task
from perimetry.evals.sae.probe_sets import ProbeData, last_tokens, read_sets, split
from perimetry.evals.sae.shelf import Shelf
from perimetry.measures.logistic import STRENGTHS, Labelled
from perimetry.runtime import Runtime
from perimetry.sae.base import Start
from perimetry.sae.formats import load_sae
from perimetry.sae.topk import TopKSAE

__all__ = ["cells_of", "compare", "saga_area"]

STEPS = 1000


class Compared(NamedTuple):
    """Both arms on the same cells of one k."""

    seconds: dict[str, list[float]]
    """Of the processor, by arm, one a turn."""
    difference: float
    """Largest difference in a test area."""


def _saga(strength: float, seed: int, train: Labelled) -> LogisticRegression:
    how: dict[str, Any] = {"penalty": "elasticnet", "l1_ratio": 1.0, "solver": "saga"}
    model = LogisticRegression(C=strength, random_state=seed, max_iter=STEPS, **how)
    return model.fit(train.rows.numpy(), train.labels.numpy())


def _area(model: LogisticRegression, held: Labelled) -> float:
    return float(roc_auc_score(held.labels.numpy(), model.predict_proba(held.rows.numpy())[:, 1]))


def saga_area(task: Task, k: int, seed: int = 0) -> float:
    """Test area of one cell as `sae_probes.utils_training.find_best_reg` computes it for sets of 128 rows or more."""
    train, test = (Labelled(part.rows[:, :k], part.labels) for part in (task.train, task.tests[0]))
    n = train.labels.numel()
    cut = n - min(int(0.2 * n), 100)
    part, held = Labelled(train.rows[:cut], train.labels[:cut]), Labelled(train.rows[cut:], train.labels[cut:])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        best = int(np.argmax([_area(_saga(strength, seed, part), held) for strength in STRENGTHS]))
        order = torch.from_numpy(np.random.RandomState(seed).permutation(n))
        return _area(_saga(STRENGTHS[best], seed, Labelled(train.rows[order], train.labels[order])), test)


def compare(tasks: Sequence[Task], k: int, turns: int) -> Compared:
    """Both arms in turns; each turn computes every cell anew."""
    arms: dict[str, Callable[[], list[float]]] = {
        "saga": lambda: [saga_area(task, k) for task in tasks],
        "perimetry": lambda: [areas[0] for areas in judge(tasks, "l1", k)],
    }
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    found: dict[str, list[float]] = {}
    for _ in range(turns):
        for name, call in arms.items():
            began = time.process_time()
            found[name] = call()
            seconds[name].append(time.process_time() - began)
    return Compared(seconds, max(abs(a - b) for a, b in zip(found["saga"], found["perimetry"], strict=True)))


def cells_of(subject: Subject, data: ProbeData, seeds: int, most: int, shelf: Shelf) -> list[Task]:
    """What the probes of every set and seed read."""
    sets = read_sets(data)
    acts = last_tokens({s.name: s.texts for s in sets}, subject.place, shelf, data)
    out: list[Task] = []
    for found in sets:
        codes = encode_rows(subject.sae, acts[found.name])
        for seed in range(seeds):
            part = split(found, seed)
            tests = [(codes.select(part.test), found.labels[part.test])]
            out.append(sparse_task(codes.select(part.train), found.labels[part.train], tests, most))
    return out


def _subject(folder: Path, runtime: Runtime, *, tiny: bool) -> Subject:
    if tiny:
        lm = tiny_language_model()
        sae = TopKSAE.fresh(Start(torch.zeros(lm.d_model), 64, 8, 0)).requires_grad_(requires_grad=False).eval()
        return Subject("tiny", sae, Place(lm, 1, TokenPolicy()))
    loaded = load_sae(folder)
    if loaded.info.model is None or loaded.info.layer is None:
        raise UsageError(f"the dictionary at {folder} does not say its model and layer; give one of `perimetry train`")
    policy = build(TokenPolicy, loaded.info.policy, f"token policy of {folder}")
    lm = load_language_model(loaded.info.model, runtime)
    return Subject(folder.name, loaded.sae, Place(lm, loaded.info.layer, policy))


def main() -> None:
    """Measure and print."""
    found = parser(__doc__)
    found.add_argument("--sae", type=Path, help="folder of a trained dictionary (default: a small one, trained first)")
    found.add_argument(
        "--sets", nargs="+", default=["87_glue_cola", "92_glue_sst2", "5_hist_fig_ismale"], help="labelled sets"
    )
    found.add_argument("--ks", nargs="+", type=int, default=[1, 2, 5, 16, 128], help="latents of a probe")
    found.add_argument("--seeds", type=int, default=5, help="draws of the rows of each set (default: 5)")
    found.add_argument("--shelf", type=Path, help="folder that keeps activations for the next run")
    found.set_defaults(threads=1, repeats=1)
    arguments = found.parse_args()
    runtime = runtime_of(arguments)
    with tempfile.TemporaryDirectory() as folder:
        made = arguments.sae
        if made is None and not arguments.tiny:
            made = make_sae(Path(folder), clean_documents(tiny=False), runtime, tiny=False).sae
        subject = _subject(made or Path(), runtime, tiny=arguments.tiny)
    sets, ks = (("toy_animals", "toy_moods"), [1, 4]) if arguments.tiny else (tuple(arguments.sets), arguments.ks)
    ks = ks[-1:] if arguments.quick else ks
    data = ProbeData(sets=sets)
    tasks = cells_of(subject, data, arguments.seeds, max(ks), Shelf(arguments.shelf))
    about = {"dictionary": subject.name, "model": subject.place.lm.name, "layer": subject.place.layer}
    about |= {"width": subject.sae.d_sae, "sets": len(sets), "cells": len(tasks)}
    compared = {k: compare(tasks, k, arguments.repeats) for k in ks}
    rows: list[dict[str, Any]] = []
    for k, both in compared.items():
        rows += _rows(both, about | {"k": k})
    turns = range(arguments.repeats)
    total = {
        arm: [sum(both.seconds[arm][t] for both in compared.values()) for t in turns] for arm in ("saga", "perimetry")
    }
    worst = max(both.difference for both in compared.values())
    rows += _rows(Compared(total, worst), about | {"k": 0, "cells": len(tasks) * len(ks)})
    finish(arguments, "probing", rows)


def _rows(both: Compared, about: dict[str, Any]) -> list[dict[str, Any]]:
    """k = 0 is all of them together."""
    out = [row("time_ratio", "saga", "perimetry", ratio(both.seconds, "saga", "perimetry"), **about)]
    out += [row("seconds", arm, "", spread(taken), **about) for arm, taken in both.seconds.items()]
    worst = Spread(both.difference, both.difference, both.difference, about["cells"])
    method = "largest difference of a cell's test area"
    return [*out, row("auroc_difference", "saga", "perimetry", worst, **about) | {"method": method}]


if __name__ == "__main__":
    main()
