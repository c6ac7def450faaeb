"""What one run trains: a product of lists, a list of runs, or both; and what tells the SAEs of a run apart."""

import hashlib
import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from perimetry.activations.site import Site
from perimetry.config import build
from perimetry.errors import ConfigError, UnknownName
from perimetry.pipeline.places import Where, name_places, require_where
from perimetry.train import TrainConfig
from perimetry.train.loop import SHARED

__all__ = ["OPTION", "Member", "RunConfig", "differences", "expand", "folder_names", "parse_sweep", "with_flags"]

LABEL = "configuration [train]"
LISTS = ("runs", "sweep")
APART = ("architecture", "options", "seed")
"""Fields of the recipe that have a place of their own in names; the others come between, in its order."""
OPTION = "options."
"""Before the name of an option among the facts of a member."""
LONGEST = 150


class RunConfig(TrainConfig, Where):
    """One SAE of a run: how it is trained, and on which activations."""

    @property
    def recipe(self) -> TrainConfig:
        """How."""
        return TrainConfig.model_validate({name: getattr(self, name) for name in TrainConfig.model_fields})

    @property
    def where(self) -> Where:
        """On what."""
        return Where.model_validate({name: getattr(self, name) for name in Where.model_fields})


class Member(NamedTuple):
    """One SAE of a run, once the model is known."""

    config: TrainConfig
    """As the user says it."""
    sites: tuple[Site, ...]
    """Places whose activations stand side by side in its rows."""

    def facts(self) -> dict[str, Any]:
        """All that it is, flat, as plain values: places, architecture, options with their defaults, fields of the recipe."""
        plain = self.config.model_dump(mode="json")
        options = self.config.chosen.model_dump(mode="json")
        return {
            "places": name_places(self.sites, self.config.sae_class),
            "architecture": plain["architecture"],
            **{OPTION + name: value for name, value in options.items()},
            # A dump leaves out what says nothing; here all members need the same keys.
            **{n: plain.get(n, getattr(self.config, n)) for n in TrainConfig.model_fields if n not in APART},
            "seed": plain["seed"],
        }

    def where(self) -> dict[str, Any]:
        """Its places in the words of the options."""
        first, last = self.sites[0], self.sites[-1]
        if self.config.sae_class.reads == "several":
            return {"layers": [site.layer for site in self.sites], "place": first.place}
        if self.config.sae_class.reads == "pair":
            place = "mlp" if first.place == "mlp_in" else first.place
            target = {} if first.layer == last.layer else {"target_layer": last.layer}
            return {"layer": first.layer, **target, "place": place}
        return {"layer": first.layer, "place": first.place}


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def parse_sweep(flags: Sequence[str]) -> dict[str, list[Any]]:
    """The lists of `--sweep KEY=VALUE,VALUE` flags. Errors: `ConfigError`, `UnknownName`.

    >>> parse_sweep(["width=64,96", "architecture=topk,batchtopk"])
    {'width': [64, 96], 'architecture': ['topk', 'batchtopk']}
    """
    found: dict[str, list[Any]] = {}
    for flag in flags:
        key, equals, listed = flag.partition("=")
        values = [part.strip() for part in listed.split(",")]
        if not equals or not all(values):
            raise ConfigError(f"--sweep {flag} is no list; wanted KEY=VALUE,VALUE, such as --sweep width=2048,4096")
        key = key.strip().replace("-", "_")
        if key in found:
            raise ConfigError(f"--sweep {key} was given twice; give all its values in one list")
        if key in ("options", "layers"):
            raise ConfigError(
                f"--sweep {key} would be a list of lists; write it as [[train.runs]] in a file, for --config"
            )
        found[key] = [_value(value) for value in values]
    for key in found:
        _require_known(key, "--sweep")
    return found


def _require_known(key: str, where: str) -> None:
    if key not in RunConfig.model_fields:
        raise UnknownName(f"key of {where}", key, RunConfig.model_fields)


