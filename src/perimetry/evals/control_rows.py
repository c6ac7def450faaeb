"""A row of the sceptic's table: what was expected of a control, what was measured, and whether it holds."""

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from scipy import special

from perimetry.errors import UnknownName
from perimetry.measures.stats import Interval, KolmogorovSmirnov

__all__ = ["ABOVE", "BY_CHANCE", "EXPECTED", "HALF", "NOT_ABOVE", "RARE", "ControlRow", "control_row", "ks_row"]

ABOVE: Final = "above 0"
NOT_ABOVE: Final = "not above 0"
HALF: Final = "0.5 inside"
RARE: Final = "0.05 or less"
BY_CHANCE: Final = "no more than chance"
RATE: Final = 0.05

EXPECTED: Mapping[str, Callable[[float, float, float], bool]] = {
    ABOVE: lambda _, low, __: low > 0,
    NOT_ABOVE: lambda _, low, __: low <= 0,
    HALF: lambda _, low, high: low <= 0.5 <= high,
    RARE: lambda _, low, __: low <= RATE,
    BY_CHANCE: lambda estimate, _, high: estimate <= high,
}
"""What may be expected of an estimate and its interval: the whole interval above 0; not the whole of it above 0; one half
inside it; not the whole of it above .05; the estimate at most the upper end, which is what chance allows."""


class ControlRow(NamedTuple):
    """One control, or one number that stands beside the controls."""

    control: str
    """Which control: `f2_predicts_f3`, `same_table`, `untrained_sae`, `permuted_decoder`, `untrained_model`,
    `clean_against_clean`, `shuffled_labels`, `p_values`, `simulated_p_values`."""
    detector: str
    """Score that is looked at."""
    against: str
    """What is subtracted or compared with, in words; empty where there is nothing."""
    dose: float
    """Share of the words with typing errors; 0 where there are none."""
    metric: str
    """What was measured."""
    expected: str
    """One of `EXPECTED`; empty where nothing is expected and the number only stands beside."""
    holds: bool | None
    """Whether it came out as expected; None where nothing is."""
    estimate: float
    """The number."""
    low: float
    """Lower end of its interval; of what chance allows where `expected` says so."""
    high: float
    """Upper end."""
    n: int
    """Independent units: pairs, prompts or draws."""
    seed: int
    """Seed of the SAE."""
    method: str
    """How the interval was made, with its confidence."""

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return self._asdict()


def control_row(
    control: str,
    detector: str,
    metric: str,
    box: Interval,
    *,
    expected: str = "",
    against: str = "",
    dose: float = 0.0,
    seed: int = 0,
) -> ControlRow:
    """The row of an estimate with its interval, judged by what is expected. Errors: `UnknownName`.

    >>> box = Interval(0.52, 0.45, 0.59, 80, "DeLong 95 %")
    >>> control_row("clean_against_clean", "surprise", "auroc", box, expected=HALF).holds
    True
    """
    if expected and expected not in EXPECTED:
        raise UnknownName("expectation", expected, EXPECTED)
    holds = EXPECTED[expected](box.estimate, box.low, box.high) if expected else None
    numbers = (box.estimate, box.low, box.high, box.n)
    return ControlRow(control, detector, against, dose, metric, expected, holds, *numbers, seed, box.method)


def ks_row(
    control: str,
    detector: str,
    test: KolmogorovSmirnov,
    *,
    n: int,
    against_n: int | None,
    significance: float,
    against: str = "",
    seed: int = 0,
) -> ControlRow:
    """The row of a Kolmogorov-Smirnov test: the distance, and the largest one that chance allows at `significance`.

    `n` values were compared with `against_n` others, or, with None, with the uniform distribution. Asymptotic.
    """
    size = n if against_n is None else n * against_n / (n + against_n)
    most = float(special.kolmogi(significance)) / size**0.5
    rival = "the uniform distribution" if against_n is None else f"{against_n} calibration prompts"
    method = f"Kolmogorov-Smirnov against {rival}, p = {test.p_value:.3g}; upper end at p = {significance:.3g}"
    box = Interval(test.statistic, 0.0, most, n, method)
    return control_row(control, detector, "ks_distance", box, expected=BY_CHANCE, against=against, seed=seed)
