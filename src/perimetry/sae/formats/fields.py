"""Fields of a foreign configuration: from the file, or from the user instead; never from a default that changes the numbers."""

from collections.abc import Collection, Mapping
from typing import Any

from perimetry.errors import ConfigError, CorruptArtifact, nearest
from perimetry.sae.formats.record import How

__all__ = ["ABSENT", "Fields"]

ABSENT = object()
"""No value at all, as opposed to null."""


def _fits(value: Any, kind: type | tuple[type, ...]) -> bool:
    kinds = kind if isinstance(kind, tuple) else (kind,)
    if isinstance(value, bool):
        return bool in kinds
    return isinstance(value, kinds) or (float in kinds and isinstance(value, int))


class Fields:
    """What a configuration file says, and what the user says instead; it remembers who said what, and what was read."""

    def __init__(self, file: Mapping[str, Any], overrides: Mapping[str, Any], where: str) -> None:
        self.file, self.overrides, self.where = dict(file), dict(overrides), where
        self.how: dict[str, How] = {}
        self.used: dict[str, Any] = {}
        self.read: set[str] = set()
        self.asked: set[str] = set()

    def _find(self, name: str, kind: type | tuple[type, ...], keys: tuple[str, ...]) -> Any:
        self.asked.add(name)
        self.read.update(keys)
        if name in self.overrides:
            value = self.overrides[name]
            if not _fits(value, kind):
                raise ConfigError(f"--set {name}={value!r}: {_words(kind)} is wanted; mend it")
            self.how[name], self.used[name] = "user", value
            return value
        for key in keys:
            if self.file.get(key) is None:
                continue
            value = self.file[key]
            if not _fits(value, kind):
                raise CorruptArtifact(
                    f"{self.where}: {key} is {value!r}, {_words(kind)} is wanted; mend the file or give it with "
                    f"--set {name}="
                )
            self.how[name] = "file"
            return value
        return ABSENT

    def need(self, name: str, kind: type | tuple[type, ...], *keys: str) -> Any:
        """The value of a field that changes the numbers; `keys` are its names in the file (default: `name`).

        Errors: `CorruptArtifact` where nobody gives it, or where the file's value is of another kind; `ConfigError` for the user's.
        """
        value = self._find(name, kind, keys or (name,))
        if value is ABSENT:
            raise CorruptArtifact(
                f"{self.where}: {name} is not given; its absence would mean another SAE, so nothing is assumed; mend the file, "
                f"or give it with --set {name}="
            )
        return value

    def may(self, name: str, kind: type | tuple[type, ...], *keys: str) -> Any:
        """The value of a field that does not change the numbers, or None."""
        value = self._find(name, kind, keys or (name,))
        return None if value is ABSENT else value

    def rest(self) -> dict[str, Any]:
        """What stands in the file and was not read."""
        return {key: value for key, value in self.file.items() if key not in self.read}

    def finish(self) -> dict[str, Any]:
        """The overrides that were used. Errors: `ConfigError` for one that nothing here reads."""
        for name in self.overrides:
            if name not in self.asked:
                hint = nearest(name, self.asked)
                near = f"; the nearest name is {hint!r}" if hint else ""
                raise ConfigError(f"--set {name}: {self.where} reads no such field{near}; known: {_list(self.asked)}")
        return dict(self.used)


def _list(names: Collection[str]) -> str:
    return ", ".join(sorted(names))


def _words(kind: type | tuple[type, ...]) -> str:
    names = {
        bool: "true or false",
        int: "a whole number",
        float: "a number",
        str: "a text",
        dict: "an object",
        list: "a list",
    }
    kinds = kind if isinstance(kind, tuple) else (kind,)
    return " or ".join(names.get(k, k.__name__) for k in kinds)
