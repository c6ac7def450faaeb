"""The HTTP client of downloads: proxies and certificates as the environment and pip's configuration give them."""

import netrc
import os
import ssl
from pathlib import Path
from urllib.parse import SplitResult, urlsplit, urlunsplit

import httpx

from perimetry import __version__
from perimetry.errors import DownloadFailed

__all__ = ["lend_credentials", "open_client", "redact"]

CERTIFICATES = ("PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
TIMEOUT = httpx.Timeout(30.0, connect=15.0)


def _certificates(configured: str | None) -> ssl.SSLContext | bool:
    """The first bundle named by the environment or by pip's configuration, else the client's own."""
    names = [("pip's setting cert", configured), *((name, os.environ.get(name)) for name in CERTIFICATES)]
    for name, value in names:
        if not value:
            continue
        bundle = Path(value)
        if not bundle.exists():
            raise DownloadFailed(f"{name} names the certificate file {value}, which does not exist; mend or unset it")
        try:
            if bundle.is_dir():
                return ssl.create_default_context(capath=value)
            return ssl.create_default_context(cafile=value)
        except (ssl.SSLError, OSError) as error:
            raise DownloadFailed(f"{name} names {value}, which holds no certificates: {error}; mend it") from error
    return True


def _login() -> httpx.Auth | None:
    """Logins of the user's netrc file where there is a readable one."""
    file = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
    if not file.is_file():
        return None
    try:
        return httpx.NetRCAuth(str(file))
    except (netrc.NetrcParseError, OSError):
        return None


def open_client(*, cert: str | None = None, proxy: str | None = None) -> httpx.Client:
    """A client that follows redirects and asks for bytes as they are (no compression on the way).

    `cert` and `proxy` come from pip's configuration; without them the environment decides (`HTTPS_PROXY`, `NO_PROXY`,
    `PIP_CERT`, `SSL_CERT_FILE`, `REQUESTS_CA_BUNDLE`). Errors: `DownloadFailed` for a certificate file that is none.
    """
    return httpx.Client(
        headers={"User-Agent": f"perimetry/{__version__}", "Accept-Encoding": "identity"},
        verify=_certificates(cert),
        proxy=proxy or None,
        auth=_login(),
        timeout=TIMEOUT,
        follow_redirects=True,
    )


def _split(url: str) -> tuple[SplitResult, str, str]:
    parts = urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    return parts, user + at, host


def redact(url: str) -> str:
    """`url` without the name and password that it may carry, for messages.

    >>> redact("https://me:secret@host.example/simple/")
    'https://host.example/simple/'
    """
    parts, _, host = _split(url)
    return urlunsplit(parts._replace(netloc=host))


def lend_credentials(url: str, index: str) -> str:
    """`url` with the login of `index` when both are on the same host and `url` has none of its own.

    >>> lend_credentials("https://host.example/f.whl", "https://me:pw@host.example/simple/")
    'https://me:pw@host.example/f.whl'
    """
    parts, own, host = _split(url)
    index_parts, login, index_host = _split(index)
    same = parts.scheme == index_parts.scheme and host == index_host
    return urlunsplit(parts._replace(netloc=login + host)) if same and login and not own else url
