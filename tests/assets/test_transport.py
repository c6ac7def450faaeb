from pathlib import Path

import certifi
import pytest
from tests.assets.server import Server

from perimetry.assets.transport import CERTIFICATES, lend_credentials, open_client, redact
from perimetry.errors import DownloadFailed


@pytest.mark.parametrize("name", CERTIFICATES)
def test_a_certificate_file_that_is_none_is_told(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(name, str(tmp_path / "none.pem"))
    with pytest.raises(DownloadFailed, match=rf"{name} names the certificate file .*none\.pem, which does not exist"):
        open_client()
    (tmp_path / "none.pem").write_text("no certificate")
    with pytest.raises(DownloadFailed, match=f"{name} names .* holds no certificates"):
        open_client()
    monkeypatch.setenv(name, certifi.where())
    open_client().close()


def test_pips_own_setting_comes_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PIP_CERT", str(tmp_path / "none.pem"))
    open_client(cert=certifi.where()).close()
    with pytest.raises(DownloadFailed, match="pip's setting cert"):
        open_client(cert=str(tmp_path / "other.pem"))


def test_a_proxy_is_used(server: Server) -> None:
    server.add("http://far.example/f", b"through the proxy")
    with open_client(proxy=server.url) as client:
        assert client.get("http://far.example/f").content == b"through the proxy"


def test_logins_of_netrc(server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "netrc"
    file.write_text("machine 127.0.0.1 login me password pw\n")
    file.chmod(0o600)
    monkeypatch.setenv("NETRC", str(file))
    with open_client() as client:
        client.get(server.add("/f", b""))
    file.write_text("machine nonsense what")
    with open_client() as client:
        client.get(server.url + "/f")
    assert [h.get("Authorization") for h in server.headers] == ["Basic bWU6cHc=", None]


def test_logins_in_addresses() -> None:
    assert redact("https://a:b@h.example:8/x?y#z") == "https://h.example:8/x?y#z"
    assert lend_credentials("https://h.example/f", "http://a:b@h.example/s/") == "https://h.example/f"
    assert lend_credentials("https://c:d@h.example/f", "https://a:b@h.example/s/") == "https://c:d@h.example/f"
