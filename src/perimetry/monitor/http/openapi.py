"""`openapi.json`: made from the models and the routes, committed beside the code, and held against it by a test."""

import json
from pathlib import Path
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from perimetry.monitor.http.views import ProblemBody

__all__ = ["COMMITTED", "as_bytes", "describe"]

COMMITTED: Final = Path(__file__).parents[1] / "openapi.json"
_OPEN: Final = frozenset({"/healthz", "/health", "/readyz"})


def describe(app: FastAPI) -> dict[str, Any]:
    """The description of an application: version of the contract, not of the package, so that it changes with the contract only."""
    if app.openapi_schema is None:
        made = get_openapi(
            title="perimetry monitor",
            version="1",
            summary="How far prompts lie outside what a model knows.",
            routes=app.routes,
            separate_input_output_schemas=False,
        )
        parts = made.setdefault("components", {})
        problem = ProblemBody.model_json_schema(ref_template="#/components/schemas/{model}") | {"title": "Problem"}
        parts.setdefault("schemas", {})["Problem"] = problem
        parts["securitySchemes"] = {
            "bearer": {"type": "http", "scheme": "bearer"},
            "key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
        }
        for path, operations in made["paths"].items():
            for operation in operations.values():
                operation["security"] = [] if path in _OPEN else [{"bearer": []}, {"key": []}]
        app.openapi_schema = made
    return app.openapi_schema


def as_bytes(document: dict[str, Any]) -> bytes:
    """A description as it is served and committed."""
    return (json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()
