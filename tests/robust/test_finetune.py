import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.robust.conftest import LAYER
from tests.robust.test_objectives import PLACE

from perimetry.activations.model import from_pretrained_parts, tiny_language_model
from perimetry.activations.twins import Row, TwinRows
from perimetry.errors import CorruptArtifact, Diverged, TooFewSamples, UsageError
from perimetry.robust.adapter import Tunable
from perimetry.robust.finetune import LOG, tune
from perimetry.robust.guard import Guard
from perimetry.robust.objectives import Objective
from perimetry.robust.recipe import TuneConfig, Weights

CONFIG: dict[str, Any] = {
    "rank": 2,
    "updates": 6,
    "batch": 4,
    "check_every": 2,
    "lr": 0.01,
    "clean_limit": 10.0,
    "retain_limit": 10.0,
    "weights": Weights(consistency=0.2, alignment=0.5, retain=0.5),
}


class Killed(Exception):
    """Stands for a process that is killed."""


def fresh(config: TuneConfig, rows: list[Row]) -> tuple[Tunable, Guard, Objective]:
    tunable = Tunable(tiny_language_model("llama"), config, LAYER)
    return tunable, Guard(tunable, rows, PLACE, 256), Objective(PLACE, config, None)


def kill_at(step: int) -> Any:
    def stop(line: dict[str, Any]) -> None:
        if line["step"] == step:
            raise Killed

    return stop


@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_run_that_was_killed_ends_with_the_same_bits(
    twins: list[TwinRows], rows: list[Row], tmp_path: Path, method: str
) -> None:
    config = TuneConfig.model_validate(CONFIG | {"method": method})
    whole, guard, objective = fresh(config, rows)
    straight = tune(whole, objective, twins, guard, tmp_path / "straight")
    for step in (1, 3, 5):
        killed, guard, objective = fresh(config, rows)
        with pytest.raises(Killed):
            tune(killed, objective, twins, guard, tmp_path / "killed", progress=kill_at(step))
    resumed, guard, objective = fresh(config, rows)
    found = tune(resumed, objective, twins, guard, tmp_path / "killed")
    assert whole.state().keys() == resumed.state().keys()
    for name, tensor in whole.state().items():
        assert torch.equal(tensor, resumed.state()[name]), name
    assert found.log == straight.log
    written = [json.loads(line) for line in (tmp_path / "killed" / LOG).read_text().splitlines()]
    assert [line["step"] for line in written] == [1, 2, 3, 4, 5, 6]
    assert {"clean", "perturbed", "consistency", "alignment", "retain", "gradient", "lr"} <= written[0].keys()


def test_tuning_lowers_the_loss_on_the_text_it_reads(twins: list[TwinRows], rows: list[Row], tmp_path: Path) -> None:
    config = TuneConfig.model_validate(CONFIG | {"updates": 30, "check_every": 30, "batch": 8, "weights": Weights()})
    tunable, guard, objective = fresh(config, rows)
    log = tune(tunable, objective, twins, guard, tmp_path).log
    assert log[-1]["perturbed"] < log[0]["perturbed"] - 0.1


def test_a_diverging_run_stops_and_keeps_the_last_good_checkpoint(
    twins: list[TwinRows], rows: list[Row], tmp_path: Path
) -> None:
    config = TuneConfig.model_validate(CONFIG | {"lr": 30.0, "clean_limit": 0.05, "warmup": 1.0, "updates": 40})
    tunable, guard, objective = fresh(config, rows)
    start = tunable.state()
    with pytest.raises(
        Diverged, match=r"the run diverged; the checkpoint of update \d+ .* is kept in .*lower lr"
    ) as error:
        tune(tunable, objective, twins, guard, tmp_path)
    assert guard.look().rise <= 0.05, "what learns is that of the last good checkpoint"
    if error.value.step == 0:
        assert all(torch.equal(start[name], tensor) for name, tensor in tunable.state().items())


