"""What must not stand in the project: hosts of package registries, paths of one machine, formats that run code."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HOSTS = ["pypi." + "org", "python" + "hosted.org", "npm" + "js.org", "npm" + "js.com", "debian" + ".org"]
PATHS = [r"(?<![\w.])/wo" + r"rk/", r"(?<![\w.])/op" + r"t/", r"/ro" + r"ot/"]
DANGEROUS = {"pickle", "dill", "marshal", "shelve"}
ISOLATED = "isolated_worker.py"
"""The limited process that opens pickles, of tensors only, where the user asks for it."""


def tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / line for line in listed.stdout.splitlines() if (ROOT / line).is_file()]


def test_no_registry_host_and_no_path_of_one_machine() -> None:
    found: list[str] = []
    for path in tracked():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        found += [f"{path.name}: {host}" for host in HOSTS if host in text]
        found += [f"{path.name}: {pattern}" for pattern in PATHS if re.search(pattern, text)]
    assert found == []


@pytest.mark.parametrize("path", sorted((ROOT / "src").rglob("*.py")), ids=lambda p: p.name)
def test_nothing_that_runs_code_from_files(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            assert not {a.name.split(".")[0] for a in node.names} & DANGEROUS
        if isinstance(node, ast.ImportFrom):
            assert (node.module or "").split(".")[0] not in DANGEROUS
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            if name == "torch.load" and path.name == ISOLATED:
                assert {"weights_only": "True"}.items() <= {k.arg: ast.unparse(k.value) for k in node.keywords}.items()
                continue
            assert name not in {"eval", "exec", "torch.load"}, f"{path.name}:{node.lineno} calls {name}"
            assert not any(k.arg == "trust_remote_code" for k in node.keywords), f"{path.name}:{node.lineno}"
