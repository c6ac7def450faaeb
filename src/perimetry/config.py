"""Frozen, strict configurations: from a TOML file, then the environment, then flags; unknown keys name the nearest.

Configurations are values: nothing changes one, and what is computed from one goes into a new object.
"""

import json
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from perimetry.errors import ConfigError, MissingFile, nearest
from perimetry.storage import hash_json

__all__ = ["Config", "build", "load_config", "load_values", "over", "refusal"]

C = TypeVar("C", bound="Config")
MAX_BYTES = 4 * 2**20


class Config(BaseModel):
    """Base of every configuration: frozen, strict about keys, hashed by content."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)

    def fingerprint(self) -> str:
        """SHA-256 of the canonical JSON of all fields."""
        return hash_json(self.model_dump(mode="json"))


def _keys(cls: type[BaseModel], path: tuple[int | str, ...]) -> list[str]:
    """Keys of the configuration that lies at `path` of `cls`; none where that is no configuration."""
    for step in path:
        field = cls.model_fields.get(str(step))
        if field is None or not isinstance(field.annotation, type) or not issubclass(field.annotation, BaseModel):
            return []
        cls = field.annotation
    return sorted(cls.model_fields)


def refusal(kind: str, error: ValidationError, cls: type[Config] | None = None) -> ConfigError:
    """What pydantic refused as one readable error; with `cls` an unknown key names the nearest one."""
    parts: list[str] = []
    for problem in error.errors():
        where = ".".join(str(p) for p in problem["loc"])
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            known = [] if cls is None else _keys(cls, problem["loc"][:-1])
            hint = nearest(str(problem["loc"][-1]), known)
            near = f"; the nearest key is {hint!r}" if hint else ""
            parts.append(f"unknown key {where!r}{near}" + (f"; known: {', '.join(known)}" if known else ""))
        else:
            parts.append(f"{where} = {problem.get('input')!r}: {message}" if where else message)
    return ConfigError(f"{kind}: " + "; ".join(parts))


def build(cls: type[C], values: Mapping[str, Any], kind: str) -> C:
    """Make a `cls` from plain values; every refusal becomes one readable `ConfigError`."""
    try:
        return cls.model_validate(dict(values))
    except ValidationError as error:
        raise refusal(kind, error, cls) from error


def over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Values on top of others, table by table.

    >>> over({"a": {"b": 1, "c": 2}}, {"a": {"c": 3}})
    {'a': {'b': 1, 'c': 3}}
    """
    found = dict(below)
    for key, value in above.items():
        old = found.get(key)
        found[key] = over(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return found


def _section(document: Mapping[str, Any], section: str, file: Path) -> Mapping[str, Any]:
    found = document.get(section)
    if not isinstance(found, dict):
        hint = nearest(section, document)
        near = f"; the nearest name in it is {hint!r}" if hint else ""
        raise ConfigError(
            f"{file} has no section [{section}]{near}; put the settings of this command under that heading"
        )
    return found


def _plain(name: str, value: str) -> Any:
    if not value.lstrip().startswith(("[", "{")):
        return value
    try:
        return json.loads(value)
    except ValueError as error:
        raise ConfigError(f"the environment variable {name} is not JSON: {error}; mend it") from error


def load_values(
    *,
    section: str,
    file: Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """The plain values of `[section]` of a TOML file, then of `PERIMETRY_SECTION_KEY` variables, then `overrides`.

    `overrides` whose value is None count as not given; a variable that begins with `[` or `{` is read as JSON. Errors:
    `ConfigError` (bad TOML, no such section), `MissingFile`.
    """
    values: dict[str, Any] = {}
    if file is not None:
        if not file.is_file():
            raise MissingFile(f"no configuration file {file}; check the path")
        if file.stat().st_size > MAX_BYTES:
            raise ConfigError(f"{file} holds more than {MAX_BYTES} bytes; that is no configuration")
        try:
            document = tomllib.loads(file.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
            raise ConfigError(f"{file} is not TOML: {error}; mend it") from error
        values.update(_section(document, section, file))
    env = os.environ if environment is None else environment
    prefix = f"PERIMETRY_{section.upper()}_"
    for name, value in env.items():
        key = name[len(prefix) :].lower()
        if name.startswith(prefix):
            values[key] = _plain(name, value)
    values.update({k: v for k, v in (overrides or {}).items() if v is not None})
    return values


def load_config(
    cls: type[C],
    *,
    section: str,
    file: Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
) -> C:
    """Build `cls` from `load_values`. Errors: `ConfigError` (unknown key, bad value), and those of `load_values`."""
    values = load_values(section=section, file=file, overrides=overrides, environment=environment)
    return build(cls, values, f"configuration [{section}]")
