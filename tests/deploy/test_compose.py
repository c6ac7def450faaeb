"""The compose file: what it promises, and that every setting in it is one of ours."""

import json
import re
from typing import Any

import pytest
from tests.deploy.tools import DEPLOY, read_env, read_yaml

from perimetry.config import load_config
from perimetry.monitor.serve_config import SECTION, ServeConfig
from perimetry.monitor.store.database import database_url

COMPOSE: dict[str, Any] = read_yaml(DEPLOY / "compose.yaml")
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
FOLDER = DEPLOY / "compose"


def built(**environment: str) -> ServeConfig:
    return load_config(ServeConfig, section=SECTION, file=DEPLOY / "serve.toml", environment=environment)


def drained() -> float:
    """Seconds that the service may take to stop: requests, rows, events."""
    config = built()
    return config.http.limits.drain_s + config.engine.time.drain_s + 10


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_every_container_is_closed(name: str) -> None:
    one = SERVICES[name]
    assert one["cap_drop"] == ["ALL"]
    assert "cap_add" not in one
    assert not one.get("privileged", False)
    assert "no-new-privileges:true" in one["security_opt"]
    assert one["read_only"] is True
    assert one["mem_limit"]
    assert one["pids_limit"] > 0
    assert one["user"].split(":")[0] not in ("0", "root")
    tag = one["image"].rpartition("/")[2].partition(":")[2]
    assert tag not in ("", "latest")


def test_only_this_machine_reaches_it() -> None:
    published = {name: one.get("ports", []) for name, one in SERVICES.items()}
    assert published.pop("perimetry") == ["127.0.0.1:${PERIMETRY_PORT:-8765}:8765"]
    assert not any(published.values())
    assert built().http.port == 8765
    assert COMPOSE["networks"]["inside"]["internal"] is True
    assert all(SERVICES[name]["networks"] == ["inside"] for name in ("postgres", "otel"))


def test_profiles() -> None:
    assert {name: one.get("profiles") for name, one in SERVICES.items()} == {
        **{"perimetry": None, "postgres": ["postgres"], "otel": ["otel"]}
    }
    assert SERVICES["perimetry"]["depends_on"]["postgres"] == {"condition": "service_healthy", "required": False}


def test_secrets_are_files() -> None:
    used = {name for one in SERVICES.values() for name in one.get("secrets", [])}
    assert used == set(COMPOSE["secrets"])
    assert all(set(one) == {"file"} for one in COMPOSE["secrets"].values())
    assert str(built().http.tokens) == "/run/secrets/perimetry_tokens"
    for name, one in SERVICES.items():
        written = one.get("environment") or {}
        lines = written if isinstance(written, list) else [f"{k}={v}" for k, v in written.items()]
        assert not [line for line in lines if re.search(r"password=|token=", line, re.IGNORECASE)], name
    default = COMPOSE["secrets"]["pg_service"]["file"]
    assert default == "${PERIMETRY_PG_SERVICE:-./compose/no-postgres.conf}"
    assert (FOLDER / "no-postgres.conf").is_file()


def test_the_artifacts_are_read_only_and_the_data_is_not() -> None:
    artifacts, data = SERVICES["perimetry"]["volumes"]
    assert (artifacts["target"], artifacts["read_only"]) == ("/artifacts", True)
    assert data == "data:/data"
    (tmp,) = SERVICES["perimetry"]["tmpfs"]
    assert tmp.startswith("/tmp:")
    assert {"noexec", "nosuid", "nodev"} <= set(tmp.partition(":")[2].split(","))


def test_there_is_time_to_drain() -> None:
    assert float(SERVICES["perimetry"]["stop_grace_period"].removesuffix("s")) > drained()


def test_configurations_are_where_they_are_read() -> None:
    for one in COMPOSE["configs"].values():
        assert (DEPLOY / one["file"]).is_file()
    mounted = {entry["source"]: entry["target"] for s in SERVICES.values() for entry in s.get("configs", [])}
    assert mounted["serve"] == "/etc/perimetry/serve.toml"
    assert SERVICES["otel"]["command"] == [f"--config={mounted['otel']}"]


def test_the_variables_are_tables_of_the_configuration() -> None:
    passed = [line for line in SERVICES["perimetry"]["environment"] if line.startswith("PERIMETRY_")]
    prefix = "PERIMETRY_SERVE_"
    assert {line.removeprefix(prefix).lower() for line in passed} <= set(ServeConfig.model_fields)
    for file in sorted(FOLDER.glob("*.env")):
        given = {k: v for k, v in read_env(file).items() if k.startswith(prefix)}
        assert given, file.name
        assert set(given) <= set(passed), file.name
        built(**given)


def test_postgres_is_reached_by_a_file_that_holds_the_password() -> None:
    given = read_env(FOLDER / "postgres.env")
    config = built(PERIMETRY_SERVE_STORE=given["PERIMETRY_SERVE_STORE"])
    url = database_url(config.store)
    assert (url.drivername, url.password, dict(url.query)) == ("postgresql+psycopg", None, {"service": "perimetry"})
    assert config.store.folder == built().store.folder
    assert "PGSERVICEFILE=/run/secrets/pg_service" in SERVICES["perimetry"]["environment"]


def test_the_collector_takes_what_the_service_sends() -> None:
    given = read_env(FOLDER / "otel.env")
    endpoint = json.loads(given["PERIMETRY_SERVE_TELEMETRY"])["endpoint"]
    made = read_yaml(FOLDER / "otel-collector.yaml")
    port = made["receivers"]["otlp"]["protocols"]["http"]["endpoint"].rpartition(":")[2]
    assert endpoint == f"http://otel:{port}"
    for line in made["service"]["pipelines"].values():
        for part in ("receivers", "processors", "exporters"):
            assert set(line[part]) <= set(made[part])
    assert set(made["service"]["pipelines"]) == {"logs"}
