"""The views of performance.md hold the numbers of the rows, say what missed its target, and what was left out."""

import importlib.util
import sys
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
MODULE = "_arms"
HEADLINE = {"batch": 4096, "d_model": 576, "width": 16_384, "k": 32}
SMALL = {"batch": 1024, "d_model": 576, "width": 4096, "k": 16}


@cache
def page() -> ModuleType:
    spec = importlib.util.spec_from_file_location("performance_views", ROOT / "docs" / "performance.py")
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    sys.modules["performance_views"] = found
    spec.loader.exec_module(found)
    return found


def row(
    section: str, metric: str, arm: str, against: str, estimate: float, size: dict[str, int], **more: Any
) -> dict[str, Any]:
    spread = {"estimate": estimate, "low": 0.9 * estimate, "high": 1.1 * estimate, "n": 7, "seed": 0, "method": "m"}
    about = {"section": section, "architecture": "topk", **size, "l0": 32.0}
    return {"metric": metric, "arm": arm, "against": against, **spread, **about, **more}


def speeds(size: dict[str, int], ours: float) -> list[dict[str, Any]]:
    found = [
        row("speed", "tokens_per_s", arm, "", s, size) for arm, s in (("perimetry", ours), ("gemm_bfloat16", 16_000.0))
    ]
    found.append(row("speed", "time_ratio", "perimetry", "gemm_bfloat16", 16_000 / ours, size))
    for arm, ratio in (("saelens", 21.5), ("saelens_autocast", 11.0), ("sparsify_autocast", 3.25)):
        found.append(row("speed", "tokens_per_s", arm, "", ours / ratio, size))
        found.append(row("speed", "time_ratio", arm, "perimetry", ratio, size))
    return found


@pytest.fixture
def measured() -> dict[str, Any]:
    rows = speeds(HEADLINE, 10_000.0) + speeds(SMALL, 40_000.0)
    rows.append(row("architectures", "tokens_per_s", "perimetry", "", 5000.0, HEADLINE, architecture="spade"))
    rows.append(row("architectures", "time_ratio", "perimetry", "gemm_bfloat16", 4.0, HEADLINE, architecture="spade"))
    rows.append(row("architectures", "time_ratio", "perimetry_dense", "perimetry", 2.5, HEADLINE, architecture="spade"))
    about = {"parameter_bytes": 72 * 2**20, "batch_bytes": 9 * 2**20}
    rows.append(row("memory", "peak_bytes", "perimetry", "", 270.0 * 2**20, HEADLINE, **about))
    rows.append(row("memory", "peak_ratio", "perimetry", "least", 1.2, HEADLINE, **about))
    for arm, rate in (("perimetry", 9000.0), ("saelens", 500.0)):
        rows.append(row("training", "training_tokens_per_s", arm, "", rate, HEADLINE, steps=2, lr_factor=4.0))
        for step, fvu in ((1, 0.6), (2, 0.4 if arm == "perimetry" else 0.55)):
            rows.append(row("training", "fvu", arm, "", fvu, HEADLINE, steps=2, step=step, seconds=float(step)))
    rows.append(row("training", "seconds_to_fvu", "perimetry", "", 1.5, HEADLINE, steps=2, target=0.5))
    left_out = {"section": "speed", "arm": "saelens_sparse", "architecture": "topk", **HEADLINE, "reason": "no kernel"}
    hardware = {"processor": "p", "cores": 2, "threads": 2, "torch": "2"}
    return {
        "command": "python benchmarks/train_step.py",
        "version": "0.1.0",
        "date": "2026-01-02T03",
        "hardware": hardware,
        "libraries": {"sae-lens": "6.5"},
        "data": ["planted"],
        "skipped": [left_out],
        "rows": rows,
    }


def lines(text: str) -> dict[str, list[str]]:
    table = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")
    ]
    return {cells[0]: cells[1:] for cells in table}


def test_targets_say_which_way_it_went(measured: dict[str, Any]) -> None:
    found = lines(page().targets(measured))
    met = {what: cells[-1] for what, cells in found.items()}
    assert met.pop("step of SAELens, as it is by default, over that of perimetry") == "yes"
    assert met.pop("step of SAELens with autocast over that of perimetry") == "no"
    assert met.pop("step of sparsify with bfloat16 autocast over that of perimetry") == "yes"
    assert found["speed over that of the encoder's product"] == ["at least 60 %", "62 % (57 to 69)", "yes"]
    assert found["peak memory of a step over parameters, Adam's moments and the batch"] == [
        "at most 1.25",
        "1.20",
        "yes",
    ]


