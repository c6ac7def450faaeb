import json
from pathlib import Path

import pytest
import torch
from tests.robust.conftest import LAYER, POLICY
from tests.robust.test_objectives import moved

from perimetry.activations.adapters import CARD, CONFIG, WEIGHTS, load_adapter
from perimetry.activations.model import LanguageModel, tiny_language_model
from perimetry.activations.twins import TwinRows
from perimetry.errors import CorruptArtifact, MissingFile, ModelMismatch, StorageError, UsageError
from perimetry.robust.adapter import Tunable
from perimetry.robust.passes import run
from perimetry.robust.recipe import TuneConfig
from perimetry.robust.saved import save_tuned


def hidden(lm: LanguageModel, twins: list[TwinRows]) -> torch.Tensor:
    with torch.no_grad():
        found = run(lm, [t.corrupted for t in twins], LAYER, POLICY, to_the_end=True).hidden
    assert found is not None
    return found


@pytest.fixture
def folder(tunable: Tunable, tmp_path: Path) -> Path:
    moved(tunable)
    save_tuned(tunable, tmp_path / "adapter", {"title": "Test", "summary": ["a line"]})
    return tmp_path / "adapter"


def test_a_saved_adapter_computes_the_same_elsewhere(tunable: Tunable, folder: Path, twins: list[TwinRows]) -> None:
    bare = tiny_language_model("llama")
    before = hidden(bare, twins)
    loaded = load_adapter(bare, folder)
    assert torch.equal(hidden(loaded, twins), hidden(tunable.lm, twins))
    assert not torch.allclose(hidden(loaded, twins), before)
    assert loaded.base_revision == bare.revision != loaded.revision
    card = json.loads((folder / CARD).read_text())
    assert card["base"]["revision"] == bare.revision
    assert "a line" in (folder / "README.md").read_text()


def test_an_adapter_for_another_base_is_refused(folder: Path) -> None:
    with pytest.raises(ModelMismatch, match="was made for 'tiny-llama' of revision"):
        load_adapter(tiny_language_model("llama", seed=1), folder)
    (folder / CARD).unlink()
    with pytest.raises(ModelMismatch, match=f"carries no {CARD}"):
        load_adapter(tiny_language_model("qwen2"), folder)
    load_adapter(tiny_language_model("llama"), folder)


def test_a_folder_that_is_no_adapter_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingFile, match="no adapter at"):
        load_adapter(tiny_language_model("llama"), tmp_path / "nowhere")
    (folder / WEIGHTS).write_bytes(b"nonsense")
    with pytest.raises(CorruptArtifact, match="not safetensors"):
        load_adapter(tiny_language_model("llama"), folder)
    (folder / CONFIG).unlink()
    with pytest.raises(CorruptArtifact, match=f"lacks {CONFIG}"):
        load_adapter(tiny_language_model("llama"), folder)


def test_one_adapter_at_a_time(folder: Path) -> None:
    lm = load_adapter(tiny_language_model("llama"), folder)
    with pytest.raises(UsageError, match="carries an adapter already"):
        load_adapter(lm, folder)


def test_what_is_not_ours_is_not_replaced(tunable: Tunable, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(StorageError, match="nothing that perimetry tuned"):
        save_tuned(tunable, tmp_path, {})
    assert (tmp_path / "thesis.txt").read_text() == "mine"


def test_tuned_weights_become_a_whole_model(twins: list[TwinRows], tmp_path: Path) -> None:
    from perimetry.activations.model import load_language_model
    from perimetry.runtime import Runtime

    tunable = Tunable(tiny_language_model("llama"), TuneConfig(method="full"), LAYER)
    moved(tunable)
    save_tuned(tunable, tmp_path / "model", {})
    loaded = load_language_model(str(tmp_path / "model"), Runtime(torch.device("cpu"), torch.float32))
    torch.testing.assert_close(hidden(loaded, twins), hidden(tunable.lm, twins))
