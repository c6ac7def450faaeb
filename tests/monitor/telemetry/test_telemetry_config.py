"""Addresses of collectors, and files of headers whose words are never repeated."""

from pathlib import Path

import pytest

from perimetry.config import build
from perimetry.errors import ConfigError, MissingFile
from perimetry.monitor.telemetry.telemetry_config import TelemetryConfig, read_headers


def test_it_is_off_unless_there_is_an_endpoint() -> None:
    assert TelemetryConfig().address is None


@pytest.mark.parametrize(
    ("endpoint", "address"),
    [
        ("http://127.0.0.1:4318", "http://127.0.0.1:4318/v1/logs"),
        ("http://127.0.0.1:4318/", "http://127.0.0.1:4318/v1/logs"),
        ("https://collector.example/otlp/v1/logs", "https://collector.example/otlp/v1/logs"),
    ],
)
def test_an_endpoint_without_a_path_gets_the_usual_one(endpoint: str, address: str) -> None:
    assert TelemetryConfig(endpoint=endpoint).address == address


@pytest.mark.parametrize(
    "endpoint", ["127.0.0.1:4318", "grpc://h:4317", "http://", "http://u:p@h/", "http://h/?token=x", "http://["]
)
def test_what_is_no_address_of_a_collector_is_refused(endpoint: str) -> None:
    with pytest.raises(ConfigError, match="no address of a collector"):
        build(TelemetryConfig, {"endpoint": endpoint}, "telemetry")


def test_headers_are_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "headers"
    path.write_text("# of the collector\n\nAuthorization: Bearer a:b\nx-tenant:7\n")
    assert read_headers(path) == {"authorization": "Bearer a:b", "x-tenant": "7"}


@pytest.mark.parametrize("line", ["s3cret", "s3cret:", ": s3cret", "a s3cret: b", "a: s3cret\x1b"])
def test_a_line_that_is_no_header_is_refused_without_its_words(tmp_path: Path, line: str) -> None:
    path = tmp_path / "headers"
    path.write_text(f"ok: fine\n{line}\n")
    with pytest.raises(ConfigError, match="line 2 is no header") as caught:
        read_headers(path)
    assert "s3cret" not in str(caught.value)


def test_a_missing_file_of_headers_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(MissingFile, match=r"telemetry\.headers"):
        read_headers(tmp_path / "none")
