"""Files that were whole, spoilt by Hypothesis: a refusal by name, or a load, and nothing else."""

import json
import shutil
import traceback
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from tests.reliability.attacks import join, parts, reseal
from tests.reliability.loaders import LOADERS, Desk

from perimetry.errors import PerimetryError

NAMES = (
    *("sae", "native", "stranger", "sparsify", "llamascopium", "gemma_scope_2", "store", "meter", "reference"),
    *(
        "checkpoint",
        "responses",
        "edit",
        "points",
        "vector",
        "adapter",
        "report",
        "suite",
        "readings",
        "pairs",
        "jsonl",
    ),
)
PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False)
    | st.text(max_size=4)
    | st.sampled_from(["F32", "I64", "../x", "chat", "a|b|c", "nan"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=4,
)
BYTES = st.tuples(st.just("bytes"), st.floats(0, 1, exclude_max=True), st.integers(0, 8), st.binary(max_size=6))
CUT = st.tuples(st.just("cut"), st.floats(0, 1, exclude_max=True), st.just(0), st.just(b""))
TREE = st.tuples(st.just("tree"), st.lists(st.integers(0, 30), max_size=5), st.just(0), PLAIN)
DROP = st.tuples(st.just("drop"), st.lists(st.integers(0, 30), min_size=1, max_size=5), st.just(0), st.none())


def graft(value: Any, path: list[int], new: Any, *, drop: bool) -> Any:
    """The value with what lies at a path replaced, or taken away."""
    if not path or not isinstance(value, dict | list) or not value:
        return new if not drop else value
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    key = keys[path[0] % len(keys)]
    if drop and (len(path) == 1 or not isinstance(value[key], dict | list)):
        del value[key]
    else:
        value[key] = graft(value[key], path[1:], new, drop=drop)
    return value


def spoil(file: Path, change: tuple[str, Any, int, Any]) -> None:
    """Change bytes, or a value of the JSON, or of the header."""
    kind, where, length, new = change
    data = file.read_bytes()
    if kind == "bytes":
        at = int(where * len(data))
        file.write_bytes(data[:at] + new + data[at + length :])
    elif kind == "cut":
        file.write_bytes(data[: int(where * len(data))])
    elif file.suffix == ".safetensors":
        header, rest = parts(file)
        join(file, graft(header, where, new, drop=kind == "drop"), rest)
    elif file.suffix == ".json":
        file.write_text(json.dumps(graft(json.loads(data), where, new, drop=kind == "drop")))
    elif file.suffix == ".jsonl":
        first, _, rest = data.decode().partition("\n")
        file.write_text(json.dumps(graft(json.loads(first), where, new, drop=kind == "drop")) + "\n" + rest)


def try_one(desk: Desk, work: Path, name: str, choice: int, change: Any, *, sealed: bool) -> str:
    """What a spoilt folder came to: `loaded`, or the name of the error."""
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(desk.root / name, work)
    files = sorted(f for f in work.rglob("*") if f.suffix in (".safetensors", ".json", ".jsonl"))
    file = files[choice % len(files)]
    spoil(file, change)
    if sealed and (work / "manifest.json").is_file() and file.name != "manifest.json":
        reseal(work)
    try:
        LOADERS[name](work, desk)
    except PerimetryError as error:
        return type(error).__name__
    return "loaded"


def examine(desk: Desk, work: Path, name: str, each: int) -> dict[str, Any]:
    """So many spoilt folders of one loader: how many came to what, and what was no refusal by name."""
    counts: dict[str, int] = {}
    crashes: list[str] = []

    @settings(
        max_examples=each,
        deadline=None,
        database=None,
        derandomize=True,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )
    @given(st.integers(0, 40), TREE | DROP | BYTES | CUT, st.booleans())
    def check(choice: int, change: Any, sealed: bool) -> None:
        try:
            came = try_one(desk, work, name, choice, change, sealed=sealed or change[0] != "bytes")
        except Exception:
            came = "crash"
            crashes.append(f"{change!r}\n{traceback.format_exc()[-1200:]}")
        counts[came] = counts.get(came, 0) + 1

    check()
    return {"counts": counts, "crashes": crashes}
