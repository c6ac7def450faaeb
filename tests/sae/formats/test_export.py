"""SAEs of ours for SAELens: the same function where it has a kind for it, a refusal where it has none."""

import json
from pathlib import Path

import pytest
import torch

from perimetry.errors import Incompatible, UsageError
from perimetry.runtime import generator
from perimetry.sae import ARCHITECTURES
from perimetry.sae.affine import tiny_weights
from perimetry.sae.base import AbstractSAE
from perimetry.sae.batchtopk import BatchTopKSAE
from perimetry.sae.formats import SAEInfo, load_sae, save_sae
from perimetry.sae.formats.convert import RealActivations, convert
from perimetry.sae.formats.export import is_ours, twin_of


def scaled(name: str) -> AbstractSAE:
    sae = ARCHITECTURES[name].tiny().requires_grad_(False)
    sae.fold_scale(0.4)
    return sae


def by_norm() -> BatchTopKSAE:
    weights = tiny_weights()
    return BatchTopKSAE(
        weights._replace(W_dec=weights.W_dec * torch.linspace(0.5, 2, 32)[:, None]),
        k=4,
        threshold=0.3,
        select_by_norm=True,
    )


def saved(sae: AbstractSAE, folder: Path) -> Path:
    save_sae(sae, folder, SAEInfo(architecture=sae.architecture, layer=1, policy={"prepend_bos": True}))
    return folder


CASES = {
    "archetypal": ("topk", lambda: scaled("archetypal")),
    "batchtopk": ("jumprelu", by_norm),
    "matching_pursuit": ("matching_pursuit", lambda: scaled("matching_pursuit")),
    "jumprelu": ("jumprelu", lambda: scaled("jumprelu")),
}


@pytest.mark.parametrize("name", sorted(CASES))
def test_a_twin_reconstructs_the_same_and_is_certified(name: str, tmp_path: Path) -> None:
    kind, make = CASES[name]
    sae = make()
    acts = torch.randn(60, 8, generator=generator(2))
    made = convert(
        saved(sae, tmp_path / "ours"), tmp_path / "out", certified=True, sample=lambda _: RealActivations(acts)
    )
    assert json.loads((tmp_path / "out" / "cfg.json").read_text())["architecture"] == kind
    torch.testing.assert_close(made.sae(acts).reconstruction, sae(acts).reconstruction, rtol=1e-4, atol=1e-5)
    assert made.certificate is not None
    assert made.certificate["source"]["family"] == "perimetry"
    assert made.certificate["float32"]["reconstruction"]["relative"] < 1e-5
    assert made.certificate["verdict"] != "failed"
    assert load_sae(tmp_path / "out").info.layer == 1


@pytest.mark.parametrize("name", ["spade", "sparsemax"])
def test_what_saelens_has_no_kind_for_is_refused(name: str, tmp_path: Path) -> None:
    folder = saved(ARCHITECTURES[name].tiny(), tmp_path / "ours")
    with pytest.raises(
        Incompatible, match=f"SAELens has no kind for this {name} dictionary; only the native format holds it"
    ):
        convert(folder, tmp_path / "out")
    made = convert(folder, tmp_path / "out", native=True)
    assert (tmp_path / "out" / "dictionary.json").is_file()
    assert made.digest == load_sae(folder).info.digest


def test_what_needs_no_twin_is_itself() -> None:
    sae = ARCHITECTURES["topk"].tiny()
    assert twin_of(sae, SAEInfo(architecture="topk"))[0] is sae


def test_ours_are_known_by_what_they_say(tmp_path: Path) -> None:
    assert is_ours(saved(ARCHITECTURES["topk"].tiny(), tmp_path / "a"))
    assert is_ours(saved(ARCHITECTURES["spade"].tiny(), tmp_path / "b"))
    assert not is_ours(Path(__file__).parent / "golden" / "saelens" / "topk")
    assert not is_ours(tmp_path)


def test_overrides_are_not_for_ours(tmp_path: Path) -> None:
    folder = saved(ARCHITECTURES["topk"].tiny(), tmp_path / "a")
    with pytest.raises(UsageError, match=r"is an SAE of ours and says all of itself; .* leave them out"):
        convert(folder, tmp_path / "out", overrides={"k": 3})
    with pytest.raises(Incompatible, match="a native copy has no formulas of another tool"):
        convert(folder, tmp_path / "out", native=True, certified=True)
