"""`perimetry demo`: learn the concepts of a model, calibrate, measure, report; resumable at every step."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from perimetry.activations.model import LanguageModel, load_language_model
from perimetry.activations.store import ActivationStore, HarvestConfig, harvest
from perimetry.activations.text import take_split
from perimetry.artifact import MANIFEST
from perimetry.assets import ASSETS, Document, read_texts
from perimetry.config import Config
from perimetry.errors import ConfigError
from perimetry.pipeline.bench import BenchConfig, run_bench
from perimetry.pipeline.training import describe_source, middle_layer, train_seeds
from perimetry.runtime import Runtime
from perimetry.sae.formats import load_sae
from perimetry.shift.clean import MeterConfig, split_clean
from perimetry.shift.evidence import Extractor
from perimetry.shift.fit import fit_meters
from perimetry.shift.loading import load_meter
from perimetry.shift.meter import Meter
from perimetry.storage import append_line, read_json, remove_stale, write_json
from perimetry.train import TrainConfig, TrainResult

__all__ = ["PRESETS", "DemoConfig", "next_commands", "run_demo"]

TRAIN_SPLIT = (0.0, 0.8)
FIT_SPLIT = (0.8, 0.9)
CURVE_POINTS = 200


class DemoConfig(Config):
    """The whole demo in one place."""

    model: str = "smollm2-135m-instruct"
    """Asset name, local folder or hub id."""
    text: str = "wikipedia"
    """Clean text: asset name, .jsonl, .txt or folder. It is split by document into train, fit and test."""
    layer: int | None = Field(default=12, ge=0)
    """Block to tap, from 0; None is a little before the middle."""
    context: int = Field(default=128, ge=8)
    """Tokens of one packed row of training text."""
    recipe: TrainConfig = TrainConfig(k=40, tokens=500_000, lr=1e-3)
    """How the SAEs are trained."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of the SAEs; all are trained on the same activations."""
    meter: MeterConfig = MeterConfig(profile_tokens=60_000, calibration_prompts=360, words_high=150, bank=4096)
    """How the meters are fitted."""
    bench: BenchConfig = BenchConfig(passages=150, attacks_n=50, limit=128, clean_prompts=240)
    """What they are measured on."""


PRESETS: dict[str, dict[str, Any]] = {
    "full": {},
    "tiny": {
        "context": 64,
        "layer": None,
        "recipe": {"width": 256, "k": 16, "tokens": 8192, "batch": 512, "fit_tokens": 2048, "threshold_tokens": 2048},
        "seeds": (0, 1),
        "meter": {
            "profile_tokens": 3000,
            "reference_tokens": 500,
            "calibration_prompts": 40,
            "words_low": 10,
            "words_high": 40,
            "groups": 2,
            "minimum": 15,
            "bank": 512,
        },
        "bench": {"passages": 12, "words": 30, "attacks_n": 12, "limit": 48, "clean_prompts": 30, "resamples": 100},
    },
}
"""`full` is the demo; `tiny` runs every step in a minute, for tests: its numbers mean nothing."""


def next_commands(out: Path) -> list[str]:
    """Three commands that a user would try next."""
    meter = out / "meter"
    return [
        f'perimetry score {meter} "The capital of France is Paris." "Teh captial fo Frnace si Prais."',
        f"perimetry calibrate --sae {out}/sae/seed-0 --text YOUR_PROMPTS.jsonl --out my-meter",
        f"perimetry bench shift {meter} --suite all --out runs/bench",
    ]


def _parts(documents: Sequence[Document], asset: bool) -> tuple[list[Document], list[Document]]:
    """Documents to train on and to fit on; the bench takes the test split by itself."""
    if not asset:
        raise ConfigError(
            "the demo needs a text asset, whose documents it can split; use train, calibrate and bench instead"
        )
    return take_split(documents, *TRAIN_SPLIT), take_split(documents, *FIT_SPLIT)


