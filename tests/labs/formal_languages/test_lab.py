"""What is run of each language, and what depends on what."""

import random

from perimetry.labs.formal_languages.attachment import DEPTHS
from perimetry.labs.formal_languages.fitting import CausalSizes
from perimetry.labs.formal_languages.grammars import LANGUAGES
from perimetry.labs.formal_languages.lab import FormalConfig, FormalLanguages
from perimetry.labs.formal_languages.running import WEIGHTS, run_causal


def test_brackets_come_first_and_the_long_arm_is_brackets() -> None:
    lab = FormalLanguages()
    quick, paper = (lab.presets[name] for name in ("quick", "paper"))
    assert [job.arm for job in lab.jobs(quick)][:3] == ["dyck"] * 3
    assert isinstance(paper, FormalConfig)
    assert paper.arm("dyck_long").language == "dyck"
    assert paper.arm("dyck_3").steps == paper.steps["dyck"]
    assert paper.sizes("dyck_long").causal == CausalSizes(160_000)
    assert paper.sizes("dyck").causal != CausalSizes(160_000)
    assert all(set(own.arms) <= {*LANGUAGES, "dyck_long"} for own in (paper, quick) if isinstance(own, FormalConfig))


def test_the_causal_loss_alone() -> None:
    tiny = FormalLanguages().presets["tiny"]
    assert isinstance(tiny, FormalConfig)
    sizes = tiny.sizes("dyck")._replace(causal=CausalSizes(4, 24, 4), samples=20, tests=20)
    found = run_causal(tiny.arm("dyck").model_copy(update={"steps": 10}), 0, sizes)
    for weight in WEIGHTS:
        assert found.value("relative interpolation error at 0.2", f"causal {weight:g}") >= 0
    lost = found.value("validity", "causal 0") - found.value("validity", "causal 100")
    assert found.value("validity lost to it", "causal 100") == lost
    assert not any(m.case.startswith("topk") for m in found.measured)


def test_nested_strings_are_deeper_than_98_in_100() -> None:
    dyck, source = LANGUAGES["dyck"], random.Random(3)
    depths = sorted(max(row[0] for row in dyck.truth(dyck.draw(source, 38))) for _ in range(2000))
    assert depths[1959] < min(DEPTHS)
