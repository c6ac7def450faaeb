"""Fifty made-up requests to every operation of the description: no 5xx, nothing undocumented, every body as described."""

import json
from collections import Counter

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from tests.monitor.http.desk import Desk

from perimetry.monitor.http.http_config import HttpConfig
from perimetry.monitor.http.openapi import COMMITTED
from perimetry.monitor.http.tokens import new_token

TOKEN, HASHED = new_token()
HEALTH = [
    HealthCheck.too_slow,
    HealthCheck.filter_too_much,
    HealthCheck.data_too_large,
    HealthCheck.function_scoped_fixture,
]
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    response_headers_conformance,
    negative_data_rejection,
]


OPERATIONS = {
    path: (method.upper(), operation)
    for path, methods in json.loads(COMMITTED.read_bytes())["paths"].items()
    for method, operation in methods.items()
}
ASKED = [(path, GenerationMode.POSITIVE) for path in OPERATIONS] + [
    (path, GenerationMode.NEGATIVE)
    for path, (_, operation) in OPERATIONS.items()
    if operation.keys() & {"requestBody", "parameters"}
]


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> schemathesis.BaseSchema:
    path = tmp_path_factory.mktemp("tokens") / "tokens"
    path.write_text(f"me score,read,metrics {HASHED}")
    app = Desk(HttpConfig(tokens=path, hosts=("*",))).app
    return schemathesis.openapi.from_asgi("/openapi.json", app, headers={"authorization": f"Bearer {TOKEN}"})


@pytest.mark.parametrize(("path", "mode"), ASKED, ids=[f"{mode.value} {path}" for path, mode in ASKED])
def test_no_operation_breaks_its_description(
    described: schemathesis.BaseSchema, path: str, mode: GenerationMode
) -> None:
    made = described[path][OPERATIONS[path][0]].as_strategy(generation_mode=mode)
    answered: Counter[int] = Counter()

    @given(case=made)
    @settings(max_examples=50, deadline=None, derandomize=True, suppress_health_check=HEALTH, database=None)
    def ask(case: schemathesis.Case) -> None:
        case.headers["authorization"] = f"Bearer {TOKEN}"
        if path.startswith("/api/v1/text/"):
            case.headers["detector-id"] = "perimetry"
        answered[case.call_and_validate(checks=CHECKS).status_code] += 1

    ask()
    if mode is GenerationMode.POSITIVE:
        assert answered[200] > 0, answered
