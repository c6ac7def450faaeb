"""`perimetry train`: from a model and a text to SAEs on disk."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import Field

from perimetry.activations.model import LanguageModel, load_language_model
from perimetry.activations.store import ActivationStore, HarvestConfig, harvest
from perimetry.activations.stream import LiveStream, StreamConfig
from perimetry.activations.tap import hook_name
from perimetry.assets import Document, read_texts
from perimetry.config import Config
from perimetry.errors import TooFewSamples
from perimetry.runtime import Runtime, dtype_name
from perimetry.train import TrainConfig, TrainResult, train_many

__all__ = ["TrainedSAE", "TrainingPlan", "describe_source", "middle_layer", "run_training", "train_seeds"]


class TrainingPlan(Config):
    """What is trained on, beside the recipe."""

    model: str
    """Asset name, local folder or hub id."""
    text: str
    """Asset name, .jsonl, .txt or folder."""
    layer: int | None = Field(default=None, ge=0)
    """Block to tap, from 0; None is the middle one."""
    context: int = Field(default=128, ge=8)
    """Tokens of one packed row of text."""
    epochs: float = Field(default=1.0, gt=0)
    """Times each harvested token is seen."""
    live: bool = False
    """Train straight from the model, without a store."""
    seeds: tuple[int, ...] = (0,)
    """Seeds of the SAEs, all trained on the same batches."""
    store: str | None = None
    """Folder of the activation store; None is `store` in the output folder."""


class TrainedSAE(NamedTuple):
    """One SAE that was trained."""

    path: Path
    """Folder to give to `perimetry calibrate --sae`."""
    digest: str
    """Identity of the artifact."""
    seed: int
    """Seed of its weights."""
    fvu: float
    """Fraction of variance unexplained on held-out tokens; lower is better."""
    l0: float
    """Mean active count there."""
    dead: float
    """Share of latents that never fired there."""

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return self._asdict() | {"path": str(self.path)}


def middle_layer(lm: LanguageModel, layer: int | None) -> int:
    """The block to tap: the one asked for, else a little before the middle, where features are richest."""
    return layer if layer is not None else max(0, lm.n_layers * 2 // 5)


def describe_source(
    lm: LanguageModel, layer: int, source: ActivationStore | LiveStream, text: str, context: int
) -> dict[str, Any]:
    """What is stored beside an SAE of where its training data came from."""
    name = hook_name(layer, lm.family)
    return {
        "model": lm.origin,
        "revision": lm.revision,
        "layer": layer,
        "hook_name": name.transformer_lens,
        "hf_hook_name": name.hugging_face,
        "policy": source.policy.model_dump(mode="json"),
        "dtype": dtype_name(lm.dtype),
        "context_size": context,
        "dataset": text,
    }


def train_seeds(
    recipe: TrainConfig,
    seeds: Sequence[int],
    source: ActivationStore | LiveStream,
    out: Path,
    info: dict[str, Any],
    *,
    progress: bool,
) -> list[TrainResult]:
    """One SAE a seed on the same batches: in `out` when there is one seed, else in `out/seed-N`."""
    configs = [recipe.model_copy(update={"seed": seed}) for seed in seeds]
    folders = [out] if len(seeds) == 1 else [out / f"seed-{seed}" for seed in seeds]
    return train_many(configs, source, folders, progress=progress, model_info=info)


def _require_rows(rows: int, tokens: int, plan: TrainingPlan) -> None:
    """Refuse to repeat a text more often than was asked for."""
    if rows * plan.epochs < tokens:
        raise TooFewSamples(
            f"the text {plan.text!r} gives {rows:,} tokens, {plan.epochs:g} time(s) that is less than the {tokens:,} to "
            f"train on; give more text, --tokens {int(rows * plan.epochs)}, or --epochs {-(-tokens // max(rows, 1))}"
        )


def run_training(
    plan: TrainingPlan, recipe: TrainConfig, out: Path, runtime: Runtime, *, progress: bool = False
) -> list[TrainedSAE]:
    """Harvest and train; resumes what a killed call left.

    Errors: `TooFewSamples` when the text holds too little for the tokens and epochs asked for, and those of every step.
    """
    lm = load_language_model(plan.model, runtime, progress=progress)
    layer = middle_layer(lm, plan.layer)
    documents: list[Document] = list(read_texts(plan.text, progress=progress))
    source: ActivationStore | LiveStream
    if plan.live:
        source = LiveStream(lm, layer, documents, StreamConfig(context=plan.context, seed=recipe.data_seed))
    else:
        # A tenth more than is trained on, so that thresholds and measures come from tokens never trained on.
        wanted = round(recipe.tokens / plan.epochs) + recipe.threshold_tokens
        settings = HarvestConfig(tokens=wanted, context=plan.context, batch_rows=32, seed=recipe.data_seed)
        folder = Path(plan.store) if plan.store is not None else out / "store"
        source = harvest(lm, layer, documents, folder, settings, progress=progress)
        _require_rows(len(source), recipe.tokens, plan)
    info = describe_source(lm, layer, source, plan.text, plan.context)
    results = train_seeds(recipe, plan.seeds, source, out, info, progress=progress)
    return [
        TrainedSAE(r.path, r.digest, seed, r.fvu, r.l0, r.dead) for seed, r in zip(plan.seeds, results, strict=True)
    ]
