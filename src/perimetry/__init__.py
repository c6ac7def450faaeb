"""perimetry: maps the limits of what a transformer understands.

It trains sparse autoencoders on a model's activations and measures how far any input lies outside what the model knows.
Importing this package imports nothing else; the names below are loaded when they are first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from perimetry.activations.model import LanguageModel, load_language_model
    from perimetry.activations.policy import TokenPolicy
    from perimetry.activations.store import ActivationStore, HarvestConfig, harvest
    from perimetry.activations.tap import Tap
    from perimetry.assets import ASSETS, read_texts
    from perimetry.errors import PerimetryError
    from perimetry.evals import bench
    from perimetry.perturb import PERTURBATIONS
    from perimetry.report import build_report
    from perimetry.runtime import RuntimeConfig, start
    from perimetry.sae import ARCHITECTURES
    from perimetry.sae.formats import load_sae, save_sae
    from perimetry.shift import DETECTORS
    from perimetry.shift.fit import fit_meters
    from perimetry.shift.loading import load_meter
    from perimetry.shift.meter import Meter
    from perimetry.shift.reading import Reading
    from perimetry.shift.watch import watch
    from perimetry.suites import SUITES
    from perimetry.train import TrainConfig, train

__version__ = "0.1.0"

__all__ = [
    "ARCHITECTURES",
    "ASSETS",
    "DETECTORS",
    "PERTURBATIONS",
    "SUITES",
    "ActivationStore",
    "HarvestConfig",
    "LanguageModel",
    "Meter",
    "PerimetryError",
    "Reading",
    "RuntimeConfig",
    "Tap",
    "TokenPolicy",
    "TrainConfig",
    "bench",
    "build_report",
    "fit_meters",
    "harvest",
    "load_language_model",
    "load_meter",
    "load_sae",
    "read_texts",
    "save_sae",
    "start",
    "train",
    "watch",
]

_HOMES = {
    "ARCHITECTURES": "sae",
    "ASSETS": "assets",
    "DETECTORS": "shift",
    "PERTURBATIONS": "perturb",
    "SUITES": "suites",
    "ActivationStore": "activations.store",
    "HarvestConfig": "activations.store",
    "LanguageModel": "activations.model",
    "Meter": "shift.meter",
    "PerimetryError": "errors",
    "Reading": "shift.reading",
    "RuntimeConfig": "runtime",
    "Tap": "activations.tap",
    "TokenPolicy": "activations.policy",
    "TrainConfig": "train",
    "bench": "evals",
    "build_report": "report",
    "fit_meters": "shift.fit",
    "harvest": "activations.store",
    "load_language_model": "activations.model",
    "load_meter": "shift.loading",
    "load_sae": "sae.formats",
    "read_texts": "assets",
    "save_sae": "sae.formats",
    "start": "runtime",
    "train": "train",
    "watch": "shift.watch",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'perimetry' has no attribute {name!r}")
    return getattr(importlib.import_module(f"perimetry.{_HOMES[name]}"), name)
