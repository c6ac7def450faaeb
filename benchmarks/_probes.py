"""What the benchmarks of probes share: cells, and the fits that they are compared with."""

import json
import os
import subprocess
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from safetensors.torch import save_file
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from torch import Tensor

from peers.environments import python_of
from perimetry.activations.model import load_language_model, tiny_language_model
from perimetry.activations.policy import TokenPolicy
from perimetry.config import build
from perimetry.errors import UsageError
from perimetry.evals.sae.base import Place, Subject
from perimetry.evals.sae.probe_features import Task, judge
from perimetry.measures.logistic import STRENGTHS, Labelled, validated
from perimetry.runtime import Runtime
from perimetry.sae.base import Start
from perimetry.sae.formats import load_sae
from perimetry.sae.topk import TopKSAE

__all__ = ["HERE", "Fitted", "exact_areas", "ours", "sae_probes", "saga", "saga_area", "subject_of", "write_cells"]

HERE: Final = Path(__file__).resolve().parent
STEPS: Final = 1000
FREE: Final = 100.0
"""Scale of the intercept of liblinear, which penalises it: a hundredth of a weight's penalty is as good as none."""


class Fitted(NamedTuple):
    """What an arm made of the cells."""

    seconds: float
    """Of the processor."""
    areas: list[float]
    """Test area of each cell."""


def subject_of(folder: Path, runtime: Runtime, *, tiny: bool) -> Subject:
    """The dictionary and its place. Errors: `UsageError` where it does not say its place."""
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


def ours(tasks: Sequence[Task], k: int) -> Fitted:
    """All cells together, to convergence."""
    began = time.process_time()
    areas = [found[0] for found in judge(tasks, "l1", k)]
    return Fitted(time.process_time() - began, areas)


def _area(model: LogisticRegression, held: Labelled) -> float:
    return float(roc_auc_score(held.labels.numpy(), model.decision_function(held.rows.numpy())))


def _saga(strength: float, seed: int, train: Labelled) -> LogisticRegression:
    how: dict[str, Any] = {"penalty": "elasticnet", "l1_ratio": 1.0, "solver": "saga"}
    model = LogisticRegression(C=strength, random_state=seed, max_iter=STEPS, **how)
    return model.fit(train.rows.numpy(), train.labels.numpy())


def _first(part: Labelled, k: int) -> Labelled:
    return Labelled(part.rows[:, :k], part.labels)


def saga_area(task: Task, k: int, seed: int = 0) -> float:
    """Test area of one cell as `sae_probes.utils_training.find_best_reg` computes it for sets of 128 rows or more."""
    train, test = _first(task.train, k), _first(task.tests[0], k)
    n = train.labels.numel()
    cut = n - min(int(0.2 * n), 100)
    part, held = Labelled(train.rows[:cut], train.labels[:cut]), Labelled(train.rows[cut:], train.labels[cut:])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        best = int(np.argmax([_area(_saga(strength, seed, part), held) for strength in STRENGTHS]))
        order = torch.from_numpy(np.random.RandomState(seed).permutation(n))
        return _area(_saga(STRENGTHS[best], seed, Labelled(train.rows[order], train.labels[order])), test)


def saga(tasks: Sequence[Task], k: int) -> Fitted:
    """Cell by cell, as sae-probes fits them, in this process."""
    began = time.process_time()
    areas = [saga_area(task, k) for task in tasks]
    return Fitted(time.process_time() - began, areas)


def exact_areas(tasks: Sequence[Task], k: int) -> list[float]:
    """Test areas of scikit-learn's fits to convergence (liblinear), with the strengths that validation chose here."""
    strengths = [probe.strength for probe in validated([_first(task.train, k) for task in tasks], "l1")]
    out: list[float] = []
    for task, strength in zip(tasks, strengths, strict=True):
        how: dict[str, Any] = {"l1_ratio": 1.0, "solver": "liblinear"}
        how |= {"intercept_scaling": FREE, "tol": 1e-6, "max_iter": 20_000}
        train = _first(task.train, k)
        model = LogisticRegression(C=strength, random_state=0, **how).fit(
            train.rows.double().numpy(), train.labels.numpy()
        )
        out.append(_area(model, Labelled(task.tests[0].rows[:, :k].double(), task.tests[0].labels)))
    return out


def write_cells(tasks: Sequence[Task], file: Path) -> None:
    """The cells, for another process."""
    tensors: dict[str, Tensor] = {}
    for i, task in enumerate(tasks):
        for name, part in (("train", task.train), ("test", task.tests[0])):
            tensors |= {f"{name}_{i}": part.rows.float().contiguous(), f"{name}_labels_{i}": part.labels.contiguous()}
    save_file(tensors, file)


def sae_probes(peers: Path, job: Path) -> list[dict[str, Any]]:
    """What peers/probes_sae_probes.py prints of a job, one object a line, run in the environment `saebench` on one thread."""
    command = [str(python_of(peers, "saebench")), str(HERE / "peers" / "probes_sae_probes.py"), str(job)]
    one = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=os.environ | one)
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
