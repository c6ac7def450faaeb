"""Goodfire, DeepSeek R1 and Qwen-Scope: what a file of one pickle must hold."""

from pathlib import Path

import pytest
import torch
from tests.sae.formats.families.doctor import change_pickle, copy

from perimetry.errors import CorruptArtifact, NonFinite
from perimetry.sae.formats.families import READERS

QWEN = "SAE-Res-Qwen3-1.7B-Base-W32K-L0_4"


@pytest.mark.usefixtures("here")
def test_qwen_scope_takes_k_from_its_repository_or_asks(tmp_path: Path) -> None:
    reader = READERS["qwen_scope"]
    file = copy("qwen_scope/base", tmp_path) / QWEN / "layer7.sae.pt"
    record = reader.read(file, {}, unsafe_pickle=True)
    assert (record.gate, record.how["k"], record.declared.l0) == ((4,), "path", 4)
    moved = file.rename(tmp_path / "layer7.sae.pt")
    assert reader.recognises(moved)
    with pytest.raises(CorruptArtifact, match=r"k is not given.*--set k="):
        reader.read(moved, {}, unsafe_pickle=True)
    told = reader.read(moved, {"k": 5}, unsafe_pickle=True)
    assert (told.gate, told.model, told.hook.layer) == ((5,), None, 7)


@pytest.mark.usefixtures("here")
def test_a_pickle_of_other_tensors_is_refused(tmp_path: Path) -> None:
    reader = READERS["goodfire"]
    folder = copy("goodfire/llama", tmp_path) / "Llama-3.1-8B-Instruct-SAE-l19"
    file = folder / "Llama-3.1-8B-Instruct-SAE-l19.pth"
    assert not reader.recognises(folder)
    change_pickle(file, lambda t: t["decoder_linear.weight"].fill_(float("inf")))
    with pytest.raises(NonFinite, match=r"NaN or infinity in 'decoder_linear.weight'"):
        reader.read(file, {}, unsafe_pickle=True)
    change_pickle(file, lambda t: (t.clear(), t.update(W_enc=torch.ones(3, 2))))
    with pytest.raises(CorruptArtifact, match=r"missing \['decoder_linear.bias'.*unknown \['W_enc'\]"):
        reader.read(file, {}, unsafe_pickle=True)


def test_a_pickle_that_runs_code_does_not(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    file = tmp_path / "DeepSeek-R1-Distill-Llama-8B-SAE-l19.pt"
    file.write_bytes(b"cposix\nsystem\n(S'touch " + str(marker).encode() + b"'\ntR.")
    reader = READERS["deepseek"]
    assert reader.recognises(file)
    with pytest.raises(CorruptArtifact, match="cannot be opened as pickle"):
        reader.read(file, {}, unsafe_pickle=True)
    assert not marker.exists()
