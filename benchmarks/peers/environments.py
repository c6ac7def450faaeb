"""Make the environments of the libraries that perimetry is compared with: `python benchmarks/peers/environments.py --folder DIR`.

One virtual environment a library, since their requirements contradict one another and perimetry needs none of them. The
versions are those of the files beside this one, torch among them, so that every library computes with the same torch.
An environment that was made from the same file already is left as it is.
"""

import argparse
import hashlib
import os
import subprocess
import sys
import venv
from pathlib import Path
from typing import NamedTuple

__all__ = ["ENVIRONMENTS", "Environment", "make", "python_of", "ready"]

HERE = Path(__file__).resolve().parent
READY = ".ready"


class Environment(NamedTuple):
    """One library and what it stands on."""

    name: str
    """Folder of the environment, and stem of the file with its versions."""
    requires: tuple[str, ...]
    """What is asked for; the file pins it and all that it pulls in."""
    without: tuple[str, ...] = ()
    """What it pulls in and does not need here, and is taken away again: compiled for another build of torch, it would
    not even import."""

    @property
    def pins(self) -> Path:
        """The file with its versions."""
        return HERE / f"{self.name}.txt"

    @property
    def digest(self) -> str:
        """Of what was asked for and pinned, and of the Python that it is for."""
        text = "\n".join([sys.version, *self.requires, *self.without, self.pins.read_text(encoding="utf-8")])
        return hashlib.sha256(text.encode()).hexdigest()


ENVIRONMENTS: dict[str, Environment] = {
    found.name: found
    for found in (
        Environment("dictionary_learning", ("torch", "dictionary-learning"), without=("torchvision",)),
        Environment("saebench", ("torch", "sae-bench"), without=("torchvision",)),
        Environment("saelens", ("torch", "sae-lens")),
        Environment("sparsify", ("torch", "eai-sparsify")),
    )
}
"""Name -> environment."""


def python_of(folder: Path, name: str) -> Path:
    """The interpreter of an environment."""
    scripts = "Scripts/python.exe" if sys.platform == "win32" else "bin/python"
    return folder / name / scripts


def ready(folder: Path, environment: Environment) -> bool:
    """Whether it is there, made from the versions that are pinned now."""
    mark = folder / environment.name / READY
    return mark.is_file() and mark.read_text(encoding="utf-8") == environment.digest


def make(folder: Path, environment: Environment) -> bool:
    """Make it where it is not ready; returns whether anything was done. Errors: `CalledProcessError` of pip."""
    if ready(folder, environment):
        return False
    place = folder / environment.name
    venv.create(place, clear=True, symlinks=os.name != "nt", with_pip=True)
    pip = [str(python_of(folder, environment.name)), "-m", "pip"]
    wanted = ["--constraint", str(environment.pins), *environment.requires]
    subprocess.run([*pip, "install", "--quiet", *wanted], check=True)
    if environment.without:
        subprocess.run([*pip, "uninstall", "--quiet", "--yes", *environment.without], check=True)
    (place / READY).write_text(environment.digest, encoding="utf-8")
    return True


def main() -> None:
    """Make what is asked for."""
    found = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("--folder", type=Path, required=True, help="where the environments go, one folder each")
    found.add_argument("--only", nargs="+", choices=sorted(ENVIRONMENTS), default=sorted(ENVIRONMENTS), help="these")
    arguments = found.parse_args()
    for name in arguments.only:
        done = make(arguments.folder.resolve(), ENVIRONMENTS[name])
        print(f"{name}: {'made' if done else 'there already'}")


if __name__ == "__main__":
    main()
