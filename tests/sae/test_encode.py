"""Encoding of a batch large enough for the product of few bits gives what the dense float32 product gives."""

import pytest
import torch

from perimetry.sae import ARCHITECTURES
from perimetry.sae.affine import AffineSAE, Weights
from perimetry.sae.steps import low, native
from perimetry.sae.steps.costs import host_costs

TOKENS, D_MODEL, D_SAE = 600, 64, 4096
SETTINGS = {
    "standard": {},
    "batchtopk": {"k": 20, "threshold": 2.0},
    "matryoshka": {"k": 20, "threshold": 2.0},
    "jumprelu": {},
}


def make(name: str) -> AffineSAE:
    draw = torch.Generator().manual_seed(3)
    rows = torch.randn(D_SAE, D_MODEL, generator=draw)
    rows /= rows.norm(dim=1, keepdim=True)
    bias = torch.full((D_SAE,), -2.0 if name == "standard" else 0.0)
    weights = Weights(rows.clone(), rows, bias, 0.1 * torch.randn(D_MODEL, generator=draw))
    extras = {"threshold": 1.5 + torch.rand(D_SAE, generator=draw)} if name == "jumprelu" else {}
    sae = ARCHITECTURES[name].rebuild(weights, extras=extras, settings=SETTINGS[name])
    assert isinstance(sae, AffineSAE)
    return sae


@pytest.mark.parametrize("selection", ["int8", "bf16", "float32"])
@pytest.mark.parametrize("name", SETTINGS)
def test_what_fires_is_that_of_the_float32_product(name: str, selection: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if not host_costs()._asdict()[{"int8": "int8", "bf16": "bfloat16"}.get(selection, selection)]:
        pytest.skip(f"this processor, or this machine without a C compiler, has no product in {selection}")
    monkeypatch.setenv("PERIMETRY_SELECTION", selection)
    served: list[bool] = []
    inner = low.low_collect

    def counted(*given: object) -> object:
        found = inner(*given)  # pyright: ignore[reportArgumentType]
        served.append(found is not None)
        return found

    monkeypatch.setattr(low, "low_collect", counted)
    sae = make(name)
    acts = torch.randn(TOKENS, D_MODEL, generator=torch.Generator().manual_seed(4))
    codes = sae.encode(acts)
    pre = torch.cat([chunk for _, chunk in sae.pre_activations(acts).chunks()])
    cut = sae.cut()
    assert cut is not None
    wanted = torch.where(pre > cut.clamp(min=0), pre, 0.0)
    found = torch.zeros_like(pre).scatter_add_(1, codes.indices, codes.values)
    # A value within rounding of its cut may fall on either side.
    clear = (pre - cut).abs() > 1e-5
    torch.testing.assert_close(found[clear], wanted[clear], rtol=1e-5, atol=1e-5)
    assert 0.001 < float((wanted > 0).float().mean()) < 0.1
    assert bool((codes.values.diff(dim=1) <= 0).all())
    assert bool((codes.indices[codes.values == 0] == 0).all())
    if selection != "float32" and native.usable(acts, sae.W_enc.detach(), sae.b_enc.detach()):
        assert served == [True]