def _require_same(config: DemoConfig, out: Path) -> None:
    """Refuse to continue in a folder that another configuration began."""
    file = out / "demo.json"
    now = config.model_dump(mode="json")
    if file.is_file() and (before := read_json(file)) != now:
        different = sorted(k for k in now if before.get(k) != now[k])
        raise ConfigError(
            f"{out} holds a demo with other settings ({', '.join(different)}); give another --out, or remove that folder"
        )
    if not file.is_file():
        write_json(file, now)


def _train(
    config: DemoConfig, lm: LanguageModel, layer: int, documents: Sequence[Document], out: Path, progress: bool
) -> tuple[ActivationStore, list[TrainResult]]:
    recipe = config.recipe
    wanted = recipe.tokens + recipe.threshold_tokens
    settings = HarvestConfig(
        tokens=wanted, context=config.context, batch_rows=max(1, 4096 // config.context), shard_tokens=65_536
    )
    store = harvest(lm, layer, documents, out / "store", settings, progress=progress)
    info = describe_source(lm, layer, store, config.text, config.context)
    return store, train_seeds(recipe, config.seeds, store, out / "sae", info, progress=progress)


def _fit(
    config: DemoConfig,
    lm: LanguageModel,
    layer: int,
    store: ActivationStore,
    trained: Sequence[TrainResult],
    documents: Sequence[Document],
    out: Path,
    progress: bool,
) -> list[Meter]:
    folders = [out / "meter" if i == 0 else out / f"meter-seed-{s}" for i, s in enumerate(config.seeds)]
    if all((folder / MANIFEST).is_file() for folder in folders):
        return [load_meter(folder, lm=lm) for folder in folders]
    remove_stale(out)
    extractor = Extractor(lm, layer, store.policy)
    parts = split_clean(extractor, documents, config.meter, passages=config.meter.passages is not False)
    saes = [load_sae(result.path) for result in trained]
    meters = fit_meters(extractor, saes, parts, config.meter, details={"text": config.text}, progress=progress)
    for meter, folder in zip(meters, folders, strict=True):
        meter.save(folder)
    return meters


def _curves(config: DemoConfig, out: Path) -> list[dict[str, Any]]:
    """The training logs, thinned for the report."""
    curves: list[dict[str, Any]] = []
    for seed in config.seeds:
        folder = out / "sae" if len(config.seeds) == 1 else out / "sae" / f"seed-{seed}"
        lines = [json.loads(line) for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]
        step = max(1, len(lines) // CURVE_POINTS)
        curves.append({"label": f"seed {seed}", "points": lines[::step]})
    return curves


def run_demo(
    config: DemoConfig,
    out: Path,
    runtime: Runtime,
    *,
    progress: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Run the demo to `out` and return what `out/results.json` holds. Killed, the same call continues.

    Errors: `ConfigError` when `out` holds a demo with other settings, and those of every step.
    """
    _require_same(config, out)
    say(f"1/4  {config.model} and {config.text}: fetch and prepare (first time only)")
    lm = load_language_model(config.model, runtime, progress=progress)
    layer = middle_layer(lm, config.layer)
    train_on, fit_on = _parts(list(read_texts(config.text, progress=progress)), config.text in ASSETS)
    seeds = ", ".join(map(str, config.seeds))
    say(
        f"2/4  {config.recipe.tokens:,} tokens after block {layer}, then SAEs of {config.recipe.width} latents, seeds {seeds}"
    )
    store, trained = _train(config, lm, layer, train_on, out, progress)
    for seed, result in zip(config.seeds, trained, strict=True):
        say(f"     seed {seed}: FVU {result.fvu:.3f}, L0 {result.l0:.1f}, dead {100 * result.dead:.1f} %")
    say("3/4  what is normal, and how often clean text scores how high")
    meters = _fit(config, lm, layer, store, trained, fit_on, out, progress)
    say("4/4  typos and jailbreaks, beside every baseline")
    bench = config.bench.model_copy(update={"text": config.text})
    extra = {"training": _curves(config, out)}
    results = run_bench(
        meters,
        bench,
        out,
        command="perimetry demo",
        extra=extra,
        progress=progress,
        say=lambda text: say(f"     {text}"),
    )
    append_line(out / "history.jsonl", {"date": results["date"], "main": results["main"]})
    return results
