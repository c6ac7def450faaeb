"""`perimetry serve`: the service that reads prompts beside a language model."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from perimetry.cli.common import Adapter, ConfigFile, Json, Quiet, json_line, note

if TYPE_CHECKING:
    from perimetry.monitor.supervisor import Supervisor

__all__ = ["serve"]

Tokens = Annotated[
    Path | None,
    Parameter(
        help="File of tokens, as `perimetry token` writes its lines. Without it everybody on this machine may ask."
    ),
]
Store = Annotated[Path | None, Parameter(help="Folder of the event store (runs/monitor).")]


def serve(
    meter: Annotated[Path, Parameter(help="The meter: a folder that `perimetry calibrate` or the demo wrote.")],
    *,
    host: Annotated[
        str | None, Parameter(help="Address to listen on (127.0.0.1); any but this machine's own wants tokens.")
    ] = None,
    port: Annotated[int | None, Parameter(help="Port (8765); 0 takes a free one.")] = None,
    tokens: Tokens = None,
    store: Store = None,
    events: Annotated[
        bool | None, Parameter(negative="--no-events", help="Keep events; --no-events keeps none.")
    ] = None,
    alpha: Annotated[float | None, Parameter(help="False-alarm rate of requests that name none (0.01).")] = None,
    mode: Annotated[str | None, Parameter(help="alert marks answers; block lets gateways stop a request.")] = None,
    batching: Annotated[
        str | None, Parameter(help="packed, or exact: a row a forward pass, the same to the bit.")
    ] = None,
    model: Annotated[str | None, Parameter(help="Where the model lies, if not where the meter was made.")] = None,
    adapter: Adapter = None,
    device: Annotated[str | None, Parameter(help="auto, cpu, cuda, cuda:1 ...")] = None,
    threads: Annotated[int | None, Parameter(help="Threads of CPU operations; 0 leaves the default.")] = None,
    config: ConfigFile = None,
    json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Read prompts over HTTP until stopped, and show them on a page at the same address.

    Needs the extra `monitor`. Ends with 0 after SIGINT or SIGTERM, when the requests that run have their answers, and with 2 where the model cannot be
    loaded or has died too often. With --json the address, what is served and the log are JSON lines; the log goes to standard error.
    """
    from perimetry.config import build, load_values, over

    flags = {
        "http": {"host": host, "port": port, "tokens": tokens, "alpha": alpha, "mode": mode},
        "store": {"folder": store},
        "engine": {
            "batch": {"mode": batching},
            "worker": {"model": model, "adapter": adapter, "device": device, "threads": threads},
        },
        "events": events,
    }
    _check(meter)
    from perimetry.monitor.serve_config import SECTION, ServeConfig

    values = over(load_values(section=SECTION, file=config), _given(flags))
    settings = build(ServeConfig, values, f"configuration [{SECTION}]")
    return _serve(meter, settings, as_json=json, quiet=quiet)


def _given(flags: dict[str, Any]) -> dict[str, Any]:
    """The flags that were given, without tables that are empty then."""
    found = {key: _given(value) if isinstance(value, dict) else value for key, value in flags.items()}
    return {key: value for key, value in found.items() if value is not None and value != {}}


def _check(meter: Path) -> None:
    """Refuse before anything heavy is imported. Errors: `MissingFile`, `UsageError`."""
    from importlib.util import find_spec

    from perimetry.errors import MissingFile, UsageError

    if not meter.is_dir():
        raise MissingFile(
            f"no meter at {meter}; run `perimetry demo` or `perimetry calibrate` first, or check the path"
        )
    missing = [
        name
        for name in ("fastapi", "uvicorn", "sqlalchemy", "alembic", "prometheus_client", "jinja2")
        if find_spec(name) is None
    ]
    if missing:
        raise UsageError(f"the service needs {', '.join(missing)}; install it with: pip install 'perimetry[monitor]'")


def _serve(meter: Path, settings: Any, *, as_json: bool, quiet: bool) -> int:
    import logging

    from perimetry.monitor.serving import run_service

    def say(human: str, **facts: Any) -> None:
        if as_json:
            print(json_line(facts), flush=True)  # noqa: T201
        elif not quiet:
            note(human)

    def started(address: str) -> None:
        say(f"listening at {address}; loading the model ...", event="listening", address=address, meter=str(meter))

    def ready(engine: "Supervisor") -> None:
        made, groups = engine.artifact, {group.name: group.n for group in engine.groups}
        human = f"ready: {made.get('model') or made['model_rev']}, {made['tap']}, {max(groups.values(), default=0)} calibration prompts; stop with Ctrl-C"
        say(human, event="ready", artifact=dict(made), groups=groups)

    level = logging.WARNING if quiet else logging.INFO
    well = run_service(meter, settings, started=started, ready=ready, level=level, as_json=as_json)
    return 0 if well else 2
