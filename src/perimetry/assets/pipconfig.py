"""What pip is configured with: indexes, folders of links, certificate, proxy. Asked of pip itself, never guessed."""

import ast
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

__all__ = ["PipSettings", "parse_listing", "read_pip_settings"]

DEFAULT_INDEX = "from pip._internal.models.index import PyPI; print(PyPI.simple_url)"
SECTIONS = ("global", "download", "install", ":env:")
NO = {"", "0", "false", "no", "off"}
ASK_S = 60


class PipSettings(NamedTuple):
    """The part of pip's configuration that says where files come from."""

    indexes: tuple[str, ...]
    """Addresses of simple indexes, in order; empty when none is known or pip is told to use none."""
    find_links: tuple[str, ...]
    """Folders, pages or `file://` addresses that list files."""
    cert: str | None
    """A file of certificates."""
    proxy: str | None
    """The address of a proxy."""


def _pip_location() -> str | None:
    """A path under which `pip` can be imported: "" when it already can, the copy inside Python's own `ensurepip`, or
    the installation behind a `pip` command; None where there is no pip at all."""
    if importlib.util.find_spec("pip") is not None:
        return ""
    spec = importlib.util.find_spec("ensurepip")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        for wheel in sorted(Path(folder, "_bundled").glob("pip-*.whl")):
            return str(wheel)
    for name in ("pip3", "pip"):
        command = shutil.which(name)
        answer = _run([command, "--version"]) if command else ""
        found = re.search(r" from (.+)[/\\]pip \(python", answer)
        if found:
            return found[1]
    return None


def _run(command: list[str], location: str = "") -> str:
    environment = dict(os.environ)
    environment["PIP_DISABLE_PIP_VERSION_CHECK"] = "1"
    if location:
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [location, environment.get("PYTHONPATH", "")]))
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=ASK_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


def parse_listing(text: str) -> dict[str, str]:
    """Settings out of `pip config list`; a later section of the order that pip uses wins.

    >>> parse_listing("global.index-url='https://a.example/simple'\\n:env:.index-url='https://b.example/simple'")
    {'index-url': 'https://b.example/simple'}
    """
    ranked: dict[str, tuple[int, str]] = {}
    for line in text.splitlines():
        full, _, value = line.partition("=")
        section, _, key = full.strip().rpartition(".")
        if section not in SECTIONS or not key:
            continue
        try:
            plain = str(ast.literal_eval(value))
        except (ValueError, SyntaxError):
            plain = value
        rank = SECTIONS.index(section)
        if key not in ranked or rank >= ranked[key][0]:
            ranked[key] = (rank, plain)
    return {key: value for key, (_, value) in ranked.items()}


def _from_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """`PIP_*` variables, and those of uv where pip's are not set."""
    found = {
        name[4:].lower().replace("_", "-"): value
        for name, value in environment.items()
        if name.startswith("PIP_") and value
    }
    uv = {
        "index-url": environment.get("UV_DEFAULT_INDEX") or environment.get("UV_INDEX_URL", ""),
        "extra-index-url": environment.get("UV_INDEX") or environment.get("UV_EXTRA_INDEX_URL", ""),
        "find-links": environment.get("UV_FIND_LINKS", "").replace(",", " "),
    }
    named = re.compile(r"(?:^|(?<=\s))[\w.-]+=(?=\w+:)")  # uv may give an index a name: `inner=https://...`
    for key, value in uv.items():
        if value and key not in found:
            found[key] = named.sub("", value)
    return found


def read_pip_settings() -> PipSettings:
    """Ask pip for its configuration; without pip, read the environment alone."""
    location = _pip_location()
    values: dict[str, str] = {}
    if location is not None:
        values = parse_listing(_run([sys.executable, "-m", "pip", "config", "list"], location))
    values.update({k: v for k, v in _from_environment(os.environ).items() if k not in values})
    index = values.get("index-url", "")
    if not index and location is not None:
        index = _run([sys.executable, "-c", DEFAULT_INDEX], location).strip()
    indexes = tuple(filter(None, [index, *values.get("extra-index-url", "").split()]))
    if values.get("no-index", "").lower() not in NO:
        indexes = ()
    links = tuple(values.get("find-links", "").split())
    return PipSettings(indexes, links, values.get("cert") or None, values.get("proxy") or None)
