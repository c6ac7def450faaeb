"""The cumulative sum of small p-values (Page 1954): drift that comes slowly, or in a small share of the prompts, adds up.

S <- max(0, S + ln 1/2 - 1/2 ln p). Under uniform p-values ln 1/2 - 1/2 ln p has the mean -.19, so that S keeps returning to 0; it is the
log-likelihood ratio of the density 1/2 p^-1/2 against the uniform one. Conformal p-values share a calibration set: the rate of false alarms is that
of simulations, on average over calibration sets, and no martingale bounds it.
"""

import math
from typing import Final

import numpy as np
from jaxtyping import Float

__all__ = ["cusum_path", "cusum_step"]

_START: Final = math.log(0.5)


def cusum_step(value: float, p: float) -> float:
    """The sum after one more p-value.

    >>> round(cusum_step(0.0, 1e-4), 4), cusum_step(1.0, 1.0) < 1, cusum_step(0.0, 1.0)
    (3.912, True, 0.0)
    """
    return max(0.0, value + _START - 0.5 * math.log(p))


def cusum_path(p: Float[np.ndarray, "run step"]) -> Float[np.ndarray, "run step"]:
    """The sums along whole runs, each from 0.

    >>> bool(np.allclose(cusum_path(np.array([[0.9, 0.1, 0.2]]))[0, 1:], [0.4581, 0.5697], atol=1e-4))
    True
    """
    summed = np.cumsum(_START - 0.5 * np.log(p), axis=1)
    # max(0, S + x) step by step is the sum less its lowest point so far, the start included.
    return summed - np.minimum(np.minimum.accumulate(summed, axis=1), 0.0)
