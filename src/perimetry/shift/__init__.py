"""How far an input lies outside: one detector, one file."""

from perimetry.shift.base import AbstractDetector
from perimetry.shift.concepts import L0, Bernoulli, FallaciousF1, Novelty, Surprise
from perimetry.shift.likelihood import NLL, Entropy, LogitEnergy, NLLCusum, NLLWindow
from perimetry.shift.surface import Length, Norm, TokensPerWord, UnigramSurprisal

__all__ = ["DETECTORS"]

DETECTORS: dict[str, type[AbstractDetector]] = {
    "l0": L0,
    "surprise": Surprise,
    "bernoulli": Bernoulli,
    "fallacious_f1": FallaciousF1,
    "novelty": Novelty,
    "nll": NLL,
    "nll_window": NLLWindow,
    "nll_cusum": NLLCusum,
    "entropy": Entropy,
    "logit_energy": LogitEnergy,
    "tokens_per_word": TokensPerWord,
    "unigram_surprisal": UnigramSurprisal,
    "length": Length,
    "norm": Norm,
}
"""Every detector by the name under which its score appears."""
