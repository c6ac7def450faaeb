from pathlib import Path
from typing import Any

import pytest
import torch
from tests.sae.formats.families.doctor import Change, change_json, change_pickle, copy
from tests.sae.formats.families.evaluate import evaluate, vectors, worst

from perimetry.errors import CorruptArtifact, Incompatible, UnknownName
from perimetry.sae.formats.families.dictionary_learning import read, recognises
from perimetry.sae.formats.record import BatchTopKGate

pytestmark = pytest.mark.usefixtures("here")


@pytest.mark.parametrize(
    ("name", "weights", "config", "error", "message"),
    [
        (
            "BatchTopKSAE",
            lambda t: t["threshold"].fill_(-1),
            None,
            Incompatible,
            "threshold is -1, which means that it was never tracked",
        ),
        ("BatchTopKSAE", lambda t: t["threshold"].fill_(-0.5), None, CorruptArtifact, "the threshold is -0.5"),
        ("AutoEncoderTopK", None, lambda c: c["trainer"].update(k=5), CorruptArtifact, "k is 5, the weights say 4"),
        ("AutoEncoderTopK", None, lambda c: c["trainer"].pop("k"), CorruptArtifact, "k is not given"),
        (
            "MatryoshkaBatchTopKSAE",
            lambda t: t["group_sizes"].add_(1),
            None,
            CorruptArtifact,
            r"group_sizes \[13, 13, 25\] are not the parts of 48",
        ),
        (
            "AutoEncoderNew",
            None,
            lambda c: c["trainer"].update(dict_class="AutoEncoder"),
            CorruptArtifact,
            r"missing \['bias'\], unknown \['decoder.bias'\]",
        ),
        (
            "AutoEncoderNew",
            None,
            lambda c: c["trainer"].update(dict_class="IdentityDict"),
            UnknownName,
            "unknown class of dictionary_learning 'IdentityDict'",
        ),
        (
            "AutoEncoderNew",
            None,
            lambda c: c["trainer"].update(dict_size=64),
            CorruptArtifact,
            r"encoder has shape \(48, 16\).*says \(64, 16\)",
        ),
    ],
)
def test_what_is_missing_or_contradicts_is_refused(
    name: str, weights: Change | None, config: Change | None, error: type[Exception], message: str, tmp_path: Path
) -> None:
    folder = copy(f"dictionary_learning/{name}", tmp_path) / "trainer_0"
    if weights:
        change_pickle(folder / "ae.pt", weights)
    if config:
        change_json(folder / "config.json", config)
    with pytest.raises(error, match=message):
        read(folder, {}, unsafe_pickle=True)


def test_the_backup_of_an_interrupted_training_is_refused(tmp_path: Path) -> None:
    folder = copy("dictionary_learning/BatchTopKSAE", tmp_path) / "trainer_0"
    state = torch.load(folder / "ae.pt", weights_only=True)
    backup: dict[str, Any] = {"step": 7, "ae": state, "optimizer": {"state": {}}, "config": {}, "norm_factor": 3.0}
    torch.save(backup, folder / "ae.pt")
    with pytest.raises(Incompatible, match=r"interrupted training \(step 7\)"):
        read(folder, {}, unsafe_pickle=True)


def test_a_checkpoint_is_read_by_its_file(tmp_path: Path) -> None:
    folder = copy("dictionary_learning/BatchTopKSAE", tmp_path) / "trainer_0"
    (folder / "checkpoints").mkdir()
    file = (folder / "ae.pt").rename(folder / "checkpoints" / "ae_500.pt")
    assert recognises(file)
    assert not recognises(folder)
    record = read(file, {"hook_name": "blocks.3.hook_resid_pre"}, unsafe_pickle=True)
    assert "a checkpoint of step 500" in record.notes
    assert record.hook.name == "blocks.3.hook_resid_pre"
    assert set(record.source.files) == {"ae_500.pt", "config.json"}


def test_the_threshold_of_a_topk_is_used_on_request(tmp_path: Path) -> None:
    case = "dictionary_learning/AutoEncoderTopK"
    record = read(copy(case, tmp_path) / "trainer_0", {"use_threshold": True}, unsafe_pickle=True)
    assert isinstance(record.gate, BatchTopKGate)
    assert record.gate.k == 4
    assert record.gate.threshold == pytest.approx(0.9)


def test_norms_may_be_kept(tmp_path: Path) -> None:
    case = "dictionary_learning/AutoEncoder"
    record = read(copy(case, tmp_path) / "trainer_0", {"fold_decoder_norms": False}, unsafe_pickle=True)
    wanted = vectors(case)
    found = evaluate(record, wanted.x)
    assert worst(found.reconstruction, wanted.reconstruction) <= 1e-5
    assert worst(found.codes, wanted.codes) > 0.1, "the library's loader gives codes for unit rows"


def test_matryoshka_keeps_its_widths(tmp_path: Path) -> None:
    folder = copy("dictionary_learning/MatryoshkaBatchTopKSAE", tmp_path) / "trainer_0"
    assert read(folder, {}, unsafe_pickle=True).training["details"] == {"widths": [12, 24, 48]}
    change_json(folder / "config.json", lambda c: c["trainer"].update(submodule_name="mlp3"))
    record = read(folder, {}, unsafe_pickle=True)
    assert record.hook.name is None
    assert any("submodule 'mlp3' of layer 3" in note for note in record.notes)
