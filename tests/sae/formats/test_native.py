"""The native format: everything of ours goes in and comes out the same."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from perimetry.artifact import MANIFEST
from perimetry.errors import CorruptArtifact, Incompatible, NonFinite, PerimetryError, UnknownName
from perimetry.runtime import generator
from perimetry.sae import ARCHITECTURES
from perimetry.sae.base import AbstractSAE
from perimetry.sae.formats import LoadedSAE, SAEInfo, load_sae, save_sae
from perimetry.sae.formats.info import require_measured
from perimetry.sae.formats.wrapped import WRAPPERS, EncoderOnlySAE, NormalisedSAE

CLASSES: dict[str, type[AbstractSAE]] = {**ARCHITECTURES, **WRAPPERS}


def saved(sae: AbstractSAE, folder: Path, **more: Any) -> LoadedSAE:
    save_sae(sae, folder, SAEInfo(architecture=sae.architecture, layer=3), native=True, **more)
    return load_sae(folder)


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_every_architecture_comes_back_the_same(name: str, tmp_path: Path) -> None:
    sae = CLASSES[name].tiny()
    loaded = saved(sae, tmp_path / "s")
    assert {f.name for f in (tmp_path / "s").iterdir()} == {"dictionary.json", "dictionary.safetensors", MANIFEST}
    assert type(loaded.sae) is type(sae)
    assert loaded.verified
    assert loaded.info.layer == 3
    before, after = sae.state(), loaded.sae.state()
    assert before.settings == after.settings
    assert before.tensors.keys() == after.tensors.keys()
    assert all(torch.equal(before.tensors[k], after.tensors[k]) for k in before.tensors)
    again = tmp_path / "again"
    assert save_sae(loaded.sae, again, loaded.info, native=True) == loaded.info.digest


@pytest.mark.parametrize("name", sorted(CLASSES.keys() - {"encoder_only"}))
def test_every_architecture_computes_the_same(name: str, tmp_path: Path) -> None:
    sae = CLASSES[name].tiny()
    acts = torch.randn(20, sae.d_model, generator=generator(3))
    loaded = saved(sae, tmp_path / "s").sae
    assert torch.equal(sae(acts).reconstruction, loaded(acts).reconstruction)


def test_what_saelens_cannot_hold_is_native_without_asking(tmp_path: Path) -> None:
    for name, sae in (
        ("normalised", NormalisedSAE(ARCHITECTURES["topk"].tiny(), "constant_norm")),
        ("encoder_only", EncoderOnlySAE.tiny()),
    ):
        save_sae(sae, tmp_path / name, SAEInfo(architecture=name))
        assert (tmp_path / name / "dictionary.json").is_file()
    save_sae(NormalisedSAE.tiny(), tmp_path / "ln", SAEInfo(architecture="normalised"))
    config = json.loads((tmp_path / "ln" / "cfg.json").read_text())
    assert (config["architecture"], config["normalize_activations"], config["k"]) == ("topk", "layer_norm", 4)
    loaded = load_sae(tmp_path / "ln").sae
    assert isinstance(loaded, NormalisedSAE)
    acts = torch.randn(20, 8, generator=generator(3))
    assert torch.equal(loaded(acts).reconstruction, NormalisedSAE.tiny()(acts).reconstruction)


def test_units_of_thresholds_are_said(tmp_path: Path) -> None:
    saved(ARCHITECTURES["jumprelu"].tiny(), tmp_path / "s")
    document = json.loads((tmp_path / "s" / "dictionary.json").read_text())
    assert document["schema"] == "1.0"
    assert document["units"] == {"threshold": "pre-activations of raw activations"}
    assert document["count_mode"] == "free"


def rewrite(folder: Path, **changes: Any) -> Path:
    (folder / MANIFEST).unlink(missing_ok=True)
    file = folder / "dictionary.json"
    document = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({k: v for k, v in document.items() if v is not None}))
    return folder


def test_fields_of_a_newer_minor_version_are_kept(tmp_path: Path) -> None:
    saved(ARCHITECTURES["topk"].tiny(), tmp_path / "s")
    loaded = load_sae(rewrite(tmp_path / "s", schema="1.7", later={"x": [1]}))
    assert not loaded.verified
    assert loaded.info.unknown == {"later": {"x": [1]}}
    save_sae(loaded.sae, tmp_path / "t", loaded.info, native=True)
    assert json.loads((tmp_path / "t" / "dictionary.json").read_text())["later"] == {"x": [1]}


BAD: list[tuple[dict[str, Any], type[PerimetryError], str]] = [
    ({"schema": "2.0"}, Incompatible, r"has schema 2\.0, this version reads 1\.0; use a newer perimetry"),
    ({"schema": None}, CorruptArtifact, "is no object with a schema"),
    ({"architecture": "tok"}, UnknownName, "unknown SAE architecture 'tok'; the nearest name is 'topk'"),
    ({"architecture": "batchtopk"}, CorruptArtifact, "contradicts itself on the architecture"),
    ({"settings": None}, CorruptArtifact, "no object 'settings' or no object 'info'"),
    (
        {"settings": {"subtract_b_dec": True}},
        CorruptArtifact,
        r"lacks what a 'topk' SAE is rebuilt from \(KeyError: 'k'\)",
    ),
    ({"settings": {"k": 99, "subtract_b_dec": True}}, PerimetryError, "k = 99 for a dictionary of 32 latents"),
]


@pytest.mark.parametrize(("changes", "error", "message"), BAD)
def test_what_is_wrong_is_refused(
    changes: dict[str, Any], error: type[PerimetryError], message: str, tmp_path: Path
) -> None:
    saved(ARCHITECTURES["topk"].tiny(), tmp_path / "s")
    with pytest.raises(error, match=message):
        load_sae(rewrite(tmp_path / "s", **changes))


def test_a_changed_byte_is_noticed(tmp_path: Path) -> None:
    saved(ARCHITECTURES["topk"].tiny(), tmp_path / "s")
    weights = tmp_path / "s" / "dictionary.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(bytes(data))
    with pytest.raises(CorruptArtifact, match="does not hash as its manifest says"):
        load_sae(tmp_path / "s")


def test_nothing_bad_is_written(tmp_path: Path) -> None:
    sae = ARCHITECTURES["spade"].tiny()
    with torch.no_grad():
        sae.W_dec[0, 0] = torch.inf
    with pytest.raises(NonFinite):
        saved(sae, tmp_path / "s")
    assert not (tmp_path / "s").exists()


def test_a_dictionary_of_ours_needs_no_certificate(tmp_path: Path) -> None:
    require_measured(saved(ARCHITECTURES["topk"].tiny(), tmp_path / "s"), "a meter")
