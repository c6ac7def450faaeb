"""Chat templates of models, rendered where they can change nothing and reach nothing."""

import datetime
import json
from typing import Any, NoReturn, final

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

__all__ = ["Generation", "template_environment"]


@final
class Generation(Extension):
    """`{% generation %}`, by which training knows the model's own words; here it is what stands between."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> nodes.Node:
        """The body, as a scope of its own."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body).set_lineno(line)


def _refuse(message: str) -> NoReturn:
    raise TemplateError(message)


def _json(value: Any, ensure_ascii: bool = False, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent)


def _now(form: str) -> str:
    return datetime.datetime.now(tz=datetime.UTC).strftime(form)


def template_environment() -> ImmutableSandboxedEnvironment:
    """What chat templates expect to find, in Jinja's immutable sandbox; no file can be included.

    >>> template_environment().from_string("{% generation %}{{ x }}{% endgeneration %}").render(x="a<b")
    'a<b'
    """
    found = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
    found.filters["tojson"] = _json
    found.globals["raise_exception"] = _refuse
    found.globals["strftime_now"] = _now
    return found
