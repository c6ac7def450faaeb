"""How far an input lies outside: one detector, one file."""

from perimetry.shift.base import AbstractDetector
from perimetry.shift.combination import Coactivation, Transition
from perimetry.shift.concepts import L0, Bernoulli, FallaciousF1, Novelty, Surprise
from perimetry.shift.context import FallaciousF2
from perimetry.shift.controls import RandomDictionary
from perimetry.shift.energy import Energy, ShuffledDecoder
from perimetry.shift.excess import L0Excess
from perimetry.shift.foreseen import ForecastError, Unforeseen
from perimetry.shift.knn import KNN, Cosine
from perimetry.shift.likelihood import NLL, Entropy, LogitEnergy, NLLCusum, NLLWindow
from perimetry.shift.mahalanobis import Mahalanobis, RelativeMahalanobis
from perimetry.shift.pooled import CodeKNN, CodeMahalanobis
from perimetry.shift.reconstruction import PCAResidual, ReconError, ReconRelative
from perimetry.shift.surface import Length, Norm, TokensPerWord, UnigramSurprisal

__all__ = ["DETECTORS"]

DETECTORS: dict[str, type[AbstractDetector]] = {
    "l0": L0,
    "l0_excess": L0Excess,
    "surprise": Surprise,
    "bernoulli": Bernoulli,
    "energy": Energy,
    "fallacious_f1": FallaciousF1,
    "fallacious_f2": FallaciousF2,
    "novelty": Novelty,
    "coactivation": Coactivation,
    "code_knn": CodeKNN,
    "code_mahalanobis": CodeMahalanobis,
    "transition": Transition,
    "unforeseen": Unforeseen,
    "recon_error": ReconError,
    "recon_relative": ReconRelative,
    "pca_residual": PCAResidual,
    "nll": NLL,
    "nll_window": NLLWindow,
    "nll_cusum": NLLCusum,
    "entropy": Entropy,
    "logit_energy": LogitEnergy,
    "tokens_per_word": TokensPerWord,
    "unigram_surprisal": UnigramSurprisal,
    "length": Length,
    "norm": Norm,
    "mahalanobis": Mahalanobis,
    "relative_mahalanobis": RelativeMahalanobis,
    "knn": KNN,
    "cosine": Cosine,
    "random_dictionary": RandomDictionary,
    "shuffled_decoder": ShuffledDecoder,
    "forecast_error": ForecastError,
}
"""Every detector by the name under which its score appears."""
