"""docs/deploy.md: what can be copied from it works as far as it can be tried."""

import json
import re
import shlex
import tomllib
from typing import Any

import jsonschema_rs
import pytest
import yaml
from tests.deploy.tools import CHART, ROOT, render, values

from perimetry.cli import app
from perimetry.config import build, over
from perimetry.monitor.http.http_config import HttpConfig
from perimetry.monitor.serve_config import SECTION, ServeConfig
from perimetry.storage import read_json

TEXT = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
BLOCKS: list[tuple[str, str]] = re.findall(r"^```(\w*)\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)
TOML = [code for kind, code in BLOCKS if kind == "toml"]
VALUES = [code for kind, code in BLOCKS if kind == "yaml" and code.startswith("# values.yaml")]
SHELL = "\n".join(code for kind, code in BLOCKS if kind == "sh")


def first_line(code: str) -> str:
    return code.partition("\n")[0]


@pytest.mark.parametrize("code", TOML, ids=first_line)
def test_settings_are_settings(code: str) -> None:
    document = tomllib.loads(code)
    assert set(document) == {SECTION}
    build(ServeConfig, document[SECTION], "docs/deploy.md")


def test_variables_are_tables() -> None:
    found = re.findall(r"PERIMETRY_SERVE_(\w+)='([^']+)'", TEXT)
    assert found
    build(ServeConfig, {name.lower(): json.loads(value) for name, value in found}, "docs/deploy.md")


@pytest.mark.parametrize("code", VALUES, ids=first_line)
def test_values_are_values(code: str) -> None:
    schema = jsonschema_rs.Draft7Validator(read_json(CHART / "values.schema.json"))
    assert list(schema.iter_errors(over(values(), yaml.safe_load(code)))) == []


@pytest.mark.parametrize("code", VALUES, ids=first_line)
def test_values_render(code: str, helm: str, tmp_path: Any) -> None:
    found = render(helm, yaml.safe_load(code), tmp_path)
    assert found.error == ""
    build(ServeConfig, found.serve(), "docs/deploy.md")


def test_the_other_examples_are_yaml() -> None:
    for kind, code in BLOCKS:
        if kind == "yaml":
            assert isinstance(yaml.safe_load(code), dict)


def test_the_gateways_are_asked_what_we_answer() -> None:
    guard = next(yaml.safe_load(code) for _, code in BLOCKS if "generic_guardrail_api" in code)["guardrails"][0]
    known = {
        "guardrail",
        "mode",
        "api_base",
        "api_key",
        "default_on",
        "timeout",
        "unreachable_fallback",
        "fail_on_error",
    }
    assert set(guard["litellm_params"]) == known
    orchestrator = next(yaml.safe_load(code) for _, code in BLOCKS if "chunker_id" in code)
    (name,) = orchestrator["detectors"]
    assert name == HttpConfig().detector_id
    assert orchestrator["detectors"][name]["default_threshold"] < 1 - HttpConfig().alpha


def test_commands_within_lines_are_commands() -> None:
    """Those in brackets or behind a variable, which the tests of the pages do not see."""
    found = re.findall(r"^[^#\n]*?(?:\(|' )(perimetry [^>)\n]+)", SHELL, re.MULTILINE)
    assert len(found) >= 5
    for command in found:
        app.parse_args(shlex.split(command)[1:], exit_on_error=False, print_error=False)


def test_files_that_are_named_are_there() -> None:
    named = set(re.findall(r"deploy/[\w./-]*[\w-]", TEXT))
    made = {f"deploy/compose/{name}" for name in ("tokens.txt", "pg_password", "pg_service.conf")}
    assert {"deploy/Dockerfile", "deploy/compose.yaml", "deploy/helm/perimetry"} <= named
    assert [name for name in sorted(named - made) if not (ROOT / name).exists()] == []


def test_every_setting_that_is_named_exists() -> None:
    """Such as `http.on_error` or `engine.limits.queue_rows`."""
    for path in re.findall(r"`((?:http|engine|store|telemetry|drift)\.[a-z_.]+)`", TEXT):
        found: Any = ServeConfig
        for step in path.split("."):
            assert step in found.model_fields, path
            found = found.model_fields[step].annotation


def test_it_says_what_was_not_tried() -> None:
    part = TEXT.partition("## What was tried, and what is not promised")[2]
    for what in ("not built", "not run", "not installed on a cluster"):
        assert what in part
