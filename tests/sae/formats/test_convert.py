"""From a stranger's files to an artifact of ours, certificate included; every family through its own formulas."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.sae.formats.families.evaluate import GOLDEN, number, vectors, worst
from tests.sae.formats.families.opened import opened_here
from tests.sae.formats.families.test_golden import CASES, Case

from perimetry.artifact import MANIFEST, read_artifact
from perimetry.errors import CorruptArtifact, Incompatible, MissingFile, StorageError, UnknownName, UsageError
from perimetry.runtime import generator
from perimetry.sae import ARCHITECTURES
from perimetry.sae.formats import load_sae, save_sae
from perimetry.sae.formats.convert import REFERENCES, RealActivations, convert, read_foreign
from perimetry.sae.formats.info import require_measured
from perimetry.sae.formats.readers import READERS, reader_of
from perimetry.sae.formats.reference import Reference, saelens_reference

from .planted import Planted, config_of, planted, write_folder


@pytest.fixture
def source(tmp_path: Path) -> Planted:
    return planted(tmp_path / "source")


def test_a_conversion_leaves_an_artifact_with_its_certificate(source: Planted, tmp_path: Path) -> None:
    real = RealActivations(source.acts, {"model": "tiny", "revision": "abc", "tokenizer": "def"})
    made = convert(source.folder, tmp_path / "out", certified=True, sample=lambda _: real)
    assert made.certificate is not None
    assert made.certificate["verdict"] == "exact"
    assert made.certificate["activations"] == {"model": "tiny", "revision": "abc", "tokenizer": "def"}
    files = {f.name for f in (tmp_path / "out").iterdir()}
    assert files == {"cfg.json", "sae_weights.safetensors", "certificate.json", "golden.safetensors", MANIFEST}
    loaded = load_sae(tmp_path / "out")
    assert (loaded.verified, loaded.info.digest) == (True, made.digest)
    assert loaded.certificate == made.certificate
    assert torch.equal(loaded.sae(source.acts).reconstruction, made.sae(source.acts).reconstruction)
    require_measured(loaded, "a meter")


def test_what_it_was_before_is_remembered(source: Planted, tmp_path: Path) -> None:
    convert(source.folder, tmp_path / "out", overrides={"model_name": "gpt2"})
    info = load_sae(tmp_path / "out").info
    assert (info.architecture, info.model, info.layer, info.hook_name) == (
        "jumprelu",
        "gpt2",
        1,
        "blocks.1.hook_resid_post",
    )
    assert info.policy == {"prepend_bos": True}
    assert info.origin is not None
    assert (info.origin.kind, info.origin.source.family) == ("jumprelu", "saelens")
    assert info.origin.overrides == {"model_name": "gpt2"}
    assert info.origin.how["hook"] == "file"
    assert len(info.origin.source.files["sae_weights.safetensors"]) == 64


def test_reading_and_writing_again_changes_no_byte(source: Planted, tmp_path: Path) -> None:
    made = convert(source.folder, tmp_path / "a", certified=True)
    loaded = load_sae(tmp_path / "a")
    golden = load_file(tmp_path / "a" / "golden.safetensors")
    digest = save_sae(loaded.sae, tmp_path / "b", loaded.info, certificate=loaded.certificate, golden=golden)
    assert digest == made.digest


def test_a_conversion_that_fails_is_not_written(source: Planted, tmp_path: Path) -> None:
    formulas = saelens_reference(source.folder, {})
    wrong = Reference("another library", lambda x: formulas.codes(x + 0.1), formulas.output)
    with pytest.raises(
        Incompatible, match=r"the SAE is another function than its source: .*; nothing was written; check the"
    ):
        convert(source.folder, tmp_path / "out", certified=True, reference=wrong)
    assert not (tmp_path / "out").exists()


def test_without_real_activations_it_is_for_inspection_only(source: Planted, tmp_path: Path) -> None:
    convert(source.folder, tmp_path / "a", certified=True)
    convert(source.folder, tmp_path / "b")
    with pytest.raises(
        Incompatible, match="its certificate says structural; a meter wants one that was checked on real"
    ):
        require_measured(load_sae(tmp_path / "a"), "a meter")
    with pytest.raises(
        Incompatible, match=r"its certificate says nothing; a meter wants one .* with --certify --activations"
    ):
        require_measured(load_sae(tmp_path / "b"), "a meter")


def test_a_certificate_of_other_tensors_counts_for_nothing(source: Planted, tmp_path: Path) -> None:
    made = convert(source.folder, tmp_path / "a", certified=True, sample=lambda _: RealActivations(source.acts))
    loaded = load_sae(tmp_path / "a")
    with torch.no_grad():
        loaded.sae.W_dec[0, 0] += 0.01
    save_sae(loaded.sae, tmp_path / "b", loaded.info, certificate=made.certificate)
    other = load_sae(tmp_path / "b").certificate
    assert other is not None
    assert other["verdict"] == "structural"
    assert "the tensors are not those that were certified" in other["reasons"]


def test_a_certificate_is_an_object(source: Planted, tmp_path: Path) -> None:
    (source.folder / "certificate.json").write_text("[1]")
    with pytest.raises(CorruptArtifact, match=r"certificate\.json is no object; convert the SAE again"):
        load_sae(source.folder)


def test_formats_are_found_by_their_files(source: Planted, tmp_path: Path) -> None:
    assert reader_of(source.folder) == "saelens"
    assert reader_of(source.folder, "saelens") == "saelens"
    with pytest.raises(UnknownName, match="unknown format 'saelense'; the nearest name is 'saelens'"):
        reader_of(source.folder, "saelense")
    with pytest.raises(UsageError, match=r"is of no known format \(.*saelens.*\); say which with --format"):
        reader_of(tmp_path)
    with pytest.raises(MissingFile, match="nothing at"):
        reader_of(tmp_path / "no")


def test_two_formats_in_one_folder_want_a_word(source: Planted) -> None:
    save_file({"encoder.weight": torch.ones(2, 2)}, source.folder / "sae.safetensors")
    with pytest.raises(UsageError, match="could be saelens or sparsify; say which with --format"):
        reader_of(source.folder)


def test_only_a_dictionary_is_replaced(source: Planted, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("x")
    with pytest.raises(StorageError, match="exists and is no sae"):
        convert(source.folder, tmp_path / "out")


def test_readers_have_formulas_to_be_held_against() -> None:
    assert set(REFERENCES) == set(READERS)


def test_the_native_format_may_be_asked_for(source: Planted, tmp_path: Path) -> None:
    convert(source.folder, tmp_path / "out", native=True)
    assert set(read_artifact(tmp_path / "out", "sae").documents) == {"dictionary"}
    assert load_sae(tmp_path / "out").info.origin is not None


@pytest.mark.parametrize("case", CASES, ids=[case.folder for case in CASES])
def test_each_family_is_converted_and_certified(case: Case, tmp_path: Path) -> None:
    path = GOLDEN / case.folder / case.path
    with opened_here():
        record = READERS[case.family].read(path, case.overrides, unsafe_pickle=True)
        if record.transcoder and "transcoder" not in ARCHITECTURES:
            pytest.skip("no architecture of transcoders yet")
        given = {"overrides": case.overrides, "unsafe_pickle": True, "certified": True}
        made = convert(path, tmp_path / "out", family=case.family, **given)
    assert made.certificate is not None
    assert made.certificate["verdict"] == "structural"
    assert made.certificate["float32"]["codes"]["relative"] < 1e-5
    assert made.certificate["float32"]["reconstruction"]["relative"] < 1e-5
    loaded = load_sae(tmp_path / "out")
    x = torch.from_numpy(vectors(case.folder).x).float()
    assert torch.equal(loaded.sae(x).reconstruction, made.sae(x).reconstruction)
    assert worst(number(loaded.sae(x).reconstruction), vectors(case.folder).reconstruction) <= 1e-5


def test_gated_and_pursuit_come_through(tmp_path: Path) -> None:
    draw = generator(3)
    gated = {
        "W_enc": torch.randn(8, 32, generator=draw),
        "W_dec": torch.randn(32, 8, generator=draw),
        "b_dec": torch.randn(8, generator=draw),
        "b_gate": torch.randn(32, generator=draw),
        "b_mag": torch.randn(32, generator=draw),
        "r_mag": torch.randn(32, generator=draw),
    }
    folder = write_folder(tmp_path / "g", gated, config_of("gated", 8, 32))
    _, sae = read_foreign(folder)
    assert sae.architecture == "gated"
    made = convert(folder, tmp_path / "out", certified=True)
    assert made.certificate is not None
    assert made.certificate["float64"]["codes"]["relative"] < 1e-6
    stored = load_file(tmp_path / "out" / "sae_weights.safetensors")
    assert torch.equal(stored["b_gate"], gated["b_gate"])
    assert json.loads((tmp_path / "out" / "cfg.json").read_text())["architecture"] == "gated"
