"""The meters of a study: fitted together, kept while they may be needed again."""

import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from perimetry.activations.model import LanguageModel
from perimetry.activations.policy import TokenPolicy
from perimetry.artifact import MANIFEST
from perimetry.assets import Document
from perimetry.pipeline.study_config import StudyConfig
from perimetry.pipeline.study_saes import StudySAE, load_trained
from perimetry.shift.clean import split_clean
from perimetry.shift.evidence import Extractor
from perimetry.shift.fit import fit_meters
from perimetry.shift.loading import load_meter
from perimetry.shift.meter import Meter
from perimetry.storage import remove_stale

__all__ = ["Bench", "meter_folder", "meters_of", "prune"]


class Bench(NamedTuple):
    """What the steps of a study share."""

    config: StudyConfig
    """What is compared."""
    lm: LanguageModel
    """The language model."""
    fit_on: Sequence[Document]
    """Clean documents that the meters are fitted on."""
    out: Path
    """Folder of the study."""
    progress: bool
    """Whether bars are shown."""


def meter_folder(out: Path, sae: StudySAE) -> Path:
    """Where the meter of an SAE lies, while it is kept."""
    return out / "meters" / f"layer-{sae.cell.layer:02d}" / sae.name


def meters_of(bench: Bench, saes: Sequence[StudySAE]) -> list[Meter]:
    """The meters of some SAEs of one layer, from disk, or fitted in one run of the model and put there.

    A meter that is fitted again is the same as before: it does not depend on those fitted beside it. Errors: those of
    `load_meter` and `fit_meters`.
    """
    folders = [meter_folder(bench.out, sae) for sae in saes]
    if not all((folder / MANIFEST).is_file() for folder in folders):
        _fit(bench, saes, folders)
    # As read back, so that a run in one go and a resumed one compute with the same numbers.
    return [load_meter(folder, lm=bench.lm) for folder in folders]


def _fit(bench: Bench, saes: Sequence[StudySAE], folders: Sequence[Path]) -> None:
    config, layer = bench.config.meter, saes[0].cell.layer
    trained = [load_trained(bench.out, sae) for sae in saes]
    extractor = Extractor(bench.lm, layer, TokenPolicy.model_validate(trained[0].info.policy))
    parts = split_clean(extractor, bench.fit_on, config, passages=config.passages is not False)
    details = {"text": bench.config.text}
    meters = fit_meters(extractor, trained, parts, config, details=details, progress=bench.progress)
    for meter, folder in zip(meters, folders, strict=True):
        remove_stale(folder.parent)
        meter.save(folder)


def prune(out: Path, keep: Iterable[StudySAE]) -> None:
    """Remove the meters of a study that are not among `keep`."""
    kept = {meter_folder(out, sae) for sae in keep}
    for layer in (out / "meters").glob("layer-*"):
        for folder in layer.iterdir():
            if folder not in kept:
                shutil.rmtree(folder, ignore_errors=True)
