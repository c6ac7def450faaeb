"""What is handed to SAELens, and how its numbers are set beside ours; the run itself needs its environment."""

import json
from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors.torch import load_file
from tests.evals.sae.dictionaries import corpus, place_of

from perimetry.activations.model import LanguageModel
from perimetry.evals.sae.fidelity import Fidelity
from perimetry.evals.sae.units import Cell, ratios

MODULE = "fidelity_agreement"


def test_what_is_handed_over_is_what_was_measured(module: ModuleType, tiny_lm: LanguageModel, tmp_path: Path) -> None:
    evaluation = Fidelity(text=corpus(tmp_path), context=40, rows=7)
    held = module.full_rows(evaluation.held_rows(place_of(tiny_lm)), 40, 3)
    assert len(held.rows) == len(held.names) == 6
    job = json.loads(module.write_job(tmp_path, held, Path("sae"), Path("model"), [1, 2], 3).read_text())
    assert {key: job[key] for key in ("sae", "model", "ignore", "batch")} == {
        "sae": "sae",
        "model": "model",
        "ignore": [1, 2],
        "batch": 3,
    }
    tokens = load_file(job["tokens"])["tokens"]
    assert tokens.tolist() == [row.ids for row in held.rows]
    assert module.full_rows(held, 39, 3).rows == []


def test_differences_are_ours_minus_theirs(module: ModuleType) -> None:
    ours = [
        ratios(Cell(metric, arm=arm), ["a", "b"], torch.tensor([1.0, 2.0]), torch.tensor([2.0, 2.0]))
        for metric, arm in module.NAMES
    ]
    theirs = dict.fromkeys(module.NAMES.values(), 0.75) | {"l0": 0.5, "version": "1"}
    compared = module.rows_of(ours, theirs, 0)
    by_name = {row["against"].split()[-1]: row for row in compared.rows}
    assert by_name["cossim"]["estimate"] == 0
    assert by_name["l0"]["estimate"] == compared.worst == pytest.approx(0.25)
    assert {(metric, arm) for metric, arm in module.NAMES} == {(row["metric"], row["arm"]) for row in compared.rows}
    assert {metric for metric, _ in module.NAMES} <= set(Fidelity.metrics)
