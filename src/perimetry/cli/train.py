"""`perimetry train`: sparse autoencoders on a model's activations."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from perimetry.cli.common import ConfigFile, Device, DtypeFlag, Json, Quiet, Threads, emit, note, wants_progress
from perimetry.errors import ConfigError

if TYPE_CHECKING:
    from perimetry.activations.masking import Masking
    from perimetry.pipeline.sweep import RunConfig
    from perimetry.pipeline.training import TrainedSAE

__all__ = ["train"]


def train(
    *,
    out: Annotated[
        Path, Parameter(name=["--out", "-o"], help="Folder for the SAE; one sub-folder an SAE when several.")
    ],
    model: Annotated[str, Parameter(help="Asset name, local folder or hub id.")] = "smollm2-135m-instruct",
    text: Annotated[str, Parameter(help="Asset name, .jsonl, .txt or folder to train on.")] = "wikipedia",
    layer: Annotated[int | None, Parameter(help="Block to tap, from 0; default: the middle one.")] = None,
    layers: Annotated[
        str | None, Parameter(help="Blocks side by side, such as 3,4,5, for one dictionary of several (crosscoder).")
    ] = None,
    target_layer: Annotated[int | None, Parameter(help="Block whose output a transcoder writes.")] = None,
    place: Annotated[
        str | None,
        Parameter(
            help="Where in the block: resid_post, mlp_in, mlp_out; or mlp, what a transcoder of its MLP reads and writes."
        ),
    ] = None,
    architecture: Annotated[str | None, Parameter(help="Name in the table of docs/sae.md, such as batchtopk.")] = None,
    width: Annotated[int | None, Parameter(help="Latents of the dictionary.")] = None,
    k: Annotated[int | None, Parameter(help="Target of active latents per token.")] = None,
    tokens: Annotated[int | None, Parameter(help="Training tokens in all, repeats included.")] = None,
    epochs: Annotated[float, Parameter(help="Times each harvested token is seen.")] = 1.0,
    batch: Annotated[int | None, Parameter(help="Tokens of one step.")] = None,
    lr: Annotated[float | None, Parameter(help="Peak learning rate.")] = None,
    seed: Annotated[list[int] | None, Parameter(help="Seed of the SAE; give several to train several at once.")] = None,
    sweep: Annotated[
        list[str] | None,
        Parameter(
            negative="",
            help="KEY=VALUE,VALUE, such as layer=3,6 or width=2048,4096: an SAE for each value, of several flags for each combination, "
            "all from one run of the model.",
        ),
    ] = None,
    store: Annotated[Path | None, Parameter(help="Folder of the activation store; default: OUT/store.")] = None,
    live: Annotated[bool, Parameter(negative="", help="Train straight from the model, without a store.")] = False,
    context: Annotated[int, Parameter(help="Tokens of one packed row of text.")] = 128,
    mask: Annotated[
        float | None,
        Parameter(
            help="Chance that a token is replaced before the model reads it (masked regularisation); all its settings: [train.masking]."
        ),
    ] = None,
    mask_kind: Annotated[
        str | None, Parameter(help="What takes its place: string, token, eos, random, unigram, or kept.")
    ] = None,
    causal: Annotated[
        float | None,
        Parameter(
            help="Weight of the causal loss, which runs the rest of the model on text; all its settings: causal_* in docs/training.md."
        ),
    ] = None,
    causal_share: Annotated[
        str | None,
        Parameter(help="How far codes are moved towards the nearest other token's, such as 0.2; or uniform."),
    ] = None,
    causal_every: Annotated[int | None, Parameter(help="Steps from one causal loss to the next.")] = None,
    config: ConfigFile = None,
    device: Device = "auto",
    dtype: DtypeFlag = "auto",
    threads: Threads = 0,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train sparse autoencoders, transcoders or crosscoders on the activations of a model.

    Killed at any moment, the same command continues and ends with the same SAEs.
    """
    from perimetry.pipeline.training import SWEEP_FILE, SourcePlan, run_sweep
    from perimetry.runtime import RuntimeConfig, start

    flags: dict[str, Any] = {
        "architecture": architecture,
        "width": width,
        "k": k,
        "tokens": tokens,
        "batch": batch,
        "lr": lr,
        "layer": layer,
        "layers": _blocks(layers),
        "target_layer": target_layer,
        "place": place,
        "causal": causal,
        "causal_share": causal_share,
        "causal_every": causal_every,
    }
    from perimetry.config import load_values

    values = load_values(section="train", file=config)
    masking = _masking(values.pop("masking", None), {"probability": mask, "kind": mask_kind})
    runs = _runs(values, flags, seed or [], sweep or [])
    runtime = start(RuntimeConfig.model_validate({"device": device, "dtype": dtype, "threads": threads}))
    plan = SourcePlan(
        model=model,
        text=text,
        context=context,
        epochs=epochs,
        live=live,
        store=None if store is None else str(store),
        masking=masking,
    )
    trained = run_sweep(plan, runs, out, runtime, progress=wants_progress(quiet))
    beside = {"sweep": str(out / SWEEP_FILE)} if len(trained) > 1 else {}
    emit({"saes": [row.to_json() for row in trained], **beside}, json, lambda: _show(trained, plan.model, plan.text))


def _blocks(layers: str | None) -> list[int] | None:
    if layers is None:
        return None
    try:
        return [int(part) for part in layers.split(",")]
    except ValueError as error:
        raise ConfigError(
            f"--layers {layers} is no list of blocks; wanted numbers with commas, such as 3,4,5"
        ) from error


def _masking(table: Any, flags: dict[str, Any]) -> "Masking | None":
    """The masking that the table of a file, with flags over it, asks for; None where neither says a word."""
    from perimetry.activations.masking import Masking
    from perimetry.config import build

    given = {key: value for key, value in flags.items() if value is not None}
    if table is None and not given:
        return None
    if table is not None and not isinstance(table, dict):
        raise ConfigError(f"train.masking is {table!r}, a table is wanted; write it under [train.masking]")
    return build(Masking, {**(table or {}), **given}, "configuration [train.masking]")


def _runs(values: dict[str, Any], flags: dict[str, Any], seeds: list[int], sweep: list[str]) -> "list[RunConfig]":
    """Every SAE that file, environment and flags ask for."""
    from perimetry.pipeline.sweep import expand, parse_sweep, with_flags

    lists = parse_sweep(sweep)
    different = list(dict.fromkeys(seeds))
    if "seed" in lists and different:
        raise ConfigError(f"--seed {different[0]} and --sweep seed={lists['seed']} came; give one of the two")
    if len(different) > 1:
        lists["seed"] = different
    given = flags | {"seed": different[0] if len(different) == 1 else None}
    return expand(with_flags(values, given, lists))


def _show(trained: "list[TrainedSAE]", model: str, text: str) -> None:
    """For a person: what was trained, how well, and what comes next."""
    from perimetry.pipeline.table import show_sweep

    if len(trained) > 1:
        show_sweep([row.to_json() for row in trained])
    else:
        (row,) = trained
        note(f"{row.path}: FVU {row.fvu:.4f}, L0 {row.l0:.1f}, dead {100 * row.dead:.1f} %, sha256 {row.digest[:16]}")
    for row in [row for row in trained if row.makes_meter][:1]:
        note(f"next: perimetry calibrate --model {model} --sae {row.path} --text {text} --out meter")
