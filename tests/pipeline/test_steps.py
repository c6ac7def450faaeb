"""The smaller steps of the commands: doctor, policy, layers, tables."""

import io
import shutil
from pathlib import Path

import pytest
import torch
from rich.console import Console
from tests.worlds import World, run_main, text_of

from perimetry.activations.model import LanguageModel, load_language_model
from perimetry.activations.policy import TokenPolicy
from perimetry.activations.tap import Tap
from perimetry.assets import Document
from perimetry.errors import ConfigError, TooFewSamples
from perimetry.pipeline import checkup
from perimetry.pipeline.calibration import are_prompts, fitted_policy
from perimetry.pipeline.checkup import run_checkup
from perimetry.pipeline.table import show_rows
from perimetry.pipeline.training import middle_layer
from perimetry.runtime import Runtime

CPU = Runtime(torch.device("cpu"), torch.float32)


def test_doctor_finds_a_sound_model_sound(world: World) -> None:
    done = run_main(
        "doctor", "--model", world.model, "--dtype", "float32", "--tokens", "1000", "--width", "64", "--json"
    )
    assert done.code == 0, done.err
    found = done.json()
    assert [c["name"] for c in found["checks"] if not c["holds"]] == []
    assert len(found["checks"]) == 6
    assert (found["layer"], found["layers"], found["d_model"], found["context"]) == (1, 3, 32, 128)
    assert found["estimate"]["store_bytes"] == 1000 * (32 * 2 + 12)
    assert found["estimate"]["train_seconds"] > 0
    plain = run_main("doctor", "--model", world.model, "--dtype", "float32", "--tokens", "1000", "--width", "64")
    assert "holds" in plain.out
    assert "FAILS" not in plain.out


@pytest.mark.parametrize("layer", [0, 2])
def test_doctor_checks_first_and_last_block(world: World, layer: int) -> None:
    found = run_checkup(str(world.model), layer, 1000, 64, CPU)
    assert all(c["holds"] for c in found["checks"])
    assert f"blocks run: {layer + 1} of 3" in found["checks"][1]["measured"]


def test_doctor_ends_with_two_where_a_check_fails(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = Tap.read

    def wrong(self: Tap, ids: torch.Tensor, attention: torch.Tensor) -> torch.Tensor:
        return plain(Tap(self.lm, 2), ids, attention)

    monkeypatch.setattr(checkup.Tap, "read", wrong)
    done = run_main("doctor", "--model", world.model, "--dtype", "float32", "--width", "64", "--layer", "0", "--json")
    failed = [c["name"] for c in done.json()["checks"] if not c["holds"]]
    assert done.code == 2
    assert failed == ["the tap equals hidden_states", "the pass stops at the tap"]
    assert (
        "FAILS" in run_main("doctor", "--model", world.model, "--dtype", "float32", "--width", "64", "--layer", "0").out
    )


def test_the_middle_layer(tiny_lm: LanguageModel) -> None:
    assert middle_layer(tiny_lm, None) == 1
    assert middle_layer(tiny_lm, 0) == 0


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("x.jsonl", True), ("x.jsonl.gz", True), ("wikipedia", False), ("folder", False), ("x.txt", False)],
)
def test_a_jsonl_holds_prompts(text: str, wanted: bool) -> None:
    assert are_prompts(text) is wanted


def test_the_policy_of_the_sae_is_kept_or_fitted(tiny_lm: LanguageModel) -> None:
    documents = [Document("empty", "x", {}), *(Document(str(i), text_of(i, 40), {}) for i in range(5))]
    kept = fitted_policy(tiny_lm, 1, {"max_norm": 3.0, "prepend_bos": False}, documents)
    assert kept == TokenPolicy(max_norm=3.0, prepend_bos=False)
    fitted = fitted_policy(tiny_lm, 1, {}, documents)
    ids = torch.tensor([[tiny_lm.bos_id, *tiny_lm.plain_tokenizer.encode(documents[1].text).ids[:127]]])
    norms = Tap(tiny_lm, 1).read(ids, torch.ones_like(ids))[0, 1:].norm(dim=1)
    assert fitted.max_norm == pytest.approx(10 * float(norms.median()), rel=0.3)
    with pytest.raises(TooFewSamples, match="none of the 0 texts has a token to fit the policy on"):
        fitted_policy(tiny_lm, 1, {}, [])
    with pytest.raises(ConfigError, match="token policy of the SAE: unknown key 'prepend_boss'"):
        fitted_policy(tiny_lm, 1, {"prepend_boss": True}, documents)


def test_a_model_remembers_where_it_lies(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(world.model, tmp_path / "near")
    monkeypatch.chdir(tmp_path)
    lm = load_language_model("./near", CPU)
    assert (lm.name, lm.origin) == ("near", str(tmp_path / "near"))
    assert load_language_model(lm.origin, CPU).revision == lm.revision


def test_tables_show_estimates_and_intervals() -> None:
    row = {"suite": "typos", "family": "all", "dose": 0.2, "negatives": "all", "detector": "l0", "kind": "concept"}
    row |= {"metric": "auroc", "estimate": 0.912, "low": 0.87, "high": 0.95, "seed": 0}
    rows = [row, row | {"detector": "nll", "kind": "baseline", "estimate": 0.7, "low": 0.6, "high": 0.8}]
    rows += [row | {"seed": 1, "estimate": 0.111}, row | {"metric": "fpr_at_95_tpr", "estimate": 0.222}]
    console = Console(file=io.StringIO(), width=120)
    show_rows({"rows": rows, "main": "l0"}, console)
    shown = console.file.getvalue()  # pyright: ignore[reportAttributeAccessIssue]
    assert "typos: AUROC [95 % interval], SAE seed 0" in shown
    assert "0.912 0.87-0.95" in shown
    assert "0.700 0.60-0.80" in shown
    assert "20 %" in shown
    assert "0.111" not in shown
    assert "0.222" not in shown
