"""`perimetry eval steering` as a user calls it."""

from pathlib import Path

import torch
from safetensors.torch import save_file
from tests.worlds import World, run_main, write_jsonl

PAIRS = [
    {"prompt": f"the cat {verb}", "positive": " on the mat in the morning", "negative": " the sea at night"}
    for verb in ("sat", "looked", "went", "crossed", "forgot", "built")
]


def test_a_vector_beside_random_ones_and_none(world: World, tmp_path: Path) -> None:
    pairs = write_jsonl(tmp_path / "pairs.jsonl", PAIRS)
    width = 32
    save_file({"v": 30 * torch.randn(width, generator=torch.Generator().manual_seed(0))}, tmp_path / "v.safetensors")
    call = (
        "eval",
        "steering",
        pairs,
        "--model",
        world.model,
        "--vector",
        tmp_path / "v.safetensors",
        "--multiplier",
        "1",
    )
    done = run_main(*call, "--random", "2", "--dtype", "float32", "--out", tmp_path / "out", "--json")
    assert done.code == 0, done.err
    results = done.json()
    said = {(v["arm"], v["multiplier"]): v["verdict"] for v in results["verdicts"]}
    assert set(said) == {("zero", 0.0), ("vector", 1.0), ("random 0", 1.0), ("random 1", 1.0)}
    assert said["zero", 0.0] == "null"
    zero = [r["estimate"] for r in results["rows"] if r["arm"] == "zero"]
    assert set(zero) == {0.0}
    assert all(r["low"] <= r["estimate"] <= r["high"] for r in results["rows"])
    shown = run_main(*call, "--random", "1", "--dtype", "float32", "--out", tmp_path / "again")
    assert "verdict" in shown.out
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "What the intervals say" in page


def test_a_latent_and_a_contrast(world: World, tmp_path: Path) -> None:
    pairs = write_jsonl(tmp_path / "pairs.jsonl", PAIRS)
    common = ("--model", world.model, "--multiplier", "1", "--random", "1", "--dtype", "float32", "--json")
    latent = run_main("eval", "steering", pairs, "--sae", world.sae, "--latent", "3", "--out", tmp_path / "a", *common)
    assert latent.code == 0, latent.err
    assert latent.json()["configuration"]["origin"].startswith("latent 3")
    contrast = run_main("eval", "steering", pairs, "--contrast", pairs, "--out", tmp_path / "b", *common)
    assert contrast.code == 0, contrast.err


def test_what_is_refused(world: World, tmp_path: Path) -> None:
    pairs = write_jsonl(tmp_path / "pairs.jsonl", PAIRS)
    kind, message = run_main("eval", "steering", pairs, "--json").error()
    assert (kind, "give one of --vector" in message) == ("UsageError", True)
    bad = write_jsonl(tmp_path / "bad.jsonl", [{"prompt": "a", "positive": "b"}])
    kind, message = run_main("eval", "steering", bad, "--sae", world.sae, "--latent", "1", "--json").error()
    assert (kind, "line 1" in message) == ("UsageError", True)
    kind, message = run_main(
        *("eval", "steering", pairs, "--sae", world.sae, "--latent", "100000", "--model", world.model, "--json")
    ).error()
    assert (kind, "latent 100000" in message) == ("UsageError", True)
    save_file({"v": torch.zeros(3)}, tmp_path / "v.safetensors")
    kind, message = run_main(
        *("eval", "steering", pairs, "--vector", tmp_path / "v.safetensors", "--model", world.model, "--json")
    ).error()
    assert (kind, "3 entries" in message) == ("WidthMismatch", True)