def test_the_headline_is_the_first_size_with_what_was_left_out(measured: dict[str, Any]) -> None:
    text = page().headline(measured)
    found = lines(text)
    assert found["perimetry"] == ["10,000 (9,000 to 11,000)", "", "7"]
    assert found["SAELens"][1] == "21.50 (19.35 to 23.65)"
    assert "40,000" not in text
    assert "* SAELens, sparse activations, topk, batch 4096, d 576, width 16384: no kernel" in text
    assert "sae-lens 6.5, p, 2 cores, 2 threads, torch 2, activations: planted, 2026-01-02." in text


def test_the_other_sizes_have_a_line_each(measured: dict[str, Any]) -> None:
    text = page().sizes(measured)
    assert "| 4096 | 576 | 16384 | 32 | 10,000 | 62 % (57 to 69) | 21.5 | 11.0 | 3.2 |" in text
    assert "| 1024 | 576 | 4096 | 16 | 40,000 |" in text


def test_architectures_memory_and_training(measured: dict[str, Any]) -> None:
    assert lines(page().architectures(measured))["`spade`"] == [
        "5,000 (4,500 to 5,500)", "25 % (23 to 28)", "2.5 (2.2 to 2.8)", "32", "",
    ]  # fmt: skip
    assert lines(page().memory(measured))["perimetry"] == ["270", "72", "9", "1.20"]
    found = lines(page().training(measured))
    assert found[""] == ["rate", "tokens a second", "last FVU", "FVU 0.5, s"]
    assert found["perimetry"] == ["4", "9,000", "0.4000", "1.5"]
    assert found["SAELens"] == ["4", "500", "0.5500", ""]


def test_every_arm_has_a_name(module: ModuleType) -> None:
    assert set(page().NAMES) == set(module.ARMS)


def test_reading_and_saebench(measured: dict[str, Any]) -> None:
    about = {"model": "m", "layer": 12, "context": 128, "tokens": 4096}
    rows = [row("", "time_ratio", "saelens", "harvest", 1.5, {}), row("", "tokens_per_s", "saelens", "", 2000.0, {})]
    text = page().harvest(measured | {"rows": [r | about for r in rows]})
    assert (
        "| SAELens, `ActivationsStore`, kept nowhere | 2,000 (1,800 to 2,200) | 1.50 (1.35 to 1.65) of perimetry"
        in text
    )
    sae = {"architecture": "jumprelu", "d_sae": 64, "hook_name": "blocks.1.hook_resid_post", "model_name": "m"}
    rows = [row("", "sparsity.l0", "sae", "", 32.5, {}), row("", "token_stats.total", "sae", "", 1.0, {})]
    text = page().saebench(measured | {"sae": sae | {"training_tokens": 5000}, "rows": rows})
    assert "| `sparsity.l0` | 32.5 | 29.25 to 35.75 | 7 |" in text
    assert "token_stats" not in text
    assert "jumprelu of width 64 at `blocks.1.hook_resid_post` of m, 5,000 tokens:" in text


def test_the_service_beside_direct_scoring(measured: dict[str, Any]) -> None:
    about = {"model": "m", "prompts": 48, "difference": 0.0001}
    rows = [row("", "prompts_per_s", arm, "", 4.0, {}) for arm in ("direct", "batches", "single")]
    rows += [row("", "throughput_ratio", arm, "direct", 0.9, {}) for arm in ("batches", "single")]
    rows += [row("", "latency_ms", arm, "", 5.0, {}) for arm in ("direct", "single", "added")]
    rows.append(row("", "resident_mb", "service", "", 150.0, {}))
    text = page().service(measured | {"rows": [r | about for r in rows]})
    assert "| *directly* | 4.00 (3.60 to 4.40) | 1 |" in text
    assert "| requests of 32 prompts, two at a time | 4.00 (3.60 to 4.40) | 0.90 (0.81 to 0.99) |" in text
    assert "it takes 5.0 (4.5 to 5.5) ms more (m, 7 pairs)" in text
    assert "150 MB" in text
    assert "0.0001 of their range" in text
