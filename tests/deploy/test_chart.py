"""The chart: rendered by helm, and read where there is none."""

import copy
import re
from collections.abc import Callable
from typing import Any

import jsonschema_rs
import pytest
from tests.deploy.tools import CHART, SHA, Rendered, image_environment, read_yaml, values

import perimetry
from perimetry.config import build, over
from perimetry.monitor.http.app import SCOPE_OF
from perimetry.monitor.http.routes.status import PROBES
from perimetry.monitor.serve_config import ServeConfig
from perimetry.storage import read_json

Render = Callable[..., Rendered]
POSTGRES: dict[str, Any] = {
    "store": {
        "postgres": {"enabled": True, "url": "postgresql+psycopg://perimetry@db/perimetry", "passwordSecret": "pg"},
        "hashKey": {"secret": "key"},
    },
    "networkPolicy": {"egress": {"database": [{"podSelector": {"matchLabels": {"app": "pg"}}}]}},
}
DOCUMENT: Any = read_json(CHART / "values.schema.json")
PROPERTIES: dict[str, Any] = DOCUMENT["properties"]
SCHEMA = jsonschema_rs.Draft7Validator(DOCUMENT)


def changed(path: str, value: Any) -> dict[str, Any]:
    """The values with one other."""
    found = copy.deepcopy(values())
    *above, last = path.split(".")
    place = found
    for step in above:
        place = place[step]
    place[last] = value
    return found


def test_the_values_are_those_of_the_schema() -> None:
    assert list(SCHEMA.iter_errors(values())) == []
    assert set(values()) == set(PROPERTIES) - {"global"}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("replica", 2),
        ("replicas", 0),
        ("image.flavour", "tpu"),
        ("image.digest", "sha256:12"),
        ("artifact.sha256", "abc"),
        ("artifact.url", "s3://bucket/x"),
        ("tokens.secret", ""),
        ("serve.http.tokens", "/elsewhere"),
        ("serve.store.url", "postgresql+psycopg://u:p@h/d"),
        ("serve.htp", {}),
        ("store.postgres.url", "postgresql+psycopg://user:secret@host/name"),
        ("resources", {"requests": {"cpu": "1"}}),
        ("networkPolicy.ingress", []),
        ("networkPolicy.egress.database", [{}]),
        ("autoscaling.target", "a quarter"),
    ],
)
def test_the_schema_refuses(path: str, value: Any) -> None:
    assert list(SCHEMA.iter_errors(changed(path, value)))


def test_the_schema_knows_the_tables_of_the_configuration() -> None:
    assert set(PROPERTIES["serve"]["properties"]) == set(ServeConfig.model_fields)
    build(ServeConfig, over(values()["serve"], {"http": {"tokens": "tokens"}}), "values.yaml")


def test_versions_agree() -> None:
    chart = read_yaml(CHART / "Chart.yaml")
    assert chart["appVersion"] == perimetry.__version__


def test_rules_are_in_the_templates() -> None:
    """What is promised most loudly, read without helm."""
    text = {path.name: path.read_text(encoding="utf-8") for path in (CHART / "templates").iterdir()}
    deployment, helpers = text["deployment.yaml"], text["_helpers.tpl"]
    assert deployment.startswith('{{- include "perimetry.check" . -}}')
    guard = re.search(
        r"if and \(gt \(int \$values\.replicas\) 1\) \(not \$values\.store\.postgres\.enabled\)(.*?)end",
        helpers,
        re.DOTALL,
    )
    assert guard is not None
    assert "fail " in guard[1]
    assert re.search(
        r"startupProbe:\s+httpGet: &ready\s+path: /readyz.*?periodSeconds: 10\s+failureThreshold: 60",
        deployment,
        re.DOTALL,
    )
    assert re.search(r"livenessProbe:\s+httpGet:\s+path: /healthz", deployment)
    assert "type: Recreate" in deployment
    assert "readOnlyRootFilesystem: true" in deployment


def test_helm_has_nothing_to_say(rendered: Render) -> None:
    found = rendered()
    assert found.error == ""
    kinds = sorted(made["kind"] for made in found.objects)
    assert kinds == sorted(
        [
            "ConfigMap",
            "Deployment",
            "NetworkPolicy",
            "PersistentVolumeClaim",
            "PodDisruptionBudget",
            "Service",
            "ServiceAccount",
        ]
    )