def test_a_loss_that_is_not_finite_is_never_taken_over(
    twins: list[TwinRows], rows: list[Row], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = TuneConfig.model_validate(CONFIG)
    tunable, guard, objective = fresh(config, rows)
    import perimetry.robust.finetune as module

    real = module.backward

    def broken(*given: Any) -> dict[str, float]:
        found = real(*given)
        next(iter(tunable.parameters().values())).grad.fill_(float("nan"))  # pyright: ignore[reportOptionalMemberAccess]
        return found

    monkeypatch.setattr(module, "backward", broken)
    with pytest.raises(Diverged, match="update 1 gives gradient that is not finite"):
        tune(tunable, objective, twins, guard, tmp_path)
    assert all(bool(t.isfinite().all()) for t in tunable.state().values())


def test_a_checkpoint_of_another_run_is_not_gone_on_with(
    twins: list[TwinRows], rows: list[Row], tmp_path: Path
) -> None:
    first = TuneConfig.model_validate(CONFIG)
    tunable, guard, objective = fresh(first, rows)
    tune(tunable, objective, twins, guard, tmp_path)
    other = TuneConfig.model_validate(CONFIG | {"lr": 0.02})
    tunable, guard, objective = fresh(other, rows)
    assert [line["step"] for line in tune(tunable, objective, twins, guard, tmp_path).log] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("method", ["lora", "full"])
def test_the_base_is_there_inside_and_comes_back_at_the_end(
    twins: list[TwinRows], rows: list[Row], method: str
) -> None:
    config = TuneConfig.model_validate(CONFIG | {"method": method})
    tunable, guard, _ = fresh(config, rows)
    before = guard.look()
    assert before.rise == pytest.approx(0, abs=1e-9)
    with torch.no_grad():
        for parameter in tunable.parameters().values():
            parameter.add_(0.05)
    moved = guard.look()
    assert moved.retain > 0
    with tunable.base():
        assert guard.look().retain == pytest.approx(0, abs=1e-12)
    assert guard.look() == moved
    tunable.reset(1)
    assert guard.look().retain == pytest.approx(0, abs=1e-12)
    with torch.no_grad():
        next(iter(tunable.parameters().values())).add_(0.5)
    lm = tunable.lm
    tunable.remove()
    assert not [n for n, p in lm.model.named_parameters() if p.requires_grad or "lora_" in n]


def test_a_model_in_bfloat16_is_tuned_by_matrices_in_float32(
    twins: list[TwinRows], rows: list[Row], tmp_path: Path
) -> None:
    plain = tiny_language_model("llama")
    lm = from_pretrained_parts(plain.model.to(torch.bfloat16), plain.tokenizer, "tiny-bf16")
    config = TuneConfig.model_validate(CONFIG)
    tunable = Tunable(lm, config, LAYER)
    assert {p.dtype for p in tunable.parameters().values()} == {torch.float32}
    guard = Guard(tunable, rows, PLACE, 256)
    before = tunable.state()
    found = tune(tunable, Objective(PLACE, config, None), twins, guard, tmp_path)
    assert found.updates == config.updates
    assert any(not torch.equal(before[name], now) for name, now in tunable.state().items())


def test_only_blocks_up_to_the_tap_learn() -> None:
    for modules, count in (("attention", 4), ("linear", 7)):
        config = TuneConfig.model_validate({"rank": 2, "modules": modules})
        names = Tunable(tiny_language_model("llama"), config, 0).parameters()
        assert len(names) == 2 * count
        assert all(".layers.0." in name for name in names)


@pytest.mark.parametrize(
    "family", ["gpt2", "gpt_neox", "gemma2", "qwen2", "qwen3", "phi3", "phi", "starcoder2", "stablelm"]
)
def test_projections_of_every_family_are_found(family: str) -> None:
    lm = tiny_language_model(family)
    few = len(Tunable(lm, TuneConfig.model_validate({"rank": 1}), 1).parameters())
    more = len(Tunable(tiny_language_model(family), TuneConfig(rank=1, modules="linear"), 1).parameters())
    assert 0 < few < more


def test_what_cannot_be_tuned_is_refused(twins: list[TwinRows], rows: list[Row], tmp_path: Path) -> None:
    config = TuneConfig.model_validate(CONFIG)
    tunable, guard, objective = fresh(config, rows)
    with pytest.raises(UsageError, match="carries an adapter already"):
        Tunable(tunable.lm, config, LAYER)
    with pytest.raises(TooFewSamples, match="no text to tune on"):
        tune(tunable, objective, [], guard, tmp_path)
    with pytest.raises(TooFewSamples, match="no clean text"):
        Guard(tunable, [], PLACE, 64)
    with pytest.raises(CorruptArtifact, match="other parameters"):
        tunable.load({})
