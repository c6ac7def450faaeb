"""Probes of the package sae-probes itself: run by the Python of the environment `saebench` of environments.py.

PYTHON probes_sae_probes.py JOB   reads the JSON file JOB and prints one JSON object a line

A job `{"cells": FILE.safetensors, "ks": [...]}` fits every cell (`train_0`, `train_labels_0`, `test_0`, `test_labels_0` ...) by
`find_best_reg` and prints seconds of the processor and test areas for each k.

A job `{"sae": DIR, "activations": DIR, "results": DIR, "model": NAME, "hook": NAME, "sets": [...], "seeds": [...], "ks": [...]}` runs
`run_sae_eval` on each set under each seed, the whole protocol from its own draw of the rows on, with the last-token
activations in `activations/model_activations_NAME/SET_HOOK.pt`, and prints the test area of each k.
"""

import contextlib
import json
import sys
import time
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

from safetensors.numpy import load_file

with contextlib.redirect_stdout(sys.stderr):
    from sae_lens import SAE  # pyright: ignore[reportMissingImports]
    from sae_probes.run_sae_evals import get_save_metrics_path, run_sae_eval  # pyright: ignore[reportMissingImports]
    from sae_probes.utils_training import find_best_reg  # pyright: ignore[reportMissingImports]

VERSION = version("sae-probes")


def cells(job: dict[str, Any]) -> None:
    """Fit the cells of a file."""
    found = load_file(job["cells"])
    count = sum(name.startswith("test_labels_") for name in found)
    for k in job["ks"]:
        areas: list[float] = []
        began = time.process_time()
        for i in range(count):
            train, test = found[f"train_{i}"][:, :k], found[f"test_{i}"][:, :k]
            best = find_best_reg(
                train, found[f"train_labels_{i}"], test, found[f"test_labels_{i}"], penalty="l1", seed=job["seed"]
            )
            areas.append(best.metrics.test_auc)
        print(json.dumps({"k": k, "seconds": time.process_time() - began, "areas": areas, "version": VERSION}))


def protocol(job: dict[str, Any]) -> None:
    """The whole of it, set by set."""
    sae = SAE.load_from_disk(job["sae"], device="cpu")
    for name in job["sets"]:
        for seed in job["seeds"]:
            about = {"dataset": name, "hook_name": job["hook"], "reg_type": "l1", "setting": "normal"}
            results = Path(job["results"]) / str(seed)
            with contextlib.redirect_stdout(sys.stderr):
                run_sae_eval(
                    sae,
                    **about,
                    model_name=job["model"],
                    model_cache_path=job["activations"],
                    device="cpu",
                    ks=job["ks"],
                    results_path=results,
                    seed=seed,
                )
                file = get_save_metrics_path(**about, model_name=job["model"], sae_results_path=results)
            areas = {str(row["k"]): row["test_auc"] for row in json.loads(Path(file).read_text(encoding="utf-8"))}
            print(json.dumps({"set": name, "seed": seed, "areas": areas, "version": VERSION}), flush=True)


def main() -> None:
    """Do what the job says."""
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    warnings.simplefilter("ignore")
    (cells if "cells" in job else protocol)(job)


if __name__ == "__main__":
    main()
