import json
from pathlib import Path

import httpx
import pytest
from tests.assets.server import Server

from perimetry.assets import npm
from perimetry.assets.npm import find_on_npm, npm_registry
from perimetry.errors import DownloadFailed


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("npm_config_registry", raising=False)
    monkeypatch.delenv("NPM_CONFIG_REGISTRY", raising=False)
    monkeypatch.setenv("npm_config_userconfig", str(tmp_path / "home.npmrc"))
    monkeypatch.setattr(npm.shutil, "which", lambda name: None)


def test_where_the_registry_comes_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "home.npmrc").write_text("fund=false\nregistry=https://home.example/npm/\n")
    assert npm_registry() == "https://home.example/npm"
    monkeypatch.setenv("MY_HOST", "here.example")
    (tmp_path / ".npmrc").write_text("@mine:registry=https://other.example\nregistry = https://${MY_HOST}/\n")
    assert npm_registry() == "https://here.example"
    monkeypatch.setenv("NPM_CONFIG_REGISTRY", "https://env.example/")
    assert npm_registry() == "https://env.example"


def test_npm_itself_is_asked_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "npm"
    script.write_text('#!/bin/sh\n[ "$*" = "config get registry" ] && echo https://npm.example/\n')
    script.chmod(0o755)
    monkeypatch.setattr(npm.shutil, "which", lambda name: str(script))
    assert npm_registry() == "https://npm.example"


def test_no_registry_is_told() -> None:
    with pytest.raises(DownloadFailed, match=r"no npm registry is known .* set npm_config_registry"):
        npm_registry()


@pytest.mark.parametrize("whole", [False, True])
def test_the_tarball_of_the_metadata(server: Server, monkeypatch: pytest.MonkeyPatch, whole: bool) -> None:
    monkeypatch.setenv("npm_config_registry", server.url)
    version = {"dist": {"tarball": "https://files.example/p-1.0.0.tgz"}}
    body = {"versions": {"1.0.0": version}} if whole else version
    server.add("/p" if whole else "/p/1.0.0", json.dumps(body).encode(), "application/json")
    with httpx.Client() as client:
        found = find_on_npm(client, "p", "1.0.0")
    assert found == ("https://files.example/p-1.0.0.tgz", f"{server.url}/p/-/p-1.0.0.tgz")


def test_without_metadata_the_usual_address(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("npm_config_registry", server.url)
    server.add("/p", b"{}", "application/json")
    with httpx.Client() as client:
        assert find_on_npm(client, "p", "1.0.0") == (f"{server.url}/p/-/p-1.0.0.tgz",)


def test_a_registry_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("npm_config_registry", "http://127.0.0.1:9")
    with httpx.Client() as client, pytest.raises(DownloadFailed, match=r"does not answer .*ConnectError"):
        find_on_npm(client, "p", "1.0.0")
