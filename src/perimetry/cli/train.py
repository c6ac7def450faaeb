"""`perimetry train`: sparse autoencoders on a model's activations."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from perimetry.cli.common import ConfigFile, Device, DtypeFlag, Json, Quiet, Threads, emit, note, wants_progress

__all__ = ["train"]


def train(
    *,
    out: Annotated[
        Path, Parameter(name=["--out", "-o"], help="Folder for the SAE; one sub-folder a seed when several.")
    ],
    model: Annotated[str, Parameter(help="Asset name, local folder or hub id.")] = "smollm2-135m-instruct",
    text: Annotated[str, Parameter(help="Asset name, .jsonl, .txt or folder to train on.")] = "wikipedia",
    layer: Annotated[int | None, Parameter(help="Block to tap, from 0; default: the middle one.")] = None,
    architecture: Annotated[str | None, Parameter(help="Name in the table of docs/sae.md, such as batchtopk.")] = None,
    width: Annotated[int | None, Parameter(help="Latents of the dictionary.")] = None,
    k: Annotated[int | None, Parameter(help="Target of active latents per token.")] = None,
    tokens: Annotated[int | None, Parameter(help="Training tokens in all, repeats included.")] = None,
    epochs: Annotated[float, Parameter(help="Times each harvested token is seen.")] = 1.0,
    batch: Annotated[int | None, Parameter(help="Tokens of one step.")] = None,
    lr: Annotated[float | None, Parameter(help="Peak learning rate.")] = None,
    seed: Annotated[list[int] | None, Parameter(help="Seed of the SAE; give several to train several at once.")] = None,
    store: Annotated[Path | None, Parameter(help="Folder of the activation store; default: OUT/store.")] = None,
    live: Annotated[bool, Parameter(negative="", help="Train straight from the model, without a store.")] = False,
    context: Annotated[int, Parameter(help="Tokens of one packed row of text.")] = 128,
    config: ConfigFile = None,
    device: Device = "auto",
    dtype: DtypeFlag = "auto",
    threads: Threads = 0,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train sparse autoencoders on the activations after one block.

    Killed at any moment, the same command continues and ends with the same SAE.
    """
    from perimetry.config import load_config
    from perimetry.pipeline.training import TrainingPlan, run_training
    from perimetry.runtime import RuntimeConfig, start
    from perimetry.train.recipe import TrainConfig

    recipe = load_config(
        TrainConfig,
        section="train",
        file=config,
        overrides={
            "architecture": architecture,
            "width": width,
            "k": k,
            "tokens": tokens,
            "batch": batch,
            "lr": lr,
            "seed": seed[0] if seed else None,
        },
    )
    runtime = start(RuntimeConfig.model_validate({"device": device, "dtype": dtype, "threads": threads}))
    plan = TrainingPlan(
        model=model,
        text=text,
        layer=layer,
        context=context,
        epochs=epochs,
        live=live,
        seeds=tuple(dict.fromkeys(seed or [recipe.seed])),
        store=None if store is None else str(store),
    )
    trained = run_training(plan, recipe, out, runtime, progress=wants_progress(quiet))

    def human() -> None:
        for row in trained:
            note(
                f"{row.path}: FVU {row.fvu:.4f}, L0 {row.l0:.1f}, dead {100 * row.dead:.1f} %, sha256 {row.digest[:16]}"
            )
        note(f"next: perimetry calibrate --model {model} --sae {trained[0].path} --text {text} --out meter")

    emit({"saes": [row.to_json() for row in trained]}, json, human)
