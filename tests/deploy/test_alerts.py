"""The rules for Prometheus: they ask for what there is, and the one that judges p-values keeps its word on false alarms."""

import re
import shutil
import subprocess
from typing import Any

import numpy as np
import pytest
from tests.deploy.tools import CHART, read_yaml

from perimetry.monitor.http.metrics import Metrics

FILE = CHART / "files" / "alerts.yaml"
RULES: list[dict[str, Any]] = [rule for group in read_yaml(FILE)["groups"] for rule in group["rules"]]
BY_NAME = {rule["alert"]: rule for rule in RULES}
OF_PROMETHEUS = {"job", "instance", "le"}


def exported() -> dict[str, set[str]]:
    """Name of every series that the service has -> its labels."""
    metrics, found = Metrics(), dict[str, set[str]]()
    kinds = dict(re.findall(r"^# TYPE (\S+) (\S+)$", metrics.text().decode(), re.MULTILINE))
    for held in vars(metrics).values():
        labels = set(getattr(held, "_labelnames", ()))
        name = getattr(held, "_name", None)
        for known in (name, f"{name}_total"):
            if kinds.get(known) == "histogram":
                found |= {f"{known}_{part}": labels for part in ("bucket", "count", "sum")}
            elif known in kinds:
                found[known] = labels
    return found


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_a_rule_asks_for_what_there_is(rule: dict[str, Any]) -> None:
    known = exported()
    assert len(known) > 30
    asked = set(re.findall(r"\bperimetry_\w+", rule["expr"]))
    assert asked <= set(known)
    assert asked or rule["expr"].startswith("up{")
    labels = OF_PROMETHEUS.union(*(known[name] for name in asked))
    used = {
        name for group in re.findall(r"(?:by|without|on) \(([\w, ]+)\)", rule["expr"]) for name in group.split(", ")
    }
    used |= set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
    assert used <= labels


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_a_rule_says_how_often_it_is_wrong(rule: dict[str, Any]) -> None:
    assert rule["annotations"]["summary"].endswith(".")
    assert rule["annotations"]["false_alarms"]
    assert rule["labels"]["severity"] in ("info", "warning", "critical")


def test_the_bucket_of_the_rule_is_there() -> None:
    metrics = Metrics()
    metrics.scored("group", 0.005, flagged=True, fallback=False)
    for le in re.findall(r'le="([^"]+)"', FILE.read_text(encoding="utf-8")):
        assert f'perimetry_p_value_bucket{{group="other",le="{le}"}} 1.0' in metrics.text().decode()


def fires(per_hour: float, calibrations: int, seed: int) -> float:
    """Share of calibration sets with which the rule fires within 30 days, though the traffic is like them.

    Of each set of 1,000 the true rate at p <= 0.01 is Beta(10, 991). Rates are counted over one hour, every five minutes.
    """
    expression = BY_NAME["PerimetryMoreOutsideThanCalibrated"]["expr"]
    top, deviations, least = (
        float(re.findall(pattern, expression)[0]) for pattern in (r"> (0\.\d+) \*", r"\+ (\d+) \* sqrt", r"> (\d{3,})$")
    )
    rng = np.random.default_rng(seed)
    rates = rng.beta(10, 991, size=(calibrations, 1))
    scored = rng.poisson(per_hour / 12, size=(calibrations, 30 * 288))
    outside = rng.binomial(scored, rates)
    hour = [np.cumsum(counts, axis=1)[:, 12:] - np.cumsum(counts, axis=1)[:, :-12] for counts in (scored, outside)]
    limit = top * hour[0] + deviations * np.sqrt(top * (1 - top) * hour[0])
    return float(((hour[1] > limit) & (hour[0] > least)).any(axis=1).mean())


@pytest.mark.parametrize("per_hour", [1_000, 5_000, 50_000])
def test_clean_traffic_rarely_fires(per_hour: float) -> None:
    """One calibration set in 20 at most, as the rule says; 300 sets leave room for three standard deviations of that."""
    assert "one calibration set in 20" in BY_NAME["PerimetryMoreOutsideThanCalibrated"]["annotations"]["false_alarms"]
    assert fires(per_hour, 300, seed=int(per_hour)) <= 0.05 + 3 * (0.05 * 0.95 / 300) ** 0.5


def test_prometheus_takes_the_rules() -> None:
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("no promtool on the path")
    done = subprocess.run([found, "check", "rules", str(FILE)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
