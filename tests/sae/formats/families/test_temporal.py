from pathlib import Path
from typing import Any

import pytest
import torch
from tests.sae.formats.families.doctor import change_tensors, copy
from tests.sae.formats.families.evaluate import GOLDEN, number, vectors, worst

from perimetry.errors import CorruptArtifact, Incompatible
from perimetry.sae.formats.build import to_sae
from perimetry.sae.formats.families import READERS
from perimetry.sae.formats.families.formula_temporal import temporal_formula
from perimetry.sae.formats.families.temporal import read, recognises

pytestmark = pytest.mark.usefixtures("here")
PATH = Path("temporalSAEs", "layer_12", "temporal")
TOKENS = {"context": 16}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return copy("temporal/tied", tmp_path) / PATH


def test_codes_and_reconstruction_are_those_of_the_reference() -> None:
    path = GOLDEN / "temporal" / "tied" / PATH
    assert [name for name, reader in READERS.items() if reader.recognises(path)] == ["temporal"]
    record, wanted = read(path, TOKENS), vectors("temporal/tied")
    codes, out = to_sae(record)(torch.from_numpy(wanted.x).float())
    assert worst(number(codes.dense()), wanted.codes) <= 1e-5
    assert worst(number(out), wanted.reconstruction) <= 1e-5
    made = temporal_formula(path, TOKENS)
    assert worst(made.codes(wanted.x), wanted.codes) <= 1e-5
    assert worst(made.output(wanted.x, wanted.codes), wanted.reconstruction) <= 1e-5
    other = to_sae(read(path, {"context": 8}))(torch.from_numpy(wanted.x).float())
    assert worst(number(other.reconstruction), wanted.reconstruction) > 1e-2, "the length of a sequence matters"
    assert (record.hook.name, record.model) == ("blocks.12.hook_resid_post", "google/gemma-2-2b")
    assert record.how["context"] == "user"


def test_the_length_of_a_sequence_is_asked_for(folder: Path) -> None:
    assert recognises(folder)
    with pytest.raises(CorruptArtifact, match=r"context is not given.*--set context="):
        read(folder, {})


@pytest.mark.parametrize(
    ("old", "new", "error", "message"),
    [
        ("n_attn_layers: 1", "n_attn_layers: 2", Incompatible, "one layer of attention is read"),
        ("tied_weights: true", "tied_weights: false", Incompatible, "an encoder of its own has no counterpart"),
        ("sae_diff_type: topk", "sae_diff_type: relu", Incompatible, "the novel part is TopK here"),
        ("  kval_topk: 4\n", "", CorruptArtifact, "k is not given"),
        ("  scaling_factor: 0.35\n", "", CorruptArtifact, "scaling_factor is not given"),
        ("scaling_factor: 0.35", "scaling_factor: -1", CorruptArtifact, "a positive number is wanted"),
        ("dimin: 16", "dimin: 32", CorruptArtifact, "says another width or expansion"),
    ],
)
def test_other_kinds_are_refused(folder: Path, old: str, new: str, error: type[Exception], message: str) -> None:
    file = folder / "conf.yaml"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))
    with pytest.raises(error, match=message):
        read(folder, TOKENS)


def test_tensors_are_those_of_one_layer(folder: Path) -> None:
    def grow(tensors: dict[str, Any]) -> None:
        tensors["E"] = tensors["D"].T

    change_tensors(folder / "latest_ckpt.safetensors", grow)
    with pytest.raises(CorruptArtifact, match=r"unknown \['E'\]"):
        read(folder, TOKENS)
