from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.assets.server import Server

VARIABLES = (
    "PERIMETRY_MIRROR",
    "PERIMETRY_OFFLINE",
    "PIP_CERT",
    "SSL_CERT_FILE",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
)


@pytest.fixture(autouse=True)
def cache(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, no mirror; tests marked `network` keep the user's own."""
    folder = tmp_path / "cache"
    if request.node.get_closest_marker("network"):
        return folder
    monkeypatch.setenv("PERIMETRY_CACHE", str(folder))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("perimetry.assets.fetch.BACKOFF_S", 0.001)
    return folder


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()
