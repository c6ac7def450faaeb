"""Compiles the kernels for the processor at hand, once, into the user's cache."""

import ctypes
import functools
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

import torch

from perimetry.assets.cache import cache_folder
from perimetry.errors import ConfigError

__all__ = ["compiled", "kernel_hash", "wanted"]

HERE = Path(__file__).parent
SOURCES = (HERE / "kernels.c", HERE / "int8.c")
SHARED = (HERE / "common.h",)
FLAGS = ("-O3", "-march=native", "-fopenmp", "-fPIC", "-shared", "-fno-math-errno", "-fno-trapping-math")
SWITCH = "PERIMETRY_KERNELS"
log = logging.getLogger(__name__)


def wanted() -> bool:
    """Whether compiled kernels may be used: `PERIMETRY_KERNELS` is `auto` (the default) or `off`. Errors: `ConfigError`."""
    value = os.environ.get(SWITCH, "auto").strip() or "auto"
    if value not in ("auto", "off"):
        raise ConfigError(f"{SWITCH} is {value!r}; wanted auto (compile where a compiler is found) or off; set it so")
    return value == "auto"


def _processor() -> str:
    """What code for this processor may rely on: code that was compiled for another one would crash."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(errors="ignore").splitlines() if info.is_file() else []
    features = {line for line in lines if line.startswith(("flags", "Features", "model name", "CPU part"))}
    return "\n".join([platform.system(), platform.machine(), platform.processor(), *sorted(features)])


def _openmp() -> list[str]:
    """The OpenMP runtime that torch has loaded; a second one beside it would fight for the same cores."""
    ours = Path(torch.__file__).parent / "lib"
    found = sorted(ours.glob("libgomp*.so*"))
    return [str(found[0])] if found else []


def _compile(compiler: str, out: Path) -> None:
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=True).stdout
    log.debug(
        "compiling %s with %s", [source.name for source in SOURCES], version.splitlines()[0] if version else compiler
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent) as folder:
        made = Path(folder) / out.name
        command = [compiler, *FLAGS, "-o", str(made), *map(str, SOURCES), *_openmp(), "-lm"]
        subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
        made.replace(out)


@functools.cache
def kernel_hash() -> str:
    """SHA-256 of the kernels' source and of the flags that they are compiled with."""
    code = [file.read_text(encoding="utf-8") for file in (*SOURCES, *SHARED)]
    return hashlib.sha256("\0".join([*code, *FLAGS]).encode()).hexdigest()


@functools.cache
def compiled() -> ctypes.CDLL | None:
    """The compiled kernels; None where they are switched off, or where no C compiler is found or it fails (logged)."""
    if not wanted():
        return None
    compiler = shutil.which(os.environ.get("CC", "cc")) or shutil.which("gcc")
    if compiler is None or os.name != "posix":
        log.info("no C compiler here: the training step runs on torch operations, which is slower")
        return None
    name = hashlib.sha256("\0".join([kernel_hash(), compiler, torch.__version__, _processor()]).encode()).hexdigest()[
        :24
    ]
    out = cache_folder() / "kernels" / f"{name}.so"
    try:
        if not out.is_file():
            _compile(compiler, out)
        return ctypes.CDLL(str(out))
    except (OSError, subprocess.SubprocessError) as error:
        detail = getattr(error, "stderr", None) or error
        log.warning("the kernels did not compile, so that the training step runs on torch operations: %s", detail)
        return None
