"""Templates and files of the page, read once from the package."""

import hashlib
import json
from collections.abc import Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any, Final, NamedTuple, final

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from starlette.responses import Response

from perimetry.monitor.problems import Problem

__all__ = ["PACKAGE", "Asset", "Renderer"]

PACKAGE: Final = "perimetry.monitor.web"
_KINDS: Final = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


class Asset(NamedTuple):
    """A file that browsers fetch."""

    kind: str
    """Its media type."""
    body: bytes
    """What it holds."""


def _raw(text: str) -> Markup:
    """A character as it is: a parser of HTML would turn a bare carriage return into a line feed."""
    return Markup(str(escape(text)).replace("\r", "&#13;"))


def _json(value: Any) -> str:
    """As JSON, which is escaped like any other text (`tojson` of Jinja2 would not be, within double quotes)."""
    return json.dumps(value, allow_nan=False, separators=(",", ":"))


def _assets(folder: Traversable) -> dict[str, Asset]:
    found: dict[str, Asset] = {}
    for entry in sorted(folder.iterdir(), key=lambda one: one.name):
        if entry.is_dir():
            found |= _assets(entry)
        else:
            _, dot, suffix = entry.name.rpartition(".")
            if dot + suffix in _KINDS:
                found[entry.name] = Asset(f"{_KINDS[dot + suffix]}; charset=utf-8", entry.read_bytes())
    return found


@final
class Renderer:
    """Fills templates, every value escaped, and hands out files by name."""

    def __init__(self) -> None:
        self.assets = _assets(files(PACKAGE) / "static")
        """Files by name."""
        every = b"".join(asset.body for asset in self.assets.values())
        self._version = hashlib.sha256(every).hexdigest()[:12]
        self._templates = Environment(
            loader=PackageLoader(PACKAGE),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )
        self._templates.filters["raw"] = _raw
        self._templates.filters["json"] = _json
        self._templates.globals["asset"] = lambda name: f"/static/{name}?v={self._version}"

    def page(self, name: str, values: Mapping[str, Any], status: int = 200) -> Response:
        """A view as an answer."""
        text = self._templates.get_template(f"{name}.html").render(values)
        return Response(text.encode("utf-8", "replace"), status, media_type="text/html")

    def asset(self, name: str) -> Response:
        """A file as an answer. Errors: `Problem` of `not-found`."""
        found = self.assets.get(name)
        if found is None:
            raise Problem("not-found")
        # The address of a file changes with what it holds.
        return Response(found.body, media_type=found.kind, headers={"cache-control": "private, max-age=86400"})
