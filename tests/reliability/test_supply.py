"""What is imported, what is built: nothing that runs code from files, nothing done on import, a wheel of plain sources."""

import ast
import json
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.worlds import child_environment

pytestmark = pytest.mark.supply
ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "perimetry"
CONVERTER = {"sae/formats/isolated_worker.py"}
"""The limited process that opens pickles (of tensors only) and YAML (by the safe loader) where the user asks for it."""
MODULES = {"cPickle", "cloudpickle", "dill", "joblib", "marshal", "pickle", "shelve"}
CALLS = {
    "__import__",
    "compile",
    "eval",
    "exec",
    "os.popen",
    "os.system",
    "torch.hub.load",
    "torch.jit.load",
    "torch.load",
}
YAML = {"yaml.load", "yaml.full_load", "yaml.unsafe_load"}
SUFFIXES = {".py", ".typed", ".c", ".cpp", ".h", ".html", ".css", ".js", ".svg", ".json", ".txt", ".mako", ".ini"}


def banned(text: str) -> Iterator[str]:
    """What a source does that could run code from data."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from sorted({a.name.split(".")[0] for a in node.names} & MODULES)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in MODULES:
            yield str(node.module)
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            given = {k.arg: ast.unparse(k.value) for k in node.keywords}
            if name in CALLS or name in YAML:
                yield name
            if given.get("allow_pickle", "False") != "False" or (name in ("np.load", "numpy.load") and len(given) == 0):
                yield "allow_pickle"
            if given.get("trust_remote_code", "False") != "False" or given.get("shell", "False") != "False":
                yield "trust_remote_code" if "trust_remote_code" in given else "shell"
        elif isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                if key is not None and ast.unparse(key) == "'trust_remote_code'" and ast.unparse(value) != "False":
                    yield "trust_remote_code"


def test_no_source_runs_code_from_files() -> None:
    found = {
        str(path.relative_to(SOURCE)): wrong
        for path in sorted(SOURCE.rglob("*.py"))
        if (wrong := list(banned(path.read_text(encoding="utf-8"))))
    }
    assert set(found) <= CONVERTER, found
    assert set(found["sae/formats/isolated_worker.py"]) <= {"torch.load", "yaml.load"}


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from dill import loads",
        "torch.load(f)",
        "eval(x)",
        "np.load(f)",
        "np.load(f, allow_pickle=True)",
        "yaml.load(f)",
        "g(trust_remote_code=True)",
        "d = {'trust_remote_code': ask}",
        "subprocess.run(x, shell=True)",
    ],
)
def test_the_ban_sees_each_of_them(line: str) -> None:
    assert list(banned(line))


HOOK = """
import json, sys
seen = []
sys.addaudithook(lambda event, arguments: seen.append(event))
import perimetry
from perimetry.cli import main
try:
    main(sys.argv[1:])
except SystemExit:
    pass
bad = [e for e in seen if e.startswith(("socket.", "subprocess.", "os.system", "os.exec", "os.posix_spawn", "os.fork"))]
heavy = sorted({"torch", "transformers", "numpy", "fastapi", "sqlalchemy"} & set(sys.modules))
sys.stderr.write(json.dumps({"bad": bad, "heavy": heavy, "events": len(seen)}))
"""


@pytest.mark.parametrize("arguments", [["--help"], ["score", "--help"], ["--version"]], ids=" ".join)
def test_importing_and_asking_for_help_does_nothing(arguments: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", HOOK, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=child_environment(),
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stderr.splitlines()[-1])
    assert (found["bad"], found["heavy"]) == ([], [])
    assert found["events"] > 100, "the hook saw nothing"
    assert done.stdout


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The wheel, built twice."""
    found: list[Path] = []
    for name in ("one", "two"):
        out = tmp_path_factory.mktemp(name)
        done = subprocess.run(
            [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            env=child_environment(),
        )
        assert done.returncode == 0, done.stderr
        found += out.glob("*.whl")
    assert len(found) == 2
    return found


def test_two_builds_are_the_same_bytes(wheels: list[Path]) -> None:
    one, two = wheels
    assert one.name == two.name
    assert one.read_bytes() == two.read_bytes()


def test_the_wheel_holds_plain_sources_and_nothing_else(wheels: list[Path]) -> None:
    with zipfile.ZipFile(wheels[0]) as archive:
        names = archive.namelist()
    about = next(n for n in names if n.endswith(".dist-info/METADATA")).partition("/")[0]
    inside = [n for n in names if not n.startswith(f"{about}/")]
    assert {n.partition("/")[0] for n in inside} == {"perimetry"}
    strange = [n for n in inside if Path(n).suffix not in SUFFIXES and Path(n).name not in ("LICENSE", "README.md")]
    assert strange == []
    assert not [
        n for n in inside if "test" in Path(n).name.lower().split("_") or "__pycache__" in n or n.endswith(".pth")
    ]
    more = {n.rpartition("/")[2] for n in names if n not in inside}
    assert more == {"METADATA", "WHEEL", "RECORD", "entry_points.txt", "LICENSE"}
    sources = {f"perimetry/{p.relative_to(SOURCE)}" for p in SOURCE.rglob("*.py")}
    assert sources == {n for n in inside if n.endswith(".py")}
