"""A small meter, SAE and texts to measure on, made by the same code as the commands."""

import argparse
import random
from pathlib import Path
from typing import Any, NamedTuple

from perimetry.activations.model import tiny_language_model
from perimetry.assets import Document, read_texts
from perimetry.pipeline.calibration import run_calibration
from perimetry.pipeline.training import TrainingPlan, run_training
from perimetry.runtime import Runtime
from perimetry.shift.clean import MeterConfig, cut_passages
from perimetry.shift.meter import Meter
from perimetry.train import TrainConfig

__all__ = [
    "clean_documents",
    "given_sae",
    "make_meter",
    "make_sae",
    "passages_of",
    "sae_flag",
    "save_tiny_model",
    "write_documents",
]

WORDS = ("the", "river", "stone", "a", "house", "of", "old", "people", "went", "over", "hill", "and", "sea", "light")
TINY: dict[str, Any] = {"width": 64, "k": 6, "tokens": 2048, "batch": 128}
SMALL: dict[str, Any] = {"width": 4608, "k": 32, "tokens": 16_384, "batch": 2048}
"""The default dictionary, trained just long enough that its counts are those of a real one."""


def save_tiny_model(folder: Path) -> str:
    """A random model of three blocks, as a folder."""
    lm = tiny_language_model("llama")
    lm.model.save_pretrained(folder)
    lm.tokenizer.save_pretrained(folder)
    return str(folder)


def clean_documents(*, tiny: bool) -> list[Document]:
    """Made-up sentences for the tiny model, else the encyclopaedia."""
    if not tiny:
        return list(read_texts("wikipedia"))
    rng = random.Random(0)
    texts = (" ".join(rng.choice(WORDS) for _ in range(rng.randint(20, 60))) for _ in range(300))
    return [Document(f"made-up-{i}", text, {}) for i, text in enumerate(texts)]


def write_documents(documents: list[Document], file: Path) -> str:
    """The documents as JSON lines."""
    import json

    lines = (json.dumps({"id": d.id, "text": d.text}) + "\n" for d in documents)
    file.write_text("".join(lines), encoding="utf-8")
    return str(file)


class Made(NamedTuple):
    """A dictionary and what it was made from."""

    sae: Path
    """Folder of the dictionary."""
    text: str
    """File of the texts."""
    model: str
    """Name or folder of the model."""


def sae_flag(found: argparse.ArgumentParser) -> None:
    """The flag `--sae`."""
    found.add_argument(
        "--sae",
        type=Path,
        help="folder of an SAE that perimetry wrote, with cfg.json (default: a small one, trained first)",
    )


def given_sae(arguments: argparse.Namespace, folder: Path, runtime: Runtime) -> Path:
    """The SAE that was given, or a small one that is trained in `folder`."""
    return arguments.sae or make_sae(folder, clean_documents(tiny=False), runtime, tiny=False).sae


def make_sae(folder: Path, documents: list[Document], runtime: Runtime, *, tiny: bool) -> Made:
    """Train an SAE in `folder`."""
    text = write_documents(documents[:4000], folder / "texts.jsonl")
    model = save_tiny_model(folder / "model") if tiny else "smollm2-135m-instruct"
    sizes = TINY if tiny else SMALL
    recipe = TrainConfig(**sizes, fit_tokens=sizes["batch"], threshold_tokens=sizes["batch"])
    plan = TrainingPlan(model=model, text=text, layer=1 if tiny else 12, context=64 if tiny else 128)
    return Made(run_training(plan, recipe, folder / "sae", runtime)[0].path, text, model)


def make_meter(folder: Path, documents: list[Document], runtime: Runtime, *, tiny: bool) -> Meter:
    """Train an SAE and calibrate a meter in `folder`."""
    sae, text, model = make_sae(folder, documents, runtime, tiny=tiny)
    few: dict[str, Any] = {"profile_tokens": 2000, "reference_tokens": 500, "bank": 256} if tiny else {}
    config = MeterConfig(calibration_prompts=40, groups=1, minimum=19, words_low=5, words_high=24, **few)
    if not tiny:
        config = config.model_copy(
            update={"words_low": 15, "words_high": 120, "profile_tokens": 8_000, "reference_tokens": 1_000}
        )
    config = config.model_copy(update={"passages": True})
    return run_calibration(sae, text, folder / "meter", config, runtime, model=model).meter


def passages_of(documents: list[Document], n: int, low: int, high: int) -> list[str]:
    """Passages of mixed lengths, one a document."""
    return [text for _, text in cut_passages(documents, low, high, 1)][:n]
