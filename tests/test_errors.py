"""The exception tree is the one its docstring draws, and its messages say what to do."""

import inspect
import re

import pytest

from perimetry import errors
from perimetry.errors import MalformedLine, PerimetryError, UnknownName, nearest


def drawn() -> dict[str, str]:
    """Child -> parent, read off the drawing in the docstring of the module."""
    parents: dict[int, str] = {}
    found: dict[str, str] = {}
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"^    ([│ ]*[├└]── )?(\w+)  +\S", line)
        if match:
            depth = len(match.group(1) or "") // 4
            if depth:
                found[match.group(2)] = parents[depth - 1]
            parents[depth] = match.group(2)
    return found


def test_the_tree_is_as_drawn() -> None:
    classes = {n: c for n, c in vars(errors).items() if inspect.isclass(c) and issubclass(c, PerimetryError)}
    real = {name: cls.__mro__[1].__name__ for name, cls in classes.items() if cls is not PerimetryError}
    assert len(real) == 31
    assert drawn() == real


def test_unknown_names_hint_only_at_what_is_near() -> None:
    assert str(UnknownName("dial", "zzz", ["l0", "knn"])) == "unknown dial 'zzz'; known: knn, l0"
    assert "the nearest name is 'knn'" in str(UnknownName("dial", "knnn", ["l0", "knn"]))
    assert nearest("x", []) is None


def test_a_malformed_line_keeps_its_number() -> None:
    error = MalformedLine("a.jsonl", 7, "it is not JSON")
    assert error.line == 7
    assert str(error).startswith("a.jsonl, line 7: it is not JSON; wanted one JSON object a line")


def test_all_are_caught_by_the_base() -> None:
    with pytest.raises(PerimetryError):
        raise UnknownName("a", "b", [])
