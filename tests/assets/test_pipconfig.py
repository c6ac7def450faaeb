import os
from pathlib import Path

import pytest

from perimetry.assets import pipconfig
from perimetry.assets.pipconfig import parse_listing, read_pip_settings


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith(("PIP_", "UV_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)


def test_settings_of_pip_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "pip.conf"
    file.write_text(
        "[global]\nindex-url = https://one.example/simple\nextra-index-url =\n    https://two.example/simple\n"
        "    file:///three/simple\ncert = /etc/c.pem\nproxy = http://p.example:1\n[install]\nfind-links = /wheels\n"
    )
    monkeypatch.setenv("PIP_CONFIG_FILE", str(file))
    found = read_pip_settings()
    assert found.indexes == ("https://one.example/simple", "https://two.example/simple", "file:///three/simple")
    assert found.find_links == ("/wheels",)
    assert (found.cert, found.proxy) == ("/etc/c.pem", "http://p.example:1")
    monkeypatch.setenv("PIP_INDEX_URL", "https://four.example/simple")
    assert read_pip_settings().indexes[0] == "https://four.example/simple"
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    assert read_pip_settings().indexes == ()


def test_the_default_index_is_asked_of_pip() -> None:
    from pip._internal.models.index import PyPI

    assert read_pip_settings().indexes == (PyPI.simple_url,)


def test_without_pip_the_environment_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipconfig, "_pip_location", lambda: None)
    assert read_pip_settings() == ((), (), None, None)
    monkeypatch.setenv("UV_INDEX_URL", "https://old.example/simple")
    assert read_pip_settings().indexes == ("https://old.example/simple",)
    monkeypatch.setenv("UV_DEFAULT_INDEX", "https://uv.example/simple")
    monkeypatch.setenv("UV_INDEX", "inner=https://a.example/simple https://b.example/simple")
    found = read_pip_settings().indexes
    assert found == ("https://uv.example/simple", "https://a.example/simple", "https://b.example/simple")
    monkeypatch.setenv("PIP_INDEX_URL", "https://pip.example/simple")
    assert read_pip_settings().indexes[0] == "https://pip.example/simple"


def test_pip_is_found_where_it_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    real = pipconfig.importlib.util.find_spec
    monkeypatch.setattr(pipconfig.importlib.util, "find_spec", lambda name: None if name == "pip" else real(name))
    location = pipconfig._pip_location()
    if location is None:
        pytest.skip("this Python has neither ensurepip's copy nor a pip command")
    assert location != ""
    assert read_pip_settings().indexes[0].startswith("https://")


def test_sections_that_pip_ranks_higher_win() -> None:
    text = "install.cert='b'\nglobal.cert='a'\nfreeze.cert='z'\nnoise\nglobal.proxy=plain"
    assert parse_listing(text) == {"cert": "b", "proxy": "plain"}
