"""`perimetry token`: a token for a client of the service."""

from typing import Annotated

from cyclopts import Parameter

from perimetry.cli.common import Json, emit, note

__all__ = ["token"]


def token(
    name: Annotated[str, Parameter(help="What the client is called: A-Z a-z 0-9 . _ -, at most 64 letters.")],
    *,
    scopes: Annotated[
        str, Parameter(help="What it may do, joined by commas: score, read (events, drift, page), metrics.")
    ] = "score",
    json: Json = False,
) -> None:
    """Make a token. It is shown once; the line to add to the file of tokens holds its hash only.

    For example: perimetry token gateway --scopes score >> tokens.txt (the token itself goes to standard error)
    """
    from perimetry.errors import UnknownName, UsageError
    from perimetry.monitor.http.ids import valid_name
    from perimetry.monitor.http.tokens import SCOPES, new_token

    wanted = [scope.strip() for scope in scopes.split(",") if scope.strip()]
    for scope in wanted:
        if scope not in SCOPES:
            raise UnknownName("scope", scope, sorted(SCOPES))
    if not valid_name(name) or not wanted:
        raise UsageError(
            f"{name!r} with {len(wanted)} scopes; wanted a name of A-Z a-z 0-9 . _ - and one scope or more"
        )
    made, hashed = new_token()
    line = f"{name} {','.join(wanted)} {hashed}"

    def human() -> None:
        print(line)  # noqa: T201
        note(f"token: {made}")

    emit({"name": name, "scopes": wanted, "token": made, "line": line}, json, human)
