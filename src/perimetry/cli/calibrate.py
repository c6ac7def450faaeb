"""`perimetry calibrate`: fit a meter on clean text."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from perimetry.cli.common import ConfigFile, Device, DtypeFlag, Json, Out, Quiet, Threads, emit, note, wants_progress

if TYPE_CHECKING:
    from perimetry.runtime import Runtime
    from perimetry.shift.clean import MeterConfig

__all__ = ["calibrate"]


def calibrate(
    *,
    sae: Annotated[
        list[Path],
        Parameter(
            help="The SAE: a folder that `perimetry train` wrote, or one of SAELens v6. Repeated, with SAEs of other layers "
            "of the same model: one meter over all these layers."
        ),
    ],
    text: Annotated[str, Parameter(help="Clean text: asset name, .jsonl, .txt or folder.")],
    out: Out,
    model: Annotated[
        str | None, Parameter(help="Asset name, local folder or hub id; default: what the SAE was trained on.")
    ] = None,
    layer: Annotated[
        list[int] | None,
        Parameter(help="Block to tap, once for each --sae; default: what the SAE was trained on."),
    ] = None,
    main: Annotated[str | None, Parameter(help="Detector that gives the score, with its pooling.")] = None,
    prompts: Annotated[int | None, Parameter(help="Calibration prompts.")] = None,
    profile_tokens: Annotated[int | None, Parameter(help="Tokens of the profile of what is normal.")] = None,
    passages: Annotated[
        bool | None,
        Parameter(help="Cut texts into passages of mixed lengths; default: yes for assets and .txt, no for .jsonl."),
    ] = None,
    config: ConfigFile = None,
    device: Device = "auto",
    dtype: DtypeFlag = "auto",
    threads: Threads = 0,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Fit a meter on clean text: what is normal, and how often normal text scores how high.

    The text is cut into three disjoint parts by document: for the profile, for the moments of the scores, and for the
    calibration.
    """
    from perimetry.config import load_config
    from perimetry.runtime import RuntimeConfig, start
    from perimetry.shift.clean import MeterConfig

    settings = load_config(
        MeterConfig,
        section="calibrate",
        file=config,
        overrides={
            "main": main,
            "calibration_prompts": prompts,
            "profile_tokens": profile_tokens,
            "passages": passages,
        },
    )
    runtime = start(RuntimeConfig.model_validate({"device": device, "dtype": dtype, "threads": threads}))
    given: dict[str, Any] = {"model": model, "dtype": dtype, "progress": wants_progress(quiet)}
    _fit(sae, layer or [], text, out, settings, runtime, json, given)


def _fit(
    saes: list[Path],
    layers: list[int],
    text: str,
    out: Path,
    settings: "MeterConfig",
    runtime: "Runtime",
    json: bool,
    given: dict[str, Any],
) -> None:
    from perimetry.errors import UsageError
    from perimetry.pipeline.calibration import run_calibration, run_taps_calibration

    if len(saes) > 1:
        taps = run_taps_calibration(saes, text, out, settings, runtime, layers=layers, **given)
        found = taps.meter.summary() | {"path": str(out), "digest": taps.digest}
        emit(found, json, lambda: _show_taps(out, found))
        return
    if len(layers) > 1:
        raise UsageError(f"one SAE and {len(layers)} layers were given; give --layer once for each --sae")
    done = run_calibration(saes[0], text, out, settings, runtime, layer=layers[0] if layers else None, **given)
    summary: dict[str, Any] = done.meter.summary() | {"path": str(out), "digest": done.digest}
    emit(summary, json, lambda: _show(out, summary))


def _show_taps(out: Path, summary: dict[str, Any]) -> None:
    for name, tap in summary["taps"].items():
        _rows(out / "taps" / name, tap)
    note(f"{out}: smallest p-value of {len(summary['taps'])} taps, {summary['calibration_prompts']} clean prompts")
    for row in summary["false_alarms"]:
        note(
            f"  {row['group']}: alpha {row['alpha']:g}, expected false alarms at most {row['expected']:.4g} ({row['n']} clean "
            "prompts)"
        )
    _next(out)


def _show(out: Path, summary: dict[str, Any]) -> None:
    _rows(out, summary)
    _next(out)


def _rows(out: Path, summary: dict[str, Any]) -> None:
    note(f"{out}: {summary['detector']} at layer {summary['layer']}, {summary['calibration_prompts']} clean prompts")
    for row in summary["false_alarms"]:
        note(
            f"  {row['group']}: alpha {row['alpha']:g} {_where(row['threshold'])}, realised false alarms within "
            f"[{row['low']:.4g}, {row['high']:.4g}]"
        )


def _next(out: Path) -> None:
    note(f'next: perimetry score {out} "a prompt to read"')


def _where(threshold: float | None) -> str:
    return "cannot be reached with so few prompts" if threshold is None else f"above score {threshold:.4g}"
