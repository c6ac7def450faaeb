"""The command line. Exit codes: 0 fine, 1 an alarm was raised where `--fail-on-alarm` asked, 2 an error."""

import json
import os
import sys

from cyclopts import App, CycloptsError

from perimetry import __version__
from perimetry.cli import (
    assets,
    bench,
    calibrate,
    convert,
    demo,
    doctor,
    drift,
    edit_check,
    evaluate,
    healthcheck,
    lab,
    report,
    robustify,
    score,
    serve,
    study,
    token,
    train,
)
from perimetry.errors import PerimetryError, StorageError

__all__ = ["app", "main"]

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")

app = App(
    name="perimetry",
    version=__version__,
    suppress_keyboard_interrupt=False,
    help="Map the limits of what a transformer understands: train SAEs, calibrate a shift meter, read prompts, tune the model.",
    help_epilogue="Settings come from --config FILE (TOML, one section a command), then PERIMETRY_COMMAND_KEY in the "
    "environment, then flags. Every command takes --json. Exit codes: 0 fine, 1 alarm (with --fail-on-alarm or --fail), 2 error.",
)
app.command(demo.demo)
app.command(doctor.doctor)
app.command(assets.app)
app.command(train.train)
app.command(convert.convert)
app.command(calibrate.calibrate)
app.command(score.score)
app.command(drift.drift)
app.command(serve.serve)
app.command(token.token)
app.command(evaluate.app)
app.command(bench.app)
app.command(study.app)
app.command(robustify.robustify)
app.command(edit_check.edit_check)
app.command(lab.app)
app.command(report.report)
app.command(healthcheck.healthcheck)


def _fail(error: BaseException, as_json: bool) -> int:
    kind = type(error).__name__
    if as_json:
        print(json.dumps({"error": {"type": kind, "message": str(error)}}))  # noqa: T201
    print(f"{kind}: {error}", file=sys.stderr)  # noqa: T201
    return 2


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    tokens = sys.argv[1:] if arguments is None else arguments
    as_json = "--json" in tokens
    try:
        result = app(tokens, exit_on_error=False, print_error=False, result_action="return_value")
    except PerimetryError as error:
        return _fail(error, as_json)
    except CycloptsError as error:
        return _fail(error, as_json)
    except ValueError as error:
        from pydantic import ValidationError  # late: takes a tenth of a second

        from perimetry.config import refusal

        if not isinstance(error, ValidationError):
            raise
        return _fail(refusal(error.title, error), as_json)
    except KeyboardInterrupt:
        print("interrupted; the same command continues where it stopped", file=sys.stderr)  # noqa: T201
        return 130
    except BrokenPipeError:
        # The reader has gone; without this the interpreter would complain when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.filename is None:
            raise
        why = error.strerror or type(error).__name__
        return _fail(StorageError(f"{error.filename}: {why}; check the path and its permissions"), as_json)
    return result if isinstance(result, int) else 0
