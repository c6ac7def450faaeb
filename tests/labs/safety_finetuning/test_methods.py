"""Whole arms, at a size of seconds: the published world, the gate, and what the arms of a seed share."""

from pathlib import Path

import pytest

from perimetry.labs.safety_finetuning import running
from perimetry.labs.safety_finetuning.attachment import AttachConfig
from perimetry.labs.safety_finetuning.lab import METHODS, PUBLISHED, SafetyFinetuning
from perimetry.labs.safety_finetuning.models import RATES, SafetyArm
from perimetry.labs.safety_finetuning.running import SafetySizes, run_method

SIZES = SafetySizes(4, 3, 24, AttachConfig(48, 24, 24, 10), ("small",))
SMALL = {"layers": 2, "width": 24, "heads": 2, "least": 0.0}


def test_the_published_world_runs_from_its_texts_to_the_meter(tmp_path: Path) -> None:
    arm = PUBLISHED.model_copy(update={**SMALL, "texts": 24, "batch": 16, "tuning_batch": 10, "safe": 0.8})
    found = run_method(arm, "dpo", 0, SIZES, tmp_path, "published")
    values = {(m.metric, m.case): m.value for m in found.measured}
    for rate in RATES:
        for kind in ("safe", "unsafe", "CO-Text", "CO-Task", "MisGen", "Adv"):
            parts = [values[name, f"{rate}, {kind}"] for name in ("comply", "refuse", "partial")]
            assert sum(parts) == pytest.approx(1.0)
    assert ("AUROC of Adv", "small, code_knn") in values
    assert ("AUROC of Adv", "medium, code_knn") not in values, "the meter is asked at one rate"
    assert values["separation", "small, last block"] == values["separation", "small, block 1"]
    assert found.curves["separation, medium"].xs == [0.0, 1.0]
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "published-0.safetensors",
        "published-plain-0.safetensors",
    ]


def test_a_model_that_does_not_know_the_tasks_is_not_fine_tuned(tmp_path: Path) -> None:
    found = run_method(SafetyArm.model_validate({**SMALL, "least": 0.95}), "ssft", 0, SIZES, tmp_path, "small")
    assert {m.metric for m in found.measured} == {"accuracy before", "least accuracy before"}
    assert found.value("least accuracy before") < 0.95
    assert found.curves == {}


def test_the_arms_of_a_seed_share_what_they_begin_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arm = SafetyArm.model_validate(SMALL)
    first = run_method(arm, "ssft", 1, SIZES, tmp_path / "one", "small")
    run_method(arm, "plain", 1, SIZES, tmp_path / "two", "small")
    monkeypatch.setattr(running, "pretrain", lambda *_: pytest.fail("trained again"))
    assert run_method(arm, "ssft", 1, SIZES, tmp_path / "two", "small") == first


def test_arms_that_others_build_on_come_first() -> None:
    lab = SafetyFinetuning()
    order = [job.arm for job in lab.jobs(lab.presets["paper"])]
    assert order.index("plain") < order.index("dpo") < order.index("ssft")
    assert order.index("published_plain") < order.index("published_dpo")
    assert set(order) == set(METHODS)
