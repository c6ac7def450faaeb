"""The harness itself is not installed for the tests: what is asked of it and made of its answer is held against a stand-in."""

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from perimetry.activations.model import LanguageModel
from perimetry.errors import UsageError
from perimetry.evals.harness import harness_units

ASKED: dict[str, Any] = {}


def stand_in(samples: dict[str, list[dict[str, Any]]]) -> dict[str, ModuleType]:
    """Modules that answer as lm-eval 0.4 does."""

    def evaluate(**given: Any) -> dict[str, Any]:
        ASKED.update(given)
        return {"samples": {task: samples[task] for task in given["tasks"]}}

    top, models, face, tasks = (
        ModuleType(n) for n in ("lm_eval", "lm_eval.models", "lm_eval.models.huggingface", "lm_eval.tasks")
    )
    face.HFLM = lambda **given: given  # pyright: ignore[reportAttributeAccessIssue]
    tasks.TaskManager = lambda include_path: SimpleNamespace(all_tasks=list(samples))  # pyright: ignore[reportAttributeAccessIssue]
    top.models, top.tasks, top.simple_evaluate = models, tasks, evaluate  # pyright: ignore[reportAttributeAccessIssue]
    models.huggingface = face  # pyright: ignore[reportAttributeAccessIssue]
    return {module.__name__: module for module in (top, models, face, tasks)}


def test_documents_become_units(tiny_lm: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [{"doc_id": i, "acc": value} for i, value in enumerate((1.0, 0.0, 1.0, 1.0))]
    for name, module in stand_in({"arc": answers, "story": [{"doc_id": 0, "bleu": 3.0}]}).items():
        monkeypatch.setitem(sys.modules, name, module)
    (found,) = harness_units(tiny_lm, "tuned", ["arc"], limit=4)
    assert (found.cell.case, found.cell.arm, found.names) == ("arc", "tuned", ("0", "1", "2", "3"))
    assert found.estimate() == 0.75
    assert ASKED["limit"] == 4
    assert ASKED["model"]["pretrained"] is tiny_lm.model
    with pytest.raises(UsageError, match="no task 'arcc'"):
        harness_units(tiny_lm, "tuned", ["arcc"])
    with pytest.raises(UsageError, match="'story' has no accuracy"):
        harness_units(tiny_lm, "tuned", ["story"])


def test_without_the_harness_it_says_what_to_install(tiny_lm: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(UsageError, match=r"pip install 'perimetry\[harness\]'"):
        harness_units(tiny_lm, "base", ["arc"])
