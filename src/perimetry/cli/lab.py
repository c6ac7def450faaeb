"""`perimetry lab`: synthetic worlds in which the truth is known."""

from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter

from perimetry.cli.common import (
    ConfigFile,
    Json,
    Quiet,
    command_line,
    emit,
    emit_results,
    note,
    wants_progress,
)

__all__ = ["app"]

app = App(
    name="lab",
    help="Synthetic worlds from published studies in which the truth is known: what must come out, and what does.",
)

Name = Annotated[str, Parameter(help="Name of the lab; `perimetry lab list` has them all.")]


def _lab(name: str) -> Any:
    from perimetry.errors import UnknownName
    from perimetry.labs import LABS

    if name not in LABS:
        raise UnknownName("lab", name, LABS)
    return LABS[name]


@app.command(name="list")
def list_labs(*, json: Json = False) -> None:
    """Every lab, with its question."""
    from perimetry.labs import LABS

    found = [{"name": lab.name, "title": lab.title, "question": lab.question} for lab in LABS.values()]

    def human() -> None:
        for one in found:
            print(f"{one['name']}: {one['title']}\n  {one['question']}")  # noqa: T201

    emit({"labs": found}, json, human)


@app.command
def show(name: Name, *, json: Json = False) -> None:
    """What a lab asks, what must come out, and where it is from."""
    lab = _lab(name)
    facts = {
        "name": lab.name,
        "title": lab.title,
        "question": lab.question,
        "source": lab.source._asdict(),
        "expected": [one._asdict() for one in lab.expected],
        "presets": {key: config.model_dump(mode="json") for key, config in lab.presets.items()},
    }

    def human() -> None:
        print(f"{lab.title}\n\n{lab.question}\n")  # noqa: T201
        print(f"{lab.source.authors}: {lab.source.title}. {lab.source.where}.\n")  # noqa: T201
        for one in lab.expected:
            print(f"* {'control: ' if one.control else ''}{one.said} ({one.arm}: {one.metric} {one.bound()})")  # noqa: T201

    emit(facts, json, human)


@app.command
def run(
    name: Name,
    *,
    preset: Annotated[
        str, Parameter(help="tiny (for tests), quick (minutes on two cores) or paper (the published scale).")
    ] = "quick",
    seeds: Annotated[int | None, Parameter(help="Seeds of every arm; default: those of the preset.")] = None,
    out: Annotated[
        Path | None, Parameter(name=["--out", "-o"], help="Folder to write to; default: runs/labs/NAME.")
    ] = None,
    config: ConfigFile = None,
    workers: Annotated[
        int, Parameter(help="Processes that arms and seeds are spread over, one thread each; 0 takes one a core.")
    ] = 0,
    json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Run a lab, judge what came out against what must, and draw its figures. Exit code 1 when an expectation fails.

    Killed at any moment, the same command goes on where it stopped.
    """
    from perimetry.config import build, load_values, over
    from perimetry.errors import UnknownName
    from perimetry.labs.base import with_seeds
    from perimetry.labs.running import failed, run_lab
    from perimetry.labs.table import show_lab
    from perimetry.runtime import cores

    lab = _lab(name)
    if preset not in lab.presets:
        raise UnknownName("preset", preset, lab.presets)
    chosen = lab.presets[preset]
    values = load_values(section="lab", file=config, overrides={})
    settings = build(type(chosen), over(chosen.model_dump(), values), "configuration [lab]")
    folder = out or Path("runs/labs") / name
    flags = {"--preset": preset, "--seeds": seeds, "--config": config}
    results = run_lab(
        lab,
        with_seeds(settings, seeds),
        folder,
        workers=workers or cores(),
        command=command_line(["perimetry", "lab", "run", name], flags, folder),
        progress=wants_progress(quiet),
        say=(lambda _: None) if quiet else note,
    )
    emit_results(results, json, show_lab, folder)
    return 1 if failed(results) else 0
