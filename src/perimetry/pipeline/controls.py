"""The controls of a meter: what must lose does it lose, and where nothing is to be found is nothing found?"""

import datetime
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from perimetry import __version__
from perimetry.errors import UsageError
from perimetry.pipeline.bench_parts import kept
from perimetry.pipeline.bench_suites import build_suites, held_out
from perimetry.pipeline.controls_config import ControlsConfig
from perimetry.pipeline.controls_learned import dictionary_part, model_part
from perimetry.pipeline.controls_parts import Bench, clean_part, false_concept_part, p_value_part, wanted_scores
from perimetry.report import keep_results
from perimetry.runtime import fingerprint
from perimetry.sae.affine import AffineSAE
from perimetry.shift.meter import Meter
from perimetry.storage import hash_json, lock, remove_stale

__all__ = ["run_controls"]

LAYOUT = 1
TEXTS = ("passages", "words", "doses", "seed", "batch_tokens")
FITS = ("fit_text", "scores", "profile_tokens", "foresight_tokens", "reference_tokens", "calibration_prompts", "acts")
SETTINGS = {
    "false_concepts": (*TEXTS, "resamples"),
    "dictionaries": (*TEXTS, *FITS, "resamples"),
    "untrained_model": (*TEXTS, *FITS, "resamples"),
    "clean": (*TEXTS, *FITS, "shuffles"),
    "p_values": ("clean_prompts", "simulated", "seed", "batch_tokens"),
}
"""Part -> the settings that it depends on."""


def run_controls(
    meter: Meter,
    config: ControlsConfig,
    out: Path,
    *,
    command: str,
    progress: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Measure the controls of a meter and write `results.json` and `report.html` to `out`; returns the results.

    Each part is kept in `out/controls` as soon as it is measured: killed at any moment, the same call goes on with the next
    one and ends with the same numbers. Errors: `UnknownName` for a score, `UsageError` for an SAE without an encoder matrix
    or text that is all held out, `TooFewSamples`, `Locked`.
    """
    wanted_scores(meter, config)
    if not isinstance(meter.sae, AffineSAE):
        raise UsageError(
            f"an SAE of the architecture {meter.sae.architecture!r} has no untrained twin to hold it against; one with an "
            "encoder matrix is wanted, such as batchtopk; use a meter with such an SAE"
        )
    with lock(out / "controls"):
        remove_stale(out / "controls")
        clean = held_out(config.text, progress)
        (suite,) = build_suites(meter, config.bench(), clean, progress=progress)
        parts = _parts(Bench(meter, config, clean, suite, progress), out / "controls", say)
        results = _results(meter, config, parts) | {"command": command}
        return keep_results(results, out)


def _parts(bench: Bench, folder: Path, say: Callable[[str], None]) -> dict[str, dict[str, Any]]:
    """Every part, from `folder` where it was made before from the same things."""
    config, meter = bench.config, bench.meter
    texts = hash_json([[list(d)[:2] for d in bench.clean], [list(case) for case in bench.suite.cases]])

    def part(name: str, label: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        origin = {
            "layout": LAYOUT,
            "version": __version__,
            "torch": torch.__version__,
            "device": meter.lm.device.type,
            "meters": [[meter.digest, meter.main]],
            "texts": texts,
            "settings": {key: config.model_dump(mode="json")[key] for key in SETTINGS[name]},
        }

        def said() -> dict[str, Any]:
            say(f"measuring {label}")
            return make()

        return kept(folder / f"{name}.json", origin, config.bench(), said, what=label, say=say)

    found = {
        "false_concepts": part(
            "false_concepts", "false concepts against their oracle", lambda: false_concept_part(bench)
        )
    }
    first = part("dictionaries", "dictionaries that learned nothing", lambda: dictionary_part(bench))
    found["dictionaries"] = first
    found["untrained_model"] = part(
        "untrained_model", "a language model that learned nothing", lambda: model_part(bench, first)
    )
    found["clean"] = part("clean", "clean text against clean text", lambda: clean_part(bench, first))
    found["p_values"] = part("p_values", "p-values of clean text", lambda: p_value_part(bench))
    return found


def _results(meter: Meter, config: ControlsConfig, parts: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    sae = f"{meter.sae.architecture}, {meter.sae.d_sae} latents"
    return {
        "title": "Do the controls behave?",
        "subtitle": f"{meter.lm.name}, after block {meter.extractor.tap.layer} of {meter.lm.n_layers}; {sae}",
        "version": __version__,
        "hardware": fingerprint(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "main": meter.main,
        "rows": [],
        "controls": [row for part in parts.values() for row in part["controls"]],
        "false_concepts": parts["false_concepts"]["false_concepts"],
        "false_alarms": parts["p_values"]["false_alarms"],
        "p_values": parts["p_values"]["p_values"],
        "configuration": {
            "controls": config.model_dump(mode="json"),
            "meters": [meter.summary()],
            "l0": dict(zip(("trained", "untrained"), parts["dictionaries"]["l0"], strict=True)),
        },
    }
