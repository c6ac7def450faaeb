"""The package asks for what it imports, pins what it installs, and keeps the core small."""

import ast
import functools
import re
import sys
import tomllib
from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions, version
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "perimetry"
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
BUILD = {"hatchling", "editables"}
"""Installed before the package, since it is built without isolation."""
TOO_HEAVY = {
    *("wandb", "tensorboard", "mlflow", "transformer-lens", "sae-lens", "nnsight", "datasets", "ray", "peft"),
    *("fastapi", "starlette", "flask", "django", "uvicorn", "gunicorn", "sqlalchemy", "gradio", "streamlit"),
}
WANTED_EXTRAS = {
    *("robust", "harness", "monitor", "postgres", "telemetry", "export", "scale", "report", "hub", "track", "dev"),
}
BUILT_ON = {"monitor": "monitor"}
"""Room -> the extra that it is built on: its modules may import that at once, as nothing else imports them but in functions."""
LATE = {"monitor/telemetry/outbox.py": "telemetry", "monitor/telemetry/recorder.py": "telemetry"}
"""File -> the extra that it may import at once, as others import it in functions only."""
TARGETS = {"demo", "test", "check", "bench", "docs", "clean"}


def names(requirements: Iterable[str]) -> set[str]:
    return {canonicalize_name(Requirement(r).name) for r in requirements}


def requirements_of(name: str, extras: frozenset[str]) -> Iterator[Requirement]:
    """What a distribution asks for here; of the project itself what pyproject.toml says now, not when it was installed."""
    if canonicalize_name(name) == PROJECT["name"]:
        lines = [*PROJECT["dependencies"], *(r for extra in sorted(extras) for r in EXTRAS[extra])]
    else:
        lines = distribution(name).requires or []
    for line in lines:
        found = Requirement(line)
        if found.marker is None or any(found.marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            yield found


def closure(roots: Iterable[Requirement]) -> dict[str, str]:
    """Installed version of everything that these requirements pull in; an absent one stays ''."""
    found: dict[str, str] = {}
    seen: set[tuple[str, frozenset[str]]] = set()
    todo = list(roots)
    while todo:
        wanted = todo.pop()
        key = (canonicalize_name(wanted.name), frozenset(wanted.extras))
        if key in seen:
            continue
        seen.add(key)
        try:
            found[key[0]] = version(wanted.name) if key[0] != PROJECT["name"] else ""
            todo += requirements_of(wanted.name, key[1])
        except PackageNotFoundError:
            found[key[0]] = ""
    return {name: at for name, at in found.items() if name != PROJECT["name"]}


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").split("\n")
    pairs = [line.split("==") for line in lines if line.strip() and not line.startswith("#")]
    assert all(len(pair) == 2 for pair in pairs), "every line of constraints.txt pins one version"
    return {canonicalize_name(name): pinned for name, pinned in pairs}


@functools.cache
def imported() -> dict[str, set[str]]:
    """Third-party module -> files of the package that import it, in functions too."""
    found: dict[str, set[str]] = {}
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            modules: list[str] = []
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path.name} has a relative import"
                modules = [node.module or ""]
            for module in modules:
                top = module.partition(".")[0]
                if top not in sys.stdlib_module_names and top != "perimetry":
                    found.setdefault(top, set()).add(str(path.relative_to(SOURCE)))
    return found


def imported_at_once(*, but: Iterable[str] = ()) -> set[str]:
    """Modules that are imported outside functions somewhere in the package, some rooms left out."""
    found: set[str] = set()
    for path in SOURCE.rglob("*.py"):
        if path.relative_to(SOURCE).parts[0] in but:
            continue
        todo: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
        while todo:
            node = todo.pop()
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.partition(".")[0])
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                todo += ast.iter_child_nodes(node)
    return found


def test_no_extra_is_imported_at_once() -> None:
    assert {"torch", "transformers", "pydantic"} <= imported_at_once()
    assert not {"peft", "wandb", "ray", "fastapi", "datasets"} & imported_at_once(but=BUILT_ON)


@pytest.mark.parametrize("room", sorted(BUILT_ON))
def test_a_room_that_is_built_on_an_extra_is_imported_in_functions_only(room: str) -> None:
    found: list[str] = []
    for path in SOURCE.rglob("*.py"):
        if path.relative_to(SOURCE).parts[0] != room:
            for node in ast.parse(path.read_text(encoding="utf-8")).body:
                if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"perimetry.{room}"):
                    found.append(f"{path.name}: {node.module}")
    assert found == []


