"""A control as a report shows it."""

from perimetry.config import Config

__all__ = ["ControlRow"]


class ControlRow(Config):
    """One control, or one number that stands beside the controls."""

    control: str
    """Which control, such as `untrained_sae`; docs/shift.md lists them all."""
    detector: str
    """Score that is looked at."""
    against: str = ""
    """What is subtracted or compared with, in words."""
    dose: float = 0.0
    """Share of the words with typing errors; 0 where there are none."""
    metric: str
    """What was measured."""
    expected: str = ""
    """What a meter that works gives, in words; empty where nothing is expected."""
    holds: bool | None = None
    """Whether it came out so; None where nothing is expected."""
    estimate: float
    """The measured number."""
    low: float
    """Lower end of its interval."""
    high: float
    """Upper end; what chance allows where `expected` says so."""
    n: int
    """Independent units: pairs, prompts or draws."""
    seed: int
    """Seed of the SAE."""
    method: str
    """How the interval was made, with its confidence."""