def test_sqlite_has_one_owner(rendered: Render) -> None:
    found = rendered()
    spec = found.one("Deployment")["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})
    claim = {one["name"]: one for one in found.pod()["volumes"]}["data"]["persistentVolumeClaim"]["claimName"]
    assert claim == found.one("PersistentVolumeClaim")["metadata"]["name"]
    assert "url" not in found.serve()["store"]


def test_postgres_may_have_several(rendered: Render) -> None:
    found = rendered(replicas=3, **POSTGRES)
    spec = found.one("Deployment")["spec"]
    assert (spec["replicas"], spec["strategy"]["type"]) == (3, "RollingUpdate")
    assert not [made for made in found.objects if made["kind"] == "PersistentVolumeClaim"]
    store = found.serve()["store"]
    assert store["url"] == POSTGRES["store"]["postgres"]["url"]
    mounts = {one["name"]: one["mountPath"] for one in found.container()["volumeMounts"]}
    assert store["key_file"] == f"{mounts['run']}/hash.key"
    (password,) = [one for one in found.container()["env"] if one["name"] == "PGPASSWORD"]
    assert password["valueFrom"]["secretKeyRef"] == {"name": "pg", "key": "password"}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"replicas": 2}, "replicas > 1 wants store.postgres.enabled"),
        ({"autoscaling": {"enabled": True}}, "autoscaling wants store.postgres.enabled"),
        ({"artifact": {"claim": ""}}, "one of url and claim"),
        ({"artifact": {"url": "https://example.com/a.tar"}}, "one of url and claim"),
        ({"artifact": {"sha256": ""}}, "artifact.sha256 is missing"),
        ({"store": {"postgres": {"enabled": True}}}, "store.postgres.url is missing"),
        ({"serviceMonitor": {"enabled": True}}, "tokenSecret is missing"),
        ({"serve": {"telemetry": {"endpoint": "http://otel:4318"}}}, "egress.otlp is empty"),
        ({"serve": {"http": {"upstream": "http://model:8000/v1"}}}, "egress.extra is empty"),
        ({"artifact": {"claim": "", "url": "https://example.com/a.tar"}}, "egress.artifact is empty"),
        ({"serve": {"http": {"tokens": "/x"}}}, "tokens"),
        ({"serviceMonitor": {"enabled": True, "tokenSecret": "t"}, "serve": {"http": {"hosts": ["a"]}}}, 'leave "*"'),
    ],
)
def test_helm_refuses(rendered: Render, given: dict[str, Any], said: str) -> None:
    assert said in rendered(**given).error


def test_the_configuration_is_one_of_ours(rendered: Render) -> None:
    for more in ({}, POSTGRES | {"serve": {"store_required": True, "log_lines": 3_000_000}}):
        found = rendered(**more)
        config = build(ServeConfig, found.serve(), "the environment")
        mounts = {one["mountPath"]: one for one in found.container()["volumeMounts"]}
        tokens = config.http.tokens
        assert tokens is not None
        assert mounts[str(tokens.parent)]["readOnly"]
        assert config.http.port == found.container()["ports"][0]["containerPort"]
        assert {"*", "localhost"} <= set(config.http.hosts)
    assert (config.store_required, config.log_lines) == (True, 3_000_000)
    assert found.pod()["enableServiceLinks"] is False


def test_the_pod_is_closed(rendered: Render) -> None:
    found = rendered(**POSTGRES)
    pod = found.pod()
    assert pod["automountServiceAccountToken"] is False
    assert (pod["securityContext"]["runAsNonRoot"], pod["securityContext"]["runAsUser"]) == (True, 65532)
    # Always would make the key of the hashes readable for a group, and the service refuses such a key.
    assert pod["securityContext"]["fsGroupChangePolicy"] == "OnRootMismatch"
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for one in (*pod["initContainers"], *pod["containers"]):
        closed = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
        assert one["securityContext"] == closed
        assert one["resources"]["limits"]["memory"]
    writable = {one["mountPath"] for one in found.container()["volumeMounts"] if not one.get("readOnly")}
    assert writable == {"/data", "/tmp"}
    assert all(value.startswith(("/tmp", "/app", "1")) for value in image_environment().values())


