"""Find a package of the npm registry that the user's environment, `.npmrc` or npm itself names."""

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import httpx

from perimetry.assets.transport import redact
from perimetry.errors import DownloadFailed

__all__ = ["find_on_npm", "npm_registry"]

ASK_S = 60


def _expand(value: str) -> str:
    """npm's own `${NAME}` in `.npmrc`; a name that is not set stays as it is."""
    return re.sub(r"\$\{(\w+)\}", lambda m: os.environ.get(m[1], m[0]), value)


def _from_npmrc(file: Path) -> str | None:
    if not file.is_file():
        return None
    for line in reversed(file.read_text(encoding="utf-8", errors="replace").splitlines()):
        key, equals, value = line.partition("=")
        if equals and key.strip() == "registry":
            return _expand(value.strip().strip("\"'"))
    return None


def npm_registry() -> str:
    """The address of the npm registry: `npm_config_registry`, then `.npmrc` here and at home, then npm itself.

    Errors: `DownloadFailed` when none of them names one.
    """
    environment = {name.lower(): value for name, value in os.environ.items()}
    home = environment.get("npm_config_userconfig") or "~/.npmrc"
    found = environment.get("npm_config_registry")
    found = found or _from_npmrc(Path(".npmrc")) or _from_npmrc(Path(home).expanduser())
    npm = shutil.which("npm")
    if not found and npm:
        try:
            asked = subprocess.run(
                [npm, "config", "get", "registry"], capture_output=True, text=True, timeout=ASK_S, check=False
            )
            found = asked.stdout.strip() if asked.returncode == 0 else None
        except (OSError, subprocess.TimeoutExpired):
            found = None
    if not found or not found.startswith(("http://", "https://")):
        raise DownloadFailed(
            f"no npm registry is known (found {found!r}); set npm_config_registry to the address of one, install npm, "
            "or put a copy of the file in a folder named by PERIMETRY_MIRROR"
        )
    return found.rstrip("/")


def _tarball(client: httpx.Client, url: str, version: str) -> str:
    """`dist.tarball` out of the metadata of one version or of a whole package. Errors: `ValueError`."""
    try:
        response = client.get(url, headers={"Accept": "application/json"})
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error
    if response.status_code != httpx.codes.OK:
        raise ValueError(f"HTTP {response.status_code} {response.reason_phrase}")
    data: Any = response.json()
    try:
        return str((data["versions"][version] if "versions" in data else data)["dist"]["tarball"])
    except (KeyError, TypeError) as error:
        raise ValueError("its answer names no dist.tarball") from error


def find_on_npm(client: httpx.Client, package: str, version: str) -> tuple[str, ...]:
    """Addresses of the archive of one version: the one that the metadata gives, then the usual one.

    Errors: `DownloadFailed` when no registry is known.
    """
    registry = npm_registry()
    usual = f"{registry}/{package}/-/{package.rsplit('/', 1)[-1]}-{version}.tgz"
    notes: list[str] = []
    for page in (f"{registry}/{package}/{version}", f"{registry}/{package}"):
        try:
            return tuple(dict.fromkeys([_tarball(client, page, version), usual]))
        except ValueError as error:
            notes.append(f"{redact(page)}: {error}")
    if all("HTTP" not in note for note in notes):
        raise DownloadFailed(
            f"the npm registry does not answer ({'; '.join(notes)}); check the network and npm_config_registry, or "
            "put a copy of the file in a folder named by PERIMETRY_MIRROR"
        )
    return (usual,)
