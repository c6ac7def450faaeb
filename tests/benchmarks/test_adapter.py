"""SAEBench's form of an SAE: the same codes and reconstructions as perimetry's own, read from what perimetry wrote."""

import json
from pathlib import Path
from types import ModuleType

import pytest
import torch

from perimetry.runtime import generator
from perimetry.sae import ARCHITECTURES
from perimetry.sae.base import AbstractSAE
from perimetry.sae.formats import SAEInfo, save_sae

MODULE = "peers.adapter"
EXPORTED = ("standard", "jumprelu", "topk", "batchtopk", "gated", "matryoshka")


def written(name: str, folder: Path, scale: float = 3.0) -> AbstractSAE:
    sae = ARCHITECTURES[name].tiny()
    with torch.no_grad():
        sae.W_dec.div_(sae.W_dec.norm(dim=1, keepdim=True))
    sae.fold_scale(scale)
    save_sae(sae, folder, SAEInfo(architecture=name, model="some-model", layer=2, tokens=1000, context_size=64))
    return sae


@pytest.mark.parametrize("name", EXPORTED)
def test_codes_and_reconstructions_are_the_same(module: ModuleType, tmp_path: Path, name: str) -> None:
    sae = written(name, tmp_path / "sae")
    adapter = module.Adapter(tmp_path / "sae")
    rows = torch.randn(64, sae.d_model, generator=generator(5))
    codes, reconstruction = sae(rows)
    norms = sae.W_dec.detach().norm(dim=1)
    assert norms[0] == pytest.approx(1 / 3, rel=1e-4)
    assert codes.count().sum() > 0
    torch.testing.assert_close(adapter.encode(rows), codes.dense() * norms, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(adapter(rows), reconstruction, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(adapter.encode(rows.reshape(4, 16, -1)).flatten(0, 1), adapter.encode(rows))
    torch.testing.assert_close(adapter.W_dec.norm(dim=1), torch.ones(sae.d_sae), rtol=0, atol=1e-5)


def test_it_has_what_they_read(module: ModuleType, tmp_path: Path) -> None:
    sae = written("jumprelu", tmp_path / "sae")
    adapter = module.Adapter(tmp_path / "sae").to(device="cpu", dtype=torch.bfloat16)
    assert adapter.W_enc.shape == (sae.d_model, sae.d_sae)
    assert adapter.W_dec.shape == (sae.d_sae, sae.d_model)
    assert (adapter.b_enc.shape, adapter.b_dec.shape) == ((sae.d_sae,), (sae.d_model,))
    assert (adapter.device, adapter.dtype) == (torch.device("cpu"), torch.bfloat16)
    wanted = {
        "model_name": "some-model",
        "d_in": 8,
        "d_sae": 32,
        "hook_layer": 2,
        "hook_name": "blocks.2.hook_resid_post",
    }
    plain = adapter.cfg.to_dict()
    assert {key: plain[key] for key in wanted} == wanted
    assert json.loads(json.dumps(plain)) == plain


def test_what_cannot_be_said_exactly_is_refused(module: ModuleType, tmp_path: Path) -> None:
    written("topk", tmp_path / "sae")
    file = tmp_path / "sae" / "cfg.json"
    plain = json.loads(file.read_text())
    file.write_text(json.dumps(plain | {"architecture": "matching_pursuit"}))
    with pytest.raises(ValueError, match="no adapter"):
        module.Adapter(tmp_path / "sae")
    file.write_text(json.dumps(plain | {"metadata": {}}))
    with pytest.raises(ValueError, match="trained on a model"):
        module.Adapter(tmp_path / "sae")
    uneven = ARCHITECTURES["topk"].tiny()
    with torch.no_grad():
        uneven.W_dec[0] *= 2
    save_sae(uneven, tmp_path / "uneven", SAEInfo(architecture="topk", model="some-model", layer=2))
    with pytest.raises(ValueError, match="differ in norm"):
        module.Adapter(tmp_path / "uneven")
