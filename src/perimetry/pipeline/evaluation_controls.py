"""What a dictionary is held against: the same recipe where something was never learned."""

from pathlib import Path
from typing import Any

import torch

from perimetry.activations.masking import Masking
from perimetry.activations.model import LanguageModel
from perimetry.activations.store import HarvestConfig, harvest
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
from perimetry.storage import hash_json
from perimetry.train import TrainConfig, train_many

__all__ = ["control_of"]

SETTLE_SPLIT = (0.9, 0.95)
"""Share of an asset's documents on which an untrained dictionary is made to fire as often as the trained one."""
SETTLE_ROWS = 32
BATCH_TOKENS = 4096


def control_of(
    kind: Control, subject: Evaluated, config: EvaluationConfig, out: Path, shelf: Shelf, *, progress: bool = False
) -> Subject:
    """The control of a dictionary, trained below `out` where it must be; killed, the same call goes on.

    Errors: `Incompatible` for a dictionary that does not say how it was trained or has no such control, and those of training.
    """
    one = subject.subject
    if kind == "untrained_dictionary":
        return _untrained(one, config, shelf, progress=progress)
    lm = one.place.lm if kind == "frozen_decoder" else untrained_model(one.place.lm, config.control_seed)
    recipe = _recipe(subject, config, frozen=kind == "frozen_decoder")
    info = subject.loaded.info
    key = {"kind": kind, "recipe": recipe.model_dump(mode="json"), "of": subject.digest, "model": lm.revision}
    folder = out / hash_json(key)[:16]
    masking = build(Masking, info.masking, f"masking of {one.name}") if info.masking else None
    settings = HarvestConfig(
        tokens=recipe.tokens + recipe.threshold_tokens,
        context=info.context_size or 128,
        batch_rows=max(1, BATCH_TOKENS // (info.context_size or 128)),
        policy=one.place.policy.model_copy(update={"max_norm": None}),
        seed=recipe.data_seed,
        masking=masking,
    )
    documents = not_held_out(info.dataset or config.fidelity.text, progress)
    store = harvest(lm, [one.place.layer], documents, folder / "store", settings, progress=progress)[one.place.layer]
    (made,) = train_many([recipe], store, [folder / "sae"], progress=progress)
    sae = made.sae.requires_grad_(False).eval()  # noqa: FBT003
    return Subject(one.name, sae, _place(one.place, lm, store.policy), config.control_seed)


def _place(like: Place, lm: LanguageModel, policy: Any) -> Place:
    """On the subject's own model its own policy, so that the same tokens count; on another one what was fitted there."""
    return like if lm is like.lm else Place(lm, like.layer, policy)


def _untrained(one: Subject, config: EvaluationConfig, shelf: Shelf, *, progress: bool) -> Subject:
    if not isinstance(one.sae, AffineSAE):
        raise Incompatible(
            f"{one.name!r} is a {one.sae.architecture}, which has no untrained twin; one with an encoder matrix is wanted, such as "
            "batchtopk; leave this control out"
        )
    reader: Fidelity = config.fidelity.model_copy(update={"split": SETTLE_SPLIT, "rows": SETTLE_ROWS})
    held = reader.rows_once(one.place, shelf, progress=progress)
    key = reader.shelf_key(one.place, held, "counted activations, 1")
    acts = shelf.get(key, lambda: reader.counted_acts(one.place, held, progress=progress))["acts"]
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