@pytest.mark.parametrize("file", sorted(LATE))
def test_a_file_that_wants_an_extra_is_imported_in_functions_only(file: str) -> None:
    late = {f"perimetry.{name.removesuffix('.py').replace('/', '.')}" for name in LATE}
    module = f"perimetry.{file.removesuffix('.py').replace('/', '.')}"
    assert module in late
    for path in SOURCE.rglob("*.py"):
        if str(path.relative_to(SOURCE)) not in LATE:
            at_once = ast.parse(path.read_text(encoding="utf-8")).body
            assert module not in {node.module for node in at_once if isinstance(node, ast.ImportFrom)}, path.name


def test_the_core_is_small() -> None:
    core = closure([Requirement(r) for r in PROJECT["dependencies"]])
    assert not set(core) & TOO_HEAVY
    assert {"torch", "transformers", "pydantic"} <= set(core)


def test_the_heavy_ones_are_known_by_their_real_names() -> None:
    extras = names(r for extra in EXTRAS.values() for r in extra)
    assert {"wandb", "tensorboard", "ray", "peft", "fastapi", "uvicorn", "sqlalchemy", "datasets"} <= extras & TOO_HEAVY


def test_extras_are_those_of_the_architecture() -> None:
    assert set(EXTRAS) == WANTED_EXTRAS
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert not [extra for extra in WANTED_EXTRAS if f"`{extra}`" not in text]


@pytest.mark.parametrize("module", sorted(imported()))
def test_every_import_is_declared(module: str) -> None:
    owners = {canonicalize_name(d) for d in packages_distributions().get(module, [])}
    assert owners, f"{module} is imported by {sorted(imported()[module])} and is not installed"
    declared = names(PROJECT["dependencies"])
    for room, extra in BUILT_ON.items():
        if all(file.split("/")[0] == room for file in imported()[module]):
            declared |= names(EXTRAS[extra])
    for extra in {LATE[file] for file in imported()[module] if imported()[module] <= set(LATE)}:
        declared |= names(EXTRAS[extra])
    if module not in imported_at_once():
        # An extra may be asked for inside a function, where its absence can be told.
        declared |= names(r for extra, lines in EXTRAS.items() if extra != "dev" for r in lines)
    assert owners & declared, f"{module} is imported by {sorted(imported()[module])}; declare it"


def test_every_requirement_has_a_floor() -> None:
    for line in [*PROJECT["dependencies"], *(r for extra in EXTRAS.values() for r in extra)]:
        wanted = Requirement(line)
        assert wanted.name == PROJECT["name"] or wanted.specifier, f"{line} says no version"


def test_constraints_pin_exactly_what_is_installed() -> None:
    roots = [Requirement("perimetry[dev]"), *(Requirement(name) for name in sorted(BUILD))]
    installed = closure(roots)
    assert not [name for name, at in installed.items() if not at], "not everything that is asked for is installed"
    public = {name: Version(at).public for name, at in installed.items()}
    assert pins() == public


def test_constraints_are_plain_and_sorted() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    keys = [canonicalize_name(line.partition("==")[0]) for line in lines]
    assert keys == sorted(set(keys))
    assert not [line for line in lines if "+" in line or "@" in line], "a local version is on one machine only"
    assert pins()["torch"] == "2.13.0"


def test_pins_satisfy_the_requirements() -> None:
    for line in [*PROJECT["dependencies"], *EXTRAS["dev"]]:
        wanted = Requirement(line)
        if wanted.name != PROJECT["name"]:
            assert SpecifierSet(str(wanted.specifier)).contains(pins()[canonicalize_name(wanted.name)]), line


def test_makefile_targets() -> None:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    rules = dict(re.findall(r"^(\w+):(.*)$", text, re.MULTILINE))
    phony = set(re.findall(r"^\.PHONY: (.*)$", text, re.MULTILINE)[0].split())
    assert set(rules) == phony == TARGETS
    for target in TARGETS - {"clean"}:
        assert rules[target].strip() == "$(STAMP)", f"make {target} does not set itself up"
    scripts = [p.name for p in sorted((ROOT / "benchmarks").glob("*.py")) if not p.name.startswith("_")]
    assert scripts
    assert not [name for name in scripts if f"benchmarks/{name}" not in text], "make bench leaves a benchmark out"


def test_ci_runs_the_three_commands_in_order() -> None:
    script = ROOT / ".ci" / "run"
    text = script.read_text(encoding="utf-8")
    assert re.findall(r"^make (\w+)$", text, re.MULTILINE) == ["check", "demo", "test"]
    assert "set -euo pipefail" in text
    assert script.stat().st_mode & 0o111, ".ci/run cannot be executed"


def test_the_licence_and_the_version_are_one() -> None:
    import perimetry

    assert PROJECT["license"] == "Apache-2.0"
    assert "Apache License" in (ROOT / "LICENSE").read_text(encoding="utf-8")
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(rf"^## {re.escape(perimetry.__version__)}\b", changes, re.MULTILINE)
