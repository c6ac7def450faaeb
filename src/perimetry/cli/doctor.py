"""`perimetry doctor`: is this machine and this model fit for the work?"""

from typing import Annotated

from cyclopts import Parameter

from perimetry.cli.common import Device, DtypeFlag, Json, Threads, emit

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
        Console().print(table)

    emit(checkup, json, human)
    return 0 if all(check["holds"] for check in checkup["checks"]) else 2
