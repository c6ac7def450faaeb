"""One end-to-end test a command on the real small model; outputs are shared, downloads are cached."""

import json
import os
import random
import signal
import string
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from tests.worlds import Outcome, child_environment, run_main, text_of, write_jsonl

from perimetry.activations.model import load_language_model
from perimetry.assets import ASSETS, read_texts
from perimetry.runtime import Runtime
from perimetry.shift.evidence import Extractor
from perimetry.shift.loading import load_meter
from perimetry.shift.meter import Meter
from perimetry.storage import hash_file

pytestmark = [pytest.mark.network, pytest.mark.slow]

MODEL = "smollm2-135m-instruct"
PATIENCE_S = 600
SETTINGS = """
[train]
width = 256
k = 16
batch = 512
fit_tokens = 2048
threshold_tokens = 2048

[calibrate]
main = "surprise"
profile_tokens = 2000
reference_tokens = 500
calibration_prompts = 40
words_low = 8
words_high = 30
groups = 2
minimum = 19
bank = 512

[bench]
clean_prompts = 20
resamples = 100
words = 20
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("real")
    (folder / "settings.toml").write_text(SETTINGS)
    return folder


@pytest.fixture(scope="module")
def trained(root: Path) -> Outcome:
    asked = ("train", "--out", root / "sae", "--model", MODEL, "--tokens", "8192", "--context", "64")
    return run_main(*asked, "--config", root / "settings.toml", "--json")


@pytest.fixture(scope="module")
def calibrated(root: Path, trained: Outcome) -> Outcome:
    assert trained.code == 0, trained.err
    asked = ("calibrate", "--sae", root / "sae", "--text", "wikipedia", "--out", root / "meter")
    return run_main(*asked, "--config", root / "settings.toml", "--json")


@pytest.fixture(scope="module")
def real_meter(root: Path, calibrated: Outcome) -> Meter:
    assert calibrated.code == 0, calibrated.err
    return load_meter(root / "meter")


def test_assets() -> None:
    rows = {row["name"]: row for row in run_main("assets", "list", "--json").json()}
    assert rows.keys() == ASSETS.keys()
    folder = Path(run_main("assets", "path", MODEL, "--json").json()["path"])
    assert (folder / "config.json").is_file()
    (found,) = run_main("assets", "verify", MODEL, "--json").json()
    assert (found["name"], found["problems"], found["path"]) == (MODEL, [], str(folder))
    assert {row["name"]: row for row in run_main("assets", "list", "--json").json()}[MODEL]["pulled"] is True


def test_doctor() -> None:
    done = run_main("doctor", "--model", MODEL, "--json")
    assert done.code == 0, done.out
    found = done.json()
    assert all(check["holds"] for check in found["checks"])
    assert (found["layers"], found["d_model"], found["layer"]) == (30, 576, 12)
    sinks = next(c for c in found["checks"] if c["name"] == "attention sinks stay out")
    assert float(sinks["measured"].split()[2]) > 50, "the first token's norm towers over the others"


def test_train(trained: Outcome, root: Path) -> None:
    assert trained.code == 0, trained.err
    (sae,) = trained.json()["saes"]
    assert sae["path"] == str(root / "sae" / "sae")
    assert 0 < sae["fvu"] < 1
    assert 4 < sae["l0"] < 64


def test_calibrate(calibrated: Outcome) -> None:
    assert calibrated.code == 0, calibrated.err
    found = calibrated.json()
    assert (found["model"], found["layer"], found["calibration_prompts"]) == (MODEL, 12, 40)
    # As many as were asked for, less the attention sinks among them.
    assert 1900 <= found["profile_tokens"] <= 2400


def test_readings_do_not_depend_on_their_company(real_meter: Meter) -> None:
    """In float32: the same dictionary and detectors on the same model in its exact dtype."""
    lm = load_language_model(MODEL, Runtime(torch.device("cpu"), torch.float32))
    there = Extractor(lm, real_meter.extractor.tap.layer, real_meter.policy)
    exact = Meter(there, real_meter.sae, real_meter.info, real_meter.normal, main="surprise", details={})
    texts = [d.text[:n] for d, n in zip(read_texts("wikipedia"), (60, 300, 150, 12), strict=False)]
    together = exact.score(texts, detectors="all")
    others = {
        "alone": [exact.score([t], detectors="all")[0] for t in texts],
        "left": exact.score(texts, detectors="all", side="left"),
        "turned": exact.score(texts[::-1], detectors="all")[::-1],
    }
    for how, readings in others.items():
        for one, two in zip(together, readings, strict=True):
            assert one.p_value == two.p_value, how
            for name, value in one.scores.items():
                assert two.scores[name] == pytest.approx(value, rel=1e-4, abs=1e-4), (how, name)


def test_score(root: Path, real_meter: Meter) -> None:
    clean = next(d.text[:120] for d in read_texts("wikipedia") if len(d.text) > 600)
    plain = run_main("score", root / "meter", clean)
    assert plain.code == 0, plain.err
    assert "alpha 0.05" in plain.out
    rng = random.Random(0)
    noise = " ".join("".join(rng.choices(string.ascii_letters, k=6)) for _ in range(20))
    rows = [{"id": "noise", "text": noise}, {"id": "clean", "text": clean}]
    asked = ("score", root / "meter", "--input", write_jsonl(root / "in.jsonl", rows), "--json", "--detectors", "all")
    done = run_main(*asked, "--alpha", "0.99", "--fail-on-alarm")
    worse, better = done.lines()
    assert (worse["id"], better["id"]) == ("noise", "clean")
    assert done.code == int(worse["p_value"] <= 0.99 or better["p_value"] <= 0.99)
    # The SAE has seen too little to be judged; what reads the model itself must know noise from prose.
    for name in ("nll", "tokens_per_word"):
        assert worse["scores"][name] > better["scores"][name], name
    assert worse["meter"] == real_meter.digest


def test_bench_and_report(root: Path, real_meter: Meter) -> None:
    asked = ("bench", "shift", root / "meter", "--suite", "typos", "--n", "12", "--out", root / "bench", "--json")
    done = run_main(*asked, "--config", root / "settings.toml")
    assert done.code == 0, done.err
    found = {(r["detector"], r["dose"]): r["estimate"] for r in done.json()["rows"] if r["metric"] == "auroc"}
    assert found["nll", 0.5] > 0.8
    assert found["nll", 0.5] >= found["nll", 0.05]
    page = (root / "bench" / "report.html").read_bytes()
    assert run_main("report", root / "bench", "--json").json() == {"report": str(root / "bench" / "report.html")}
    assert (root / "bench" / "report.html").read_bytes() == page


def test_a_killed_demo_continues(root: Path) -> None:
    """Killed with signal 9 once training has begun, the same command ends as it would have."""
    out = root / "demo"
    command = [sys.executable, "-m", "perimetry", "demo", "--preset", "tiny", "--out", str(out), "--json"]
    with open(root / "demo.err", "wb") as err:
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=err, env=child_environment())
        try:
            end = time.monotonic() + PATIENCE_S
            while child.poll() is None and not (out / "store" / "manifest.json").is_file():
                assert time.monotonic() < end, "the demo never finished its harvest"
                time.sleep(0.01)
            assert child.poll() is None, (root / "demo.err").read_text()
        finally:
            os.kill(child.pid, signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    assert not (out / "results.json").exists()
    store = hash_file(out / "store" / "manifest.json")
    done = run_main("demo", "--preset", "tiny", "--out", out, "--json")
    assert done.code == 0, done.err
    assert hash_file(out / "store" / "manifest.json") == store, "what was harvested was not harvested again"
    results = done.json()
    assert json.loads((out / "results.json").read_text()) == results
    assert {r["suite"] for r in results["rows"]} == {"typos", "jailbreaks"}
    assert {r["seed"] for r in results["rows"]} == {0, 1}
    assert (out / "report.html").stat().st_size > 50_000
    refused = run_main("demo", "--preset", "full", "--out", out, "--json").error()
    assert refused[0] == "ConfigError"
    assert "holds a demo with other settings" in refused[1]
    assert run_main("score", out / "meter", text_of(1, 20)).code == 0
