"""Sparse probing by perimetry and by sae-probes, each with its own draws: `python benchmarks/probing_agreement.py --sae DIR --peers DIR`.

sae-probes runs its whole protocol (`run_sae_eval`: draw of the rows, ranking of the latents, probes) in the environment `saebench` of
peers/environments.py, with SAELens reading the dictionary; both are given the same last-token activations of the published rows, and
here leaks stay, as there. Both are drawn anew under several seeds. The difference of their means is set beside the noise of such draws:
`low` and `high` are Welch's 95 % interval, `reseed` the standard deviation of sae-probes' area between its seeds. Exit code
1 where a difference is larger than `reseed` and its interval leaves 0 out.
"""

import argparse
import json
import math
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, variance
from typing import Any, Final

import torch
from scipy import stats

from _common import finish, parser, runtime_of
from _meters import given_sae, sae_flag
from _probes import sae_probes, subject_of
from perimetry.evals.sae.base import Subject
from perimetry.evals.sae.probe_features import judge
from perimetry.evals.sae.probe_sets import SETS, ProbeData, last_tokens, read_sets
from perimetry.evals.sae.probing import Probing
from perimetry.evals.sae.shelf import Shelf

__all__ = ["CHOSEN", "areas_of", "differences", "write_activations"]

CHOSEN: Final = SETS[3::22][:5]
"""Every other of the sets of `probing.py`."""
HOOK: Final = "resid_post"
Areas = dict[tuple[str, int], list[float]]
"""Set and k -> test area under each seed."""


def write_activations(acts: Mapping[str, torch.Tensor], folder: Path, model: str) -> None:
    """Where sae-probes looks for them."""
    place = folder / f"model_activations_{model}"
    place.mkdir(parents=True)
    for name, found in acts.items():
        torch.save(found.float(), place / f"{name}_{HOOK}.pt")


def areas_of(subject: Subject, acts: Mapping[str, torch.Tensor], probing: Probing) -> Areas:
    """Ours, under each seed."""
    out: Areas = {}
    for found in read_sets(probing.data):
        tasks = probing.tasks(subject.sae, found, acts[found.name])
        for k in probing.ks:
            out[found.name, k] = [areas[0] for areas in judge(tasks, "l1", k)]
    return out


def differences(ours: Areas, theirs: Areas) -> list[dict[str, Any]]:
    """Ours less theirs by set and k, and with `set` "all" the mean over sets."""
    rows = [_row(name, k, [ours[name, k]], [theirs[name, k]]) for name, k in ours]
    for k in dict.fromkeys(k for _, k in ours):
        names = [name for name, other in ours if other == k]
        rows.append(_row("all", k, [ours[name, k] for name in names], [theirs[name, k] for name in names]))
    return rows


def _row(name: str, k: int, ours: Sequence[Sequence[float]], theirs: Sequence[Sequence[float]]) -> dict[str, Any]:
    """The sets' means, and Welch's interval with the parts of each set's variance added up."""
    gap = fmean(fmean(a) - fmean(b) for a, b in zip(ours, theirs, strict=True))
    parts = [(variance(values) / len(values) / len(ours) ** 2, len(values) - 1) for values in (*ours, *theirs)]
    total = sum(part for part, _ in parts)
    half = 0.0
    if total > 0:
        freedom = total**2 / sum(part**2 / left for part, left in parts)
        half = float(stats.t.ppf(0.975, freedom)) * math.sqrt(total)
    reseed = math.sqrt(sum(variance(values) for values in theirs)) / len(theirs)
    about = {"metric": "auroc_difference", "arm": "perimetry", "against": "sae-probes", "set": name, "k": k}
    about |= {"estimate": gap, "low": gap - half, "high": gap + half, "reseed": reseed}
    about |= {"ours": fmean(map(fmean, ours)), "theirs": fmean(map(fmean, theirs))}
    agree = abs(gap) <= reseed or gap - half <= 0 <= gap + half
    method = (
        "difference of means over draws; Welch's 95 % interval; reseed: standard deviation between sae-probes' draws"
    )
    return about | {"agree": agree, "n": len(ours[0]), "seed": 0, "method": method}


def _theirs(
    arguments: argparse.Namespace, sae: Path, acts: Mapping[str, torch.Tensor], model: str
) -> tuple[Areas, str]:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_activations(acts, folder / "activations", model)
        job = {
            "sae": str(sae),
            "activations": str(folder / "activations"),
            "results": str(folder / "results"),
        }
        job |= {
            "model": model,
            "hook": HOOK,
            "sets": list(acts),
            "ks": arguments.ks,
            "seeds": list(range(arguments.seeds)),
        }
        (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
        found = sae_probes(arguments.peers, folder / "job.json")
    out: Areas = {(name, k): [] for name in acts for k in arguments.ks}
    for one in found:
        for k in arguments.ks:
            out[one["set"], k].append(one["areas"][str(k)])
    return out, found[0]["version"]


def main() -> int:
    """Probe twice and compare."""
    found = parser(__doc__)
    sae_flag(found)
    found.add_argument("--peers", type=Path, required=True, help="folder of the peers' environments")
    found.add_argument("--sets", nargs="+", default=list(CHOSEN), help="labelled sets (default: five)")
    found.add_argument("--ks", nargs="+", type=int, default=[1, 2, 5, 16, 128], help="latents of a probe")
    found.add_argument("--seeds", type=int, default=5, help="draws of the rows, on each side (default: 5)")
    found.add_argument("--context", type=int, default=128, help="most tokens of a prompt (default: 128)")
    found.add_argument("--shelf", type=Path, help="folder that keeps activations for the next run")
    arguments = found.parse_args()
    with tempfile.TemporaryDirectory() as place:
        runtime = runtime_of(arguments)
        sae = given_sae(arguments, Path(place), runtime)
        return _compare(arguments, sae, subject_of(sae, runtime, tiny=False))


def _compare(arguments: argparse.Namespace, sae: Path, subject: Subject) -> int:
    data = ProbeData(sets=tuple(arguments.sets), rows=5000, context=arguments.context, leaks=True)
    texts = {one.name: one.texts for one in read_sets(data)}
    acts = last_tokens(texts, subject.place, Shelf(arguments.shelf), data, progress=sys.stderr.isatty())
    ours = areas_of(subject, acts, Probing(data=data, seeds=arguments.seeds, ks=tuple(arguments.ks)))
    theirs, version = _theirs(arguments, sae, acts, subject.place.lm.name)
    rows = differences(ours, theirs)
    finish(arguments, "probing_agreement", rows, libraries={"sae-probes": version})
    return 0 if all(one["agree"] for one in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
