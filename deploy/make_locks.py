"""Write deploy/requirements-cpu.lock and deploy/requirements-cuda.lock: what the images install, with the hash of every file.

    python deploy/make_locks.py --torch-wheels FOLDER

Versions are those of constraints.txt; hashes are those that the package index states. Wants `uv` on the path. The index has one torch
for Linux, which brings CUDA; the one for CPUs alone comes from an index of PyTorch's own (`--torch-index ADDRESS`) or from a
folder into which its wheel was downloaded (`--torch-wheels FOLDER`); its hash is then that of the wheel.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

__all__ = ["EXTRAS", "FLAVOURS", "PYTHON", "lock"]

ROOT = Path(__file__).parents[1]
EXTRAS = ("monitor", "postgres", "telemetry", "export")
"""Extras that the images hold."""
FLAVOURS = {"cpu": "torch==2.13.0+cpu", "cuda": "torch==2.13.0"}
"""Image -> its torch."""
PYTHON = "3.11"
"""Python of the images, as that of the tests."""
HEAD = f"""# Written by deploy/make_locks.py: {{name}}. Linux on x86-64, Python {PYTHON}, extras {", ".join(EXTRAS)}.
"""


def lock(flavour: str, uv: str, more: list[str]) -> str:
    """The lock of one flavour. Errors: `CalledProcessError` where uv finds no answer."""
    with tempfile.TemporaryDirectory() as folder:
        wanted, found = Path(folder) / "torch.in", Path(folder) / "found.lock"
        wanted.write_text(FLAVOURS[flavour] + "\n", encoding="utf-8")
        command = [uv, "pip", "compile", "--quiet", "--generate-hashes", "--no-header", "--no-annotate"]
        command += ["--python-version", PYTHON, "--python-platform", "x86_64-unknown-linux-gnu", *more]
        command += ["--constraint", str(ROOT / "constraints.txt"), "--output-file", str(found)]
        command += [part for extra in EXTRAS for part in ("--extra", extra)]
        subprocess.run([*command, str(wanted), str(ROOT / "pyproject.toml")], check=True)
        return HEAD.format(name=f"requirements of the image -{flavour}") + found.read_text(encoding="utf-8")


def main() -> int:
    """Write both files."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--uv", default="uv", help="where uv is")
    parser.add_argument("--torch-index", help="address of an index that has torch for CPUs")
    parser.add_argument("--torch-wheels", help="folder that holds its wheel")
    asked = parser.parse_args()
    more = {"cpu": [], "cuda": []}
    if asked.torch_index:
        more["cpu"] += ["--extra-index-url", asked.torch_index, "--index-strategy", "unsafe-best-match"]
    if asked.torch_wheels:
        more["cpu"] += ["--find-links", asked.torch_wheels]
    for flavour in FLAVOURS:
        text = lock(flavour, asked.uv, more[flavour])
        (ROOT / "deploy" / f"requirements-{flavour}.lock").write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
