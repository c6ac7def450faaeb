"""What is fitted before the steps: scales and first centre."""

from collections.abc import Sequence

import torch
from torch import Tensor

from perimetry.axes import Acts, ModelBias
from perimetry.errors import NonFinite, TooFewSamples
from perimetry.measures.finite import all_finite

__all__ = ["fit_centre", "fit_scale", "fit_scales", "geometric_median", "require_finite", "scale_row"]

FLOOR = 1e-6


def require_finite(acts: Acts, what: str) -> None:
    """Raise `NonFinite` when a row holds NaN or infinity."""
    if not all_finite(acts):
        bad = int((~torch.isfinite(acts).all(dim=1)).sum())
        raise NonFinite(
            f"{what}: {bad} of {acts.shape[0]} activation rows hold NaN or infinity; finite ones are wanted; run the "
            "model in bfloat16 or float32 instead of float16, or choose an earlier layer"
        )


def fit_scale(sample: Acts, rule: str) -> float:
    """The number that activations are multiplied with: `rms1` makes the mean square norm 1, `sqrt_d` the mean norm
    sqrt(d_model), `none` is 1.

    Errors: `TooFewSamples` without a row, `NonFinite` when every row is zero.

    >>> import torch
    >>> fit_scale(torch.tensor([[3.0, 4.0], [0.0, 5.0]]), "rms1")
    0.2
    """
    if not sample.shape[0]:
        raise TooFewSamples("no activations to fit the scale on; give a source that is not empty")
    if rule == "none":
        return 1.0
    squares = sample.double().square().sum(1)
    size = float(squares.mean().sqrt()) if rule == "rms1" else float(squares.sqrt().mean()) / sample.shape[1] ** 0.5
    if size == 0:
        raise NonFinite("every activation is zero, so that no scale brings them to 1; check model, layer and text")
    return 1.0 / size


def fit_scales(sample: Acts, rule: str, parts: Sequence[int]) -> tuple[float, ...]:
    """`fit_scale` of each part of the rows; `parts` are their widths, side by side."""
    return tuple(fit_scale(part, rule) for part in sample.split(list(parts), dim=1))


def scale_row(scales: Sequence[float], parts: Sequence[int]) -> Tensor:
    """What rows are multiplied with: one number, or one a column where the parts have scales of their own.

    >>> scale_row((2.0, 3.0), (1, 2))
    tensor([2., 3., 3.])
    """
    if len(scales) == 1:
        return torch.tensor(scales[0], dtype=torch.float32)
    return torch.cat([torch.full((width,), scale) for scale, width in zip(scales, parts, strict=True)])


def fit_centre(sample: Acts, parts: Sequence[int]) -> ModelBias:
    """The geometric median of each part of the rows, side by side."""
    return torch.cat([geometric_median(part) for part in sample.split(list(parts), 1)])


def geometric_median(sample: Acts, iterations: int = 100, tolerance: float = 1e-6) -> ModelBias:
    """The point with the least mean distance to the rows (Weiszfeld); robust where a mean follows few huge rows."""
    centre = sample.mean(0)
    for _ in range(iterations):
        weights = 1 / (sample - centre).norm(dim=1).clamp(min=FLOOR)
        moved = (weights @ sample) / weights.sum()
        step = float((moved - centre).norm())
        centre = moved
        if step <= tolerance * max(FLOOR, float(centre.norm())):
            break
    return centre
