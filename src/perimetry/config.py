"""Frozen, strict configurations: from a TOML file, then the environment, then flags; unknown keys name the nearest.

Configurations are values: nothing changes one, and what is computed from one goes into a new object.
"""

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from perimetry.errors import ConfigError, MissingFile, nearest
from perimetry.storage import hash_json

__all__ = ["Config", "load_config"]

C = TypeVar("C", bound="Config")


class Config(BaseModel):
    """Base of every configuration: frozen, strict about keys, hashed by content."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)

    def fingerprint(self) -> str:
        """SHA-256 of the canonical JSON of all fields."""
        return hash_json(self.model_dump(mode="json"))


def _explain(kind: str, cls: type[Config], error: ValidationError) -> str:
    parts: list[str] = []
    for problem in error.errors():
        where = ".".join(str(p) for p in problem["loc"]) or kind
        if problem["type"] == "extra_forbidden":
            hint = nearest(str(problem["loc"][-1]), cls.model_fields)
            near = f"; the nearest key is {hint!r}" if hint else ""
            parts.append(f"unknown key {where!r}{near}; known: {', '.join(sorted(cls.model_fields))}")
        else:
            parts.append(f"{where} = {problem.get('input')!r}: {problem['msg']}")
    return f"{kind}: " + "; ".join(parts)


def build(cls: type[C], values: Mapping[str, Any], kind: str) -> C:
    """Make a `cls` from plain values; every refusal becomes one readable `ConfigError`."""
    try:
        return cls.model_validate(dict(values))
    except ValidationError as error:
        raise ConfigError(_explain(kind, cls, error)) from error


def load_config(
    cls: type[C],
    *,
    section: str,
    file: Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
) -> C:
    """Build `cls` from `[section]` of a TOML file, then `PERIMETRY_SECTION_KEY` variables, then `overrides`.

    `overrides` whose value is None count as not given. Errors: `ConfigError` (unknown key, bad value, bad TOML),
    `MissingFile`.
    """
    values: dict[str, Any] = {}
    if file is not None:
        if not file.is_file():
            raise MissingFile(f"no configuration file {file}; check the path")
        try:
            document = tomllib.loads(file.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"{file} is not TOML: {error}; mend it") from error
        values.update(document.get(section, {}))
    env = os.environ if environment is None else environment
    prefix = f"PERIMETRY_{section.upper()}_"
    for name, value in env.items():
        key = name[len(prefix) :].lower()
        if name.startswith(prefix):
            values[key] = value
    values.update({k: v for k, v in (overrides or {}).items() if v is not None})
    return build(cls, values, f"configuration [{section}]")