def _require_table(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ConfigError(f"{where} is {value!r}, a table is wanted; write it under its own heading")
    return value


def _lists(value: Any, where: str) -> dict[str, list[Any]]:
    """The lists of a sweep, checked."""
    found = dict(_require_table(value, where))
    for key, values in found.items():
        _require_known(key, where)
        if not isinstance(values, list) or not values:
            raise ConfigError(f"{where}: {key} is {values!r}, a list of one or more is wanted; write {key} = [ ... ]")
    return found


def _runs(values: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    runs = values.get("runs", [])
    if not isinstance(runs, list):
        raise ConfigError(f"train.runs is {runs!r}, a list of tables is wanted; write each under [[train.runs]]")
    return [_require_table(run, f"train.runs, entry {n}") for n, run in enumerate(runs, 1)]


def with_flags(values: Mapping[str, Any], flags: Mapping[str, Any], sweep: Mapping[str, list[Any]]) -> dict[str, Any]:
    """The values of a file with the flags put over them; a list from a flag takes the place of the file's list.

    Errors: `ConfigError` for a flag that would say nothing, because a list or a run of the file names its key.
    """
    given = {key: value for key, value in flags.items() if value is not None}
    lists = {**_lists(values.get("sweep", {}), "train.sweep"), **sweep}
    runs = _runs(values)
    if sweep and runs:
        raise ConfigError(
            f"the file lists runs, and a list of {', '.join(sweep)} came from flags; give the runs a sweep of their own in the "
            "file, sweep = { seed = [0, 1] }, or leave the flags out"
        )
    for key, value in given.items():
        if key in lists:
            raise ConfigError(f"{key} is given as {value!r} and as the list {lists[key]}; give one of the two")
        named = [n for n, run in enumerate(runs, 1) if key in run or key in _lists(run.get("sweep", {}), _own(n))]
        if named:
            raise ConfigError(
                f"{key} is given as {value!r} by a flag and run {named[0]} of the file names it; give one of the two"
            )
    return _over(values, given) | ({"sweep": lists} if lists else {})


def _own(n: int) -> str:
    return f"sweep of entry {n} of train.runs"


def _over(base: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `more` put over it; one block takes the place of several, and several that of one."""
    gone = {"layers"} if "layer" in more else {"layer", "target_layer"} if "layers" in more else set()
    return {**{key: value for key, value in base.items() if key not in gone}, **more}


def _product(base: Mapping[str, Any], lists: Mapping[str, list[Any]]) -> Iterator[dict[str, Any]]:
    for point in itertools.product(*lists.values()):
        yield _over(base, dict(zip(lists, point, strict=True)))


def _points(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    base = {key: value for key, value in values.items() if key not in LISTS}
    lists, runs = _lists(values.get("sweep", {}), "train.sweep"), _runs(values)
    points = list(_product(base, lists)) if lists or not runs else []
    for n, run in enumerate(runs, 1):
        own = _lists(run.get("sweep", {}), _own(n))
        points += _product(_over(base, {key: value for key, value in run.items() if key != "sweep"}), own)
    return points


def expand(values: Mapping[str, Any]) -> list[RunConfig]:
    """Every SAE that the section `[train]` asks for: `sweep` is a table of lists, of which the product is trained; `runs` a list
    of tables, each `[train]` with those keys instead, and perhaps a `sweep` of its own.

    With neither it is one SAE; with both it is the product and then the runs. Errors: `ConfigError` (values, unknown keys,
    fields that differ and must not, two that are equal), `UnknownName`.
    """
    points = _points(values)
    runs: list[RunConfig] = []
    for n, point in enumerate(points, 1):
        label = LABEL if len(points) == 1 else f"{LABEL}, SAE {n} of {len(points)}"
        run = build(RunConfig, point, label)
        try:
            require_where(run, run.architecture)
        except ConfigError as error:
            raise ConfigError(f"{label}: {error}") from error
        runs.append(run)
    _require_shared(runs)
    plain = [run.model_dump(mode="json") | {"options": run.chosen.model_dump(mode="json")} for run in runs]
    _require_different(plain)
    return runs


def _require_shared(runs: Sequence[RunConfig]) -> None:
    for name in SHARED:
        found = [getattr(run, name) for run in runs]
        first = next((n for n, value in enumerate(found) if value != found[0]), None)
        if first is None:
            continue
        shown, values = name, (found[0], found[first])
        if name == "paired":
            shown, values = "smooth (0, or more than 0)", (runs[0].smooth, runs[first].smooth)
        raise ConfigError(
            f"SAEs of one run see the same batches, and so need the same {shown}; SAE 1 has {values[0]} and SAE {first + 1} has "
            f"{values[1]}; say it once in [train], or train them with a command each"
        )


def _require_different(described: Sequence[Mapping[str, Any]]) -> None:
    """Refuse two SAEs that are the same. Errors: `ConfigError`."""
    seen: dict[str, int] = {}
    for n, one in enumerate(described, 1):
        before = seen.setdefault(json.dumps(one, sort_keys=True), n)
        if before != n:
            raise ConfigError(
                f"SAE {n} is the same as SAE {before} of this run; take one away, or give it another seed"
            )


def differences(members: Sequence[Member]) -> list[dict[str, Any]]:
    """Of each member the facts in which not all agree, in the order in which they stand in names.

    An option is one only where members of its architecture differ in it. Errors: `ConfigError` for two that agree in all.
    """
    facts = [member.facts() for member in members]
    _require_different(facts)
    split: list[set[str]] = []
    for one in facts:
        alike = [other for other in facts if other["architecture"] == one["architecture"]]
        split.append(
            {key for key, value in one.items() for f in (alike if key.startswith(OPTION) else facts) if f[key] != value}
        )
    return [
        {key: one[key] for key in sorted(keys, key=list(one).index)} for one, keys in zip(facts, split, strict=True)
    ]


def _text(value: Any) -> str:
    """A value as a part of a file name; what a name cannot hold is replaced, and its hash keeps it apart."""
    plain = {None: "auto", True: "true", False: "false"}
    if isinstance(value, list):
        shown = "-".join(map(_text, value))
    else:
        shown = plain[value] if value is None or isinstance(value, bool) else str(value)
    safe = re.sub(r"[^\w.+-]", "-", shown)
    return (
        safe if safe == shown and len(safe) <= 40 else f"{safe[:30]}-{hashlib.sha256(shown.encode()).hexdigest()[:8]}"
    )


def folder_names(found: Sequence[Mapping[str, Any]]) -> list[str]:
    """A readable name for each SAE, of its `differences`.

    >>> folder_names([{"places": "layer-06", "architecture": "topk", "k": 32, "seed": 0}])
    ['layer-06_topk_k-32_seed-0']
    """
    names: list[str] = []
    for one in found:
        parts = [
            _text(value) if key in ("places", "architecture") else f"{key.removeprefix(OPTION)}-{_text(value)}"
            for key, value in one.items()
        ]
        name = "_".join(parts)
        cut = f"{name[: LONGEST - 9]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
        names.append(name if len(name) <= LONGEST else cut)
    return names
