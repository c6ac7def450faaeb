import pytest
import torch

from perimetry.errors import NonFinite, TooFewSamples
from perimetry.runtime import generator
from perimetry.train.fits import fit_scale, geometric_median, require_finite


def test_scales_bring_norms_to_what_is_promised() -> None:
    x = 7 * torch.randn(500, 12, generator=generator(0)) + 2
    assert float((x * fit_scale(x, "rms1")).square().sum(1).mean()) == pytest.approx(1.0, rel=1e-5)
    assert float((x * fit_scale(x, "sqrt_d")).norm(dim=1).mean()) == pytest.approx(12**0.5, rel=1e-5)
    assert fit_scale(x, "none") == 1.0
    with pytest.raises(TooFewSamples, match="no activations to fit"):
        fit_scale(x[:0], "rms1")
    with pytest.raises(NonFinite, match="every activation is zero"):
        fit_scale(torch.zeros(3, 2), "rms1")


def test_the_geometric_median_ignores_a_huge_row() -> None:
    x = torch.randn(201, 5, generator=generator(1))
    x[0] = 1e6
    median = geometric_median(x)
    assert float(median.norm()) < 0.5
    at = float((x - median).norm(dim=1).sum())
    for _ in range(20):
        moved = median + 0.05 * torch.randn(5, generator=generator(_))
        assert float((x - moved).norm(dim=1).sum()) >= at - 1.0


def test_rows_that_are_no_numbers_are_counted() -> None:
    x = torch.zeros(5, 3)
    require_finite(x, "here")
    require_finite(torch.full((2, 2), 3e38), "sums may overflow, rows do not")
    x[1, 0], x[4, 2] = torch.nan, torch.inf
    with pytest.raises(NonFinite, match="step 3: 2 of 5 activation rows hold NaN or infinity"):
        require_finite(x, "step 3")
