"""`perimetry edit-check`: what does an edit do to a model beside the fact that it writes?"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from perimetry.cli.common import (
    ConfigFile,
    Device,
    DtypeFlag,
    Json,
    Out,
    Quiet,
    Threads,
    command_line,
    emit_results,
    note,
    wants_progress,
)

if TYPE_CHECKING:
    from perimetry.pipeline.edit_check_config import EditCheckConfig

__all__ = ["edit_check"]


ModelName = Annotated[
    str | None,
    Parameter(help="Asset name, local folder or hub id; default: that of --meter, else smollm2-135m-instruct."),
]
PromptText = Annotated[
    str | None,
    Parameter(help="A fact of one's own: `The capital of {} is`, with {} or the subject's name in it."),
]
Subject = Annotated[str | None, Parameter(help="What --prompt is about.")]
Target = Annotated[str | None, Parameter(help="The new answer to --prompt.")]
MethodName = Annotated[str | None, Parameter(help="rome, r-rome (default), p-rome, memit or alphaedit.")]
Layer = Annotated[int | None, Parameter(help="Block whose MLP is edited; default: block 6 of 30, and so on.")]
Scale = Annotated[float | None, Parameter(help="How many times the update is added; 0 is a control.")]
Edits = Annotated[int | None, Parameter(help="How many of the edits that come with the check.")]
Draws = Annotated[int | None, Parameter(help="Updates of random direction and the same norm beside each edit.")]
RingsFile = Annotated[
    Path | None,
    Parameter(help="Rings of one's own: a .txt with a word a line, or a .jsonl with name, words and sentences."),
]
FactsFile = Annotated[
    Path | None,
    Parameter(help="Facts beside the edited one, in place of capitals: a .jsonl with prompt, answer and subject."),
]
MeterFolder = Annotated[Path | None, Parameter(help="A meter of the model: what it and its concepts see of the edit.")]
Text = Annotated[str | None, Parameter(help="Ordinary text: asset name, .jsonl, .txt or folder; split by document.")]
Preset = Annotated[
    str, Parameter(help="quick (a month and a capital), full (50 edits, five draws each) or tiny (for tests).")
]


def edit_check(
    *,
    model: ModelName = None,
    prompt: PromptText = None,
    subject: Subject = None,
    target: Target = None,
    method: MethodName = None,
    layer: Layer = None,
    scale: Scale = None,
    edits: Edits = None,
    draws: Draws = None,
    rings: RingsFile = None,
    facts: FactsFile = None,
    meter: MeterFolder = None,
    text: Text = None,
    preset: Preset = "quick",
    out: Out = Path("runs/edit-check"),
    config: ConfigFile = None,
    device: Device = "auto",
    dtype: DtypeFlag = "auto",
    threads: Threads = 0,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write a fact into a model by ROME and its relatives, and look at it before and after, each number beside updates of random direction.

    No benchmark is needed: rings of words such as the months, the likelihood of ordinary text, facts beside the edited one, and the
    concepts of a meter. The model itself is never changed; the update is kept in OUT/edits. Killed, the same command goes on.
    """
    given = {"text": text, "edits": edits, "draws": draws}
    editor = {k: v for k, v in (("method", method), ("layer", layer), ("scale", scale)) if v is not None}
    settings = _settings(given, editor, (prompt, subject, target), (rings, facts), preset, config)

    from perimetry.activations.model import load_language_model
    from perimetry.pipeline.edit_check import run_edit_check
    from perimetry.pipeline.edit_check_table import show_edit_check
    from perimetry.runtime import RuntimeConfig, start
    from perimetry.shift.loading import load_meter

    runtime = start(RuntimeConfig.model_validate({"device": device, "dtype": dtype, "threads": threads}))
    judge = None if meter is None else load_meter(meter, runtime=runtime, model=model)
    lm = load_language_model(model or "smollm2-135m-instruct", runtime) if judge is None else judge.lm
    flags: dict[str, object] = {"--model": model, "--prompt": prompt, "--subject": subject, "--target": target}
    flags |= {
        "--method": method,
        "--layer": layer,
        "--scale": scale,
        "--edits": edits,
        "--draws": draws,
        "--rings": rings,
    }
    flags |= {"--facts": facts, "--meter": meter, "--text": text, "--preset": preset, "--config": config}
    command = command_line(["perimetry", "edit-check"], flags, out)
    say = (lambda _: None) if quiet else note
    results = run_edit_check(lm, settings, out, meter=judge, command=command, progress=wants_progress(quiet), say=say)
    emit_results(results, json, show_edit_check, out)


def _settings(
    given: dict[str, Any],
    editor: dict[str, Any],
    fact: tuple[str | None, str | None, str | None],
    files: tuple[Path | None, Path | None],
    preset: str,
    config: Path | None,
) -> "EditCheckConfig":
    """The configuration of preset, file, environment and flags."""
    from perimetry.config import build, load_values, over
    from perimetry.editing.requests import slot
    from perimetry.errors import UsageError
    from perimetry.pipeline.edit_check_config import EditCheckConfig, read_facts, read_rings, with_edit_check_preset

    if any(fact) and not all(fact):
        raise UsageError("a fact of one's own wants --prompt, --subject and --target together; give all three, or none")
    if all(fact):
        prompt, subject, target = (str(part) for part in fact)
        given = given | {"request": {"prompt": slot(prompt, subject), "subject": subject, "target": target}}
    given = given | {
        "rings": read_rings(files[0]) if files[0] else None,
        "facts": read_facts(files[1]) if files[1] else None,
    }
    values = load_values(section="edit_check", file=config, overrides=given)
    values = over(values, {"editor": editor} if editor else {})
    return build(EditCheckConfig, with_edit_check_preset(values, preset), "configuration [edit_check]")
