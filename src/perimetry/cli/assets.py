"""`perimetry assets`: list, pull, path and verify the named models and texts."""

import json
import sys
from typing import Annotated, Any

import cyclopts

from perimetry.errors import CorruptArtifact, UsageError

__all__ = ["app"]

app = cyclopts.App(name="assets", help="Named, hash-pinned models and texts in the user's cache.")

PIPE_WIDTH = 240

Json = Annotated[bool, cyclopts.Parameter(name="--json", negative="", help="Print JSON instead of a table.")]
KeepRaw = Annotated[
    bool, cyclopts.Parameter(name="--keep-raw", negative="", help="Keep the download after it was prepared.")
]
All = Annotated[bool, cyclopts.Parameter(name="--all", negative="", help="Every asset there is.")]


def _say(value: Any) -> None:
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def _table(columns: list[str], rows: list[list[str]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(*columns)
    for row in rows:
        table.add_row(*row)
    # a pipe has no width: nothing is cut there
    (Console() if sys.stdout.isatty() else Console(width=PIPE_WIDTH)).print(table)


def _mega(size: int | None) -> str:
    return "" if size is None else f"{size / 1e6:,.1f} MB"


@app.command(name="list")
def list_assets(*, as_json: Json = False) -> None:
    """List every asset: what it is, its download, whether it is prepared, its licence."""
    from perimetry.assets import ASSETS
    from perimetry.assets.prepared import is_pulled

    rows = [
        {
            "name": spec.name,
            "kind": spec.kind,
            "pulled": is_pulled(spec),
            "download_bytes": spec.raw.size if spec.raw else None,
            "needs": list(spec.needs),
            "licence": spec.licence,
            "summary": spec.summary,
        }
        for spec in ASSETS.values()
    ]
    if as_json:
        _say(rows)
        return
    _table(
        ["name", "kind", "pulled", "download", "licence", "what it is"],
        [
            [
                str(r["name"]),
                str(r["kind"]),
                "yes" if r["pulled"] else "no",
                _mega(r["download_bytes"]),  # pyright: ignore[reportArgumentType]
                str(r["licence"]),
                str(r["summary"]),
            ]
            for r in rows
        ],
    )


def _names(names: tuple[str, ...], every: bool) -> list[str]:
    from perimetry.assets import ASSETS

    if bool(names) == every:
        raise UsageError(f"give names of assets, or --all, and not both; known: {', '.join(sorted(ASSETS))}")
    return list(ASSETS) if every else list(names)


@app.command
def pull(*names: str, every: All = False, keep_raw: KeepRaw = False, as_json: Json = False) -> None:
    """Download, verify and prepare assets; what is there and whole is left as it is.

    Parameters
    ----------
    names
        Names of assets, as `perimetry assets list` shows them.
    """
    from perimetry.assets import pull as pull_asset
    from perimetry.assets import verify as verify_asset

    rows: list[dict[str, str]] = []
    for name in _names(names, every):
        folder = pull_asset(name, progress=sys.stderr.isatty() and not as_json, keep_raw=keep_raw)
        rows.append({"name": name, "path": str(folder), "digest": verify_asset(name).digest})
    if as_json:
        _say(rows)
    else:
        _table(["name", "digest", "path"], [[r["name"], r["digest"][:12], r["path"]] for r in rows])


@app.command
def path(name: str, *, as_json: Json = False) -> None:
    """Print the folder of a prepared asset, pulling it where it is absent.

    Parameters
    ----------
    name
        Name of an asset.
    """
    from perimetry.assets import path as path_of

    folder = str(path_of(name, progress=sys.stderr.isatty() and not as_json))
    if as_json:
        _say({"name": name, "path": folder})
    else:
        sys.stdout.write(folder + "\n")


@app.command
def verify(*names: str, every: All = False, as_json: Json = False) -> None:
    """Hash everything that is kept of assets and compare; exit code 2 when something is damaged.

    Parameters
    ----------
    names
        Names of assets.
    """
    from perimetry.assets import verify as verify_asset

    found = [verify_asset(name) for name in _names(names, every)]
    if as_json:
        _say([{**v._asdict(), "path": str(v.path), "problems": list(v.problems)} for v in found])
    else:
        _table(
            ["name", "whole", "files", "download", "digest", "problems"],
            [
                [v.name, "no" if v.problems else "yes", str(v.files), v.raw, v.digest[:12], "; ".join(v.problems)]
                for v in found
            ],
        )
    damaged = [v.name for v in found if v.problems]
    if damaged:
        raise CorruptArtifact(
            f"{', '.join(damaged)} is not as its manifest says; run `perimetry assets pull {' '.join(damaged)}`"
        )
