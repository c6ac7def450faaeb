"""`perimetry doctor`: is this machine and this model fit for the work?"""

from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from perimetry.cli.common import Device, DtypeFlag, Json, Threads, emit

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["doctor"]


def doctor(
    *,
    model: Annotated[str, Parameter(help="Asset name, local folder or hub id.")] = "smollm2-135m-instruct",
    layer: Annotated[int | None, Parameter(help="Block to tap, from 0; default: the middle one.")] = None,
    tokens: Annotated[int, Parameter(help="Tokens that the estimate of time, disk and memory is for.")] = 1_000_000,
    width: Annotated[int, Parameter(help="Latents of the dictionary that the estimate is for.")] = 4608,
    device: Device = "auto",
    dtype: DtypeFlag = "auto",
    threads: Threads = 0,
    json: Json = False,
) -> int:
    """Check that the tap equals hidden_states, that the pass stops there, sinks, dtype; estimate memory and time.

    Exit code 0 when every check holds, 2 when one does not.
    """
    from perimetry.pipeline.checkup import run_checkup
    from perimetry.runtime import RuntimeConfig, start

    runtime = start(RuntimeConfig.model_validate({"device": device, "dtype": dtype, "threads": threads}))
    checkup = run_checkup(model, layer, tokens, width, runtime)

    def human() -> None:
        from rich.console import Console
        from rich.table import Table

        table = Table(title=f"perimetry doctor: {model}, block {checkup['layer']}", title_justify="left")
        for heading in ("check", "result", "measured"):
            table.add_column(heading)
        for check in checkup["checks"]:
            table.add_row(
                check["name"], "[green]holds[/]" if check["holds"] else "[bold red]FAILS[/]", check["measured"]
            )
        console = Console()
        console.print(table)
        console.print(_estimates(checkup["estimate"], width))
        console.print(_ways(checkup["step"], width))

    emit(checkup, json, human)
    return 0 if all(check["holds"] for check in checkup["checks"]) else 2


def _estimates(estimate: dict[str, Any], width: int) -> "Table":
    from rich.table import Table

    table = Table(title=f"{estimate['tokens']:,} tokens, {width:,} latents", title_justify="left")
    table.add_column("what")
    table.add_column("estimate", justify="right")
    for what, value in (
        ("harvest", f"{estimate['harvest_seconds']:,.0f} s ({estimate['harvest_tokens_per_second']:,.0f} tokens/s)"),
        ("store on disk", f"{estimate['store_bytes'] / 1e9:.2f} GB of {estimate['free_disk_bytes'] / 1e9:.0f} GB free"),
        ("training of one SAE", f"{estimate['train_seconds']:,.0f} s"),
        ("weights, gradients and moments", f"{estimate['train_bytes'] / 1e9:.2f} GB"),
        ("memory of this process so far", f"{estimate['peak_memory_bytes'] / 1e9:.2f} GB"),
    ):
        table.add_row(what, value)
    return table


def _ways(step: dict[str, Any], width: int) -> "Table":
    from rich.table import Table

    kernels = "compiled kernels" if step["compiled_kernels"] else "torch operations (no C compiler)"
    title = (
        f"one step of {step['tokens']} tokens by the cost model, {kernels}; "
        f"dense above L0 {step['dense_above_density'] * width:,.0f}"
    )
    table = Table(title=title, title_justify="left")
    for heading in ("L0", "dense", "sparse", "sparse, selection in int8 or bf16"):
        table.add_column(heading, justify="right")
    for name, ways in step["predicted_seconds"].items():
        cells = ("-" if seconds is None else f"{seconds:.3f} s" for seconds in ways.values())
        table.add_row(name.removeprefix("l0_"), *cells)
    return table
