"""What a dictionary is held against: the same recipe where something was never learned."""

import shutil
from pathlib import Path
from typing import Any, NamedTuple

import torch

from perimetry.activations.masking import Masking
from perimetry.activations.model import LanguageModel
from perimetry.activations.policy import TokenPolicy
from perimetry.activations.store import ActivationStore, HarvestConfig, harvest
from perimetry.artifact import MANIFEST
from perimetry.assets import ASSETS
from perimetry.config import build
from perimetry.errors import Incompatible
from perimetry.evals.controls import untrained_model
from perimetry.evals.sae import Place, Subject
from perimetry.evals.sae.fidelity import Fidelity
from perimetry.evals.sae.shelf import Shelf
from perimetry.pipeline.bench_suites import not_held_out
from perimetry.pipeline.controls_meters import mean_l0
from perimetry.pipeline.evaluation_config import Control, EvaluationConfig
from perimetry.pipeline.evaluation_subjects import Evaluated
from perimetry.sae.affine import AffineSAE
from perimetry.sae.controls import untrained
from perimetry.sae.formats import load_sae
from perimetry.storage import hash_json
from perimetry.train import TrainConfig, train_many

__all__ = ["OWN_SETTLE", "ControlMaker", "settle_reader"]

SETTLE_SPLIT = (0.9, 0.95)
"""Share of an asset's documents on which counts are settled: training may have seen them, fidelity is measured on others."""
OWN_SETTLE = (0.0, 0.5)
"""The same of a source of the user's own."""
SETTLE_ROWS = 32
STORES = "stores"
BATCH_TOKENS = 4096


class ControlMaker:
    """Makes the controls of dictionaries; what several need is made once: untrained models, and the text they are trained on."""

    def __init__(self, config: EvaluationConfig, out: Path, shelf: Shelf) -> None:
        self.config, self.out, self.shelf = config, out, shelf
        self.blank: dict[str, LanguageModel] = {}

    def control(self, kind: Control, subject: Evaluated, *, progress: bool = False) -> Subject:
        """The control of a dictionary, trained below `out` where it must be; killed, the same call goes on.

        Errors: `Incompatible` for a dictionary that does not say how it was trained or has no such control, and those of training.
        """
        one = subject.subject
        if kind == "untrained_dictionary":
            return _untrained(one, self.config, self.shelf, progress=progress)
        lm = one.place.lm if kind == "frozen_decoder" else self._blank_of(one.place.lm)
        recipe = _recipe(subject, self.config, frozen=kind == "frozen_decoder")
        harvested = self._harvested(subject, recipe, lm)
        folder = self.out / hash_json({"recipe": recipe.model_dump(mode="json"), "of": harvested.key})[:16]
        if not (folder / "sae" / "sae" / MANIFEST).is_file():
            store = harvested.store(self.out / STORES, progress=progress)
            train_many([recipe], store, [folder / "sae"], progress=progress)
        made = load_sae(folder / "sae" / "sae")
        policy = build(TokenPolicy, made.info.policy, f"token policy of {folder}")
        return Subject(one.name, made.sae, _place(one.place, lm, policy), self.config.control_seed)

    def clear(self) -> None:
        """Remove the activations that controls were trained on."""
        shutil.rmtree(self.out / STORES, ignore_errors=True)

    def _blank_of(self, lm: LanguageModel) -> LanguageModel:
        if lm.revision not in self.blank:
            self.blank[lm.revision] = untrained_model(lm, self.config.control_seed)
        return self.blank[lm.revision]

    def _harvested(self, subject: Evaluated, recipe: TrainConfig, lm: LanguageModel) -> "_Harvested":
        one, info = subject.subject, subject.loaded.info
        masking = build(Masking, info.masking, f"masking of {one.name}") if info.masking else None
        context = info.context_size or 128
        settings = HarvestConfig(
            tokens=recipe.tokens + recipe.threshold_tokens,
            context=context,
            batch_rows=max(1, BATCH_TOKENS // context),
            policy=one.place.policy.model_copy(update={"max_norm": None}),
            seed=recipe.data_seed,
            masking=masking,
        )
        return _Harvested(lm, one.place.layer, info.dataset or self.config.fidelity.text, settings)


class _Harvested(NamedTuple):
    """Activations that a control is trained on."""

    lm: LanguageModel
    layer: int
    text: str
    settings: HarvestConfig

    @property
    def key(self) -> dict[str, Any]:
        """What they depend on."""
        about = {"model": self.lm.revision, "tokenizer": self.lm.tokenizer_hash, "layer": self.layer, "text": self.text}
        return about | {"settings": self.settings.model_dump(mode="json"), "dtype": str(self.lm.dtype)}

    def store(self, folder: Path, *, progress: bool) -> ActivationStore:
        """The activations on disk, shared by all controls that read the same."""
        documents = not_held_out(self.text, progress)
        place = folder / hash_json(self.key)[:16]
        return harvest(self.lm, [self.layer], documents, place, self.settings, progress=progress)[self.layer]


def _place(like: Place, lm: LanguageModel, policy: Any) -> Place:
    """On the subject's own model its own policy, so that the same tokens count; on another one what was fitted there."""
    return like if lm is like.lm else Place(lm, like.layer, policy)


def settle_reader(fidelity: Fidelity, rows: int) -> Fidelity:
    """What reads the text on which counts are settled: of an asset documents that are not measured on, of another source half of it."""
    own = fidelity.text not in ASSETS
    split = OWN_SETTLE if own else SETTLE_SPLIT
    return fidelity.model_copy(update={"split": split, "split_own": own, "rows": rows})


def _untrained(one: Subject, config: EvaluationConfig, shelf: Shelf, *, progress: bool) -> Subject:
    if not isinstance(one.sae, AffineSAE):
        raise Incompatible(
            f"{one.name!r} is a {one.sae.architecture}, which has no untrained twin; one with an encoder matrix is wanted, such as "
            "batchtopk; leave this control out"
        )
    reader = settle_reader(config.fidelity, SETTLE_ROWS)
    held = reader.rows_once(one.place, shelf, progress=progress)
    acts = reader.acts_once(one.place, held, shelf, progress=progress)["acts"]
    with torch.no_grad():
        blank = untrained(one.sae, config.control_seed, acts, max(1, round(mean_l0(one.sae, acts))))
    return one._replace(sae=blank, seed=config.control_seed)


def _recipe(subject: Evaluated, config: EvaluationConfig, *, frozen: bool) -> TrainConfig:
    """How the subject was trained, with what makes it a control."""
    given = subject.loaded.info.train
    if not given:
        raise Incompatible(
            f"{subject.subject.name!r} does not say how it was trained, so no control can be trained like it; leave out the controls "
            "frozen_decoder and untrained_model"
        )
    own: dict[str, Any] = {"seed": config.control_seed}
    own |= {"frozen": "decoder"} if frozen else {}
    own |= {"tokens": config.control_tokens} if config.control_tokens else {}
    return build(TrainConfig, {**given, **own}, f"recipe of {subject.subject.name}")
