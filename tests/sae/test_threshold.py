import pytest
import torch

from perimetry.errors import NonFinite
from perimetry.runtime import generator
from perimetry.sae import BatchTopKSAE
from perimetry.sae.threshold import fit_threshold, settle_threshold


def test_the_threshold_gives_the_wanted_count_and_is_the_highest_that_does() -> None:
    sae, x = BatchTopKSAE.tiny(), torch.randn(333, 8, generator=generator(2))
    for k in (1, 4, 9):
        sae.threshold = fit_threshold(sae, x, k)
        assert float(sae.encode(x).count().mean()) == pytest.approx(k, abs=1e-6)
        raised = torch.nextafter(torch.tensor(sae.threshold), torch.tensor(torch.inf))
        assert float(sae.count_above(x, raised).mean()) < k


def test_the_threshold_is_zero_where_too_few_are_positive() -> None:
    sae = BatchTopKSAE.tiny()
    with torch.no_grad():
        sae.b_enc.fill_(-50.0)
    assert fit_threshold(sae, torch.randn(20, 8, generator=generator(3)), 4) == 0.0


def test_a_threshold_that_is_no_number_is_refused() -> None:
    assert settle_threshold(0.5) == {"threshold_rule": "mean L0 = k on held-out tokens"}
    with pytest.raises(NonFinite, match="the fitted threshold is nan; a finite one is wanted; lower lr"):
        settle_threshold(float("nan"))
