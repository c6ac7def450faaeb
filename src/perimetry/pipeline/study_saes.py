"""The SAEs of a study: which there are, and their training from one run of the model."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from perimetry.activations.masking import Masking
from perimetry.activations.model import LanguageModel
from perimetry.activations.store import HarvestConfig, harvest
from perimetry.artifact import MANIFEST
from perimetry.assets import Document
from perimetry.pipeline.study_config import MASKED, StudyConfig
from perimetry.pipeline.training import describe_source
from perimetry.sae.formats import LoadedSAE, load_sae
from perimetry.train import Job, View, train_jobs

__all__ = [
    "Cell",
    "Quality",
    "StudySAE",
    "cells_of",
    "chunks_of",
    "load_trained",
    "quality_of",
    "sae_folder",
    "train_layers",
]


class Cell(NamedTuple):
    """What a score is measured on, whatever the seed: an SAE, or a layer alone for what reads no SAE."""

    layer: int
    """Block whose output is read."""
    architecture: str
    """Of the SAE, `masked-` in front where it was trained on masked text; empty where none is read."""
    width: int
    """Latents of the SAE; 0 where none is read."""

    def describe(self) -> str:
        """A few words."""
        return f"layer {self.layer}, {self.architecture} {self.width}" if self.architecture else f"layer {self.layer}"


class StudySAE(NamedTuple):
    """One SAE of a study."""

    cell: Cell
    """All but its seed."""
    seed: int
    """Of its weights."""

    @property
    def name(self) -> str:
        """Name of its folders, below that of its layer.

        >>> StudySAE(Cell(6, "topk", 64), 0).name
        'topk-64-seed-0'
        """
        return f"{self.cell.architecture}-{self.cell.width}-seed-{self.seed}"


class Quality(NamedTuple):
    """How good an SAE is, on tokens that it was not trained on."""

    fvu: float
    """Fraction of variance unexplained; lower is better."""
    l0: float
    """Mean active count."""
    dead: float
    """Share of latents that never fired."""
    digest: str
    """Identity of the artifact."""


def cells_of(config: StudyConfig, layer: int) -> list[Cell]:
    """The SAEs of a layer but for their seeds, in the order of the configuration."""
    return [Cell(layer, architecture, width) for architecture in config.architectures for width in config.widths]


def chunks_of(config: StudyConfig, layer: int) -> list[list[StudySAE]]:
    """The SAEs of a layer, those together that share a run of the model; the seeds of a cell are never parted."""
    most = max(1, config.together // len(config.seeds))
    cells = cells_of(config, layer)
    return [
        [StudySAE(cell, seed) for cell in cells[first : first + most] for seed in config.seeds]
        for first in range(0, len(cells), most)
    ]


def sae_folder(out: Path, sae: StudySAE) -> Path:
    """Where the training of an SAE lies; the SAE itself is `sae` in it."""
    return out / "sae" / f"layer-{sae.cell.layer:02d}" / sae.name


def load_trained(out: Path, sae: StudySAE) -> LoadedSAE:
    """A trained SAE of the study. Errors: `MissingFile`, `CorruptArtifact`."""
    return load_sae(sae_folder(out, sae) / "sae")


def quality_of(out: Path, sae: StudySAE) -> Quality:
    """What training measured of an SAE of the study. Errors: as `load_trained`."""
    info = load_trained(out, sae).info
    fvu, l0, dead = (float(info.details[name]) for name in ("fvu", "l0", "dead"))
    return Quality(fvu, l0, dead, str(info.digest))


def train_layers(
    config: StudyConfig, lm: LanguageModel, documents: Sequence[Document], out: Path, *, progress: bool
) -> None:
    """Train every SAE of the study that is not there yet; all layers are harvested in one run of the model, and in another one
    where SAEs learn from masked text.

    Layer after layer, all SAEs of one on the same batches. Killed, the same call goes on from the last checkpoints.
    Errors: those of `harvest` and `train_jobs`.
    """
    for masking in (None, config.masking):
        _train_on(config, masking, lm, documents, out, progress=progress)


def _train_on(
    config: StudyConfig,
    masking: Masking | None,
    lm: LanguageModel,
    documents: Sequence[Document],
    out: Path,
    *,
    progress: bool,
) -> None:
    """Train those that learn from text masked in this way, or from text as it is."""
    wanted = {
        layer: [
            sae
            for chunk in chunks_of(config, layer)
            for sae in chunk
            if sae.cell.architecture.startswith(MASKED) == (masking is not None)
        ]
        for layer in config.layers
    }
    missing = [
        layer
        for layer, saes in wanted.items()
        if not all((sae_folder(out, sae) / "sae" / MANIFEST).is_file() for sae in saes)
    ]
    if not missing:
        return
    recipe = config.recipe
    settings = HarvestConfig(
        # More than is trained on, so that thresholds and measures come from tokens never trained on.
        tokens=recipe.tokens + recipe.threshold_tokens,
        context=config.context,
        batch_rows=max(1, 4096 // config.context),
        masking=masking,
    )
    folder = out / ("store" if masking is None else "store-masked")
    stores = harvest(lm, missing, documents, folder, settings, progress=progress)
    for layer in missing:
        info = describe_source(lm, layer, stores[layer], config.text, config.context)
        info |= {} if masking is None else {"masking": masking.model_dump(mode="json")}
        jobs = [_job(config, sae, info, out) for sae in wanted[layer]]
        train_jobs(jobs, stores[layer], progress=progress)


def _job(config: StudyConfig, sae: StudySAE, info: dict[str, Any], out: Path) -> Job:
    recipe = config.recipe_of(sae.cell.architecture, sae.cell.width, sae.seed)
    return Job(recipe, sae_folder(out, sae), View(), info)