def test_probes(rendered: Render) -> None:
    one = rendered().container()
    startup, ready, alive = one["startupProbe"], one["readinessProbe"], one["livenessProbe"]
    assert startup["httpGet"]["path"] == ready["httpGet"]["path"] == "/readyz"
    assert (startup["failureThreshold"], startup["periodSeconds"]) == (60, 10)
    assert alive["httpGet"]["path"] == "/healthz"
    assert {"/readyz", "/healthz"} <= PROBES
    # Whatever names are allowed, the kubelet calls the service by one of them.
    headers = {tuple(h.values()) for probe in (startup, ready, alive) for h in probe["httpGet"]["httpHeaders"]}
    assert headers == {("Host", "localhost")}


def test_there_is_time_to_drain(rendered: Render) -> None:
    found = rendered()
    config = build(ServeConfig, found.serve(), "the environment")
    sleep = found.container()["lifecycle"]["preStop"]["sleep"]["seconds"]
    longest = sleep + config.http.limits.drain_s + config.engine.time.drain_s + 10
    assert found.pod()["terminationGracePeriodSeconds"] > longest


def test_the_artifact_is_checked_before_the_start(rendered: Render) -> None:
    found = rendered(artifact={"file": "demo.tar.gz"})
    (first,) = found.pod()["initContainers"]
    assert first["command"][-1] == "/scripts/prepare.py"
    assert {"--from=/source/demo.tar.gz", f"--sha256={SHA}", "--to=/artifacts"} <= set(first["args"])
    script = (CHART / "files" / "prepare.py").read_text(encoding="utf-8")
    assert found.one("ConfigMap")["data"]["prepare.py"].strip() == script.strip()
    (mount,) = [one for one in found.container()["volumeMounts"] if one["mountPath"] == "/artifacts"]
    assert mount["readOnly"] is True


def test_egress_is_what_is_named(rendered: Render) -> None:
    assert [port["port"] for rule in rendered().one("NetworkPolicy")["spec"]["egress"] for port in rule["ports"]] == [
        53,
        53,
    ]
    more = over(POSTGRES, {"networkPolicy": {"egress": {"otlp": [{"podSelector": {"matchLabels": {"app": "otel"}}}]}}})
    found = rendered(**more, serve={"telemetry": {"endpoint": "http://otel:4318"}})
    rules = found.one("NetworkPolicy")["spec"]["egress"]
    assert [[port["port"] for port in rule["ports"]] for rule in rules] == [[53, 53], [5432], [4318]]
    assert all(rule["to"] for rule in rules)
    assert found.one("NetworkPolicy")["spec"]["policyTypes"] == ["Ingress", "Egress"]


def test_scaling_and_watching(rendered: Render) -> None:
    monitor = {"enabled": True, "tokenSecret": "metrics"}
    found = rendered(
        autoscaling={"enabled": True}, serviceMonitor=monitor, prometheusRule={"enabled": True}, **POSTGRES
    )
    (metric,) = found.one("HorizontalPodAutoscaler")["spec"]["metrics"]
    assert "queue_wait" in metric["pods"]["metric"]["name"]
    assert "replicas" not in found.one("Deployment")["spec"]
    (endpoint,) = found.one("ServiceMonitor")["spec"]["endpoints"]
    assert endpoint["path"] in SCOPE_OF
    assert endpoint["authorization"]["credentials"] == {"name": "metrics", "key": "token"}
    assert found.one("PrometheusRule")["spec"] == read_yaml(CHART / "files" / "alerts.yaml")
    selector = found.one("PodDisruptionBudget")["spec"]["selector"]["matchLabels"]
    labels = found.one("Deployment")["spec"]["template"]["metadata"]["labels"]
    assert selector.items() <= labels.items()
    assert found.one("Service")["spec"]["selector"] == selector


def test_chart_files_are_plain() -> None:
    assert not [p for p in CHART.rglob("*") if p.is_file() and "\t" in p.read_text(encoding="utf-8")]
