"""Fields of HTML forms, without a library: URL-encoded only, few, and none twice."""

from typing import Final
from urllib.parse import parse_qsl

from starlette.requests import Request

from perimetry.monitor.problems import Problem

__all__ = ["FORM", "fields_of", "read_form"]

FORM: Final = "application/x-www-form-urlencoded"


def fields_of(body: bytes) -> dict[str, str]:
    """Fields of a body. Errors: `Problem` of `malformed`.

    >>> fields_of(b"csrf=a1&text=two+words")
    {'csrf': 'a1', 'text': 'two words'}
    """
    try:
        found = parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=64, errors="strict")
    except ValueError:
        raise Problem("malformed", "the form is not URL-encoded UTF-8 with at most 64 fields") from None
    if len(dict(found)) != len(found):
        raise Problem("malformed", "the form holds the same field twice")
    return dict(found)


async def read_form(request: Request) -> dict[str, str]:
    """Fields of a request. Errors: `Problem` of `media-type`, `malformed`, and those of reading its body."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != FORM:
        raise Problem("media-type", f"{FORM} is wanted")
    return fields_of(await request.body())
