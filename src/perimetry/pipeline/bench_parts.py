"""One suite measured and kept: a run that was stopped goes on with the next suite, and what is stale is measured again."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from perimetry import __version__
from perimetry.config import Config
from perimetry.errors import CorruptArtifact
from perimetry.evals import BenchConfig as Measuring
from perimetry.evals import ScoreTable, bench
from perimetry.evals.alarm_rates import benign_alarm_rows
from perimetry.evals.rows import Row
from perimetry.evals.shift import RocCurve
from perimetry.pipeline.bench_config import BenchConfig
from perimetry.pipeline.bench_damage import DamagePart, damage_part, twin_damage
from perimetry.shift import DETECTORS
from perimetry.shift.evidence import Prompt
from perimetry.shift.meter import Meter
from perimetry.shift.tables import all_score_names, score_tables, share_detectors
from perimetry.shift.taps import SameTap, Taps
from perimetry.storage import hash_json, read_json, write_json
from perimetry.suites import Case, Suite
from perimetry.ui import track

__all__ = ["Part", "Scored", "by_layer", "kept", "layer_rows", "measure", "score_prompts", "suite_origin"]

LAYOUT = 1
UNSAVED = "unsaved"


class Scored(NamedTuple):
    """Scores of some prompts under several meters."""

    tables: list[dict[str, torch.Tensor]]
    """For each meter, every score by name."""
    lengths: list[torch.Tensor]
    """For each meter, tokens that counted of each prompt: what is an attention sink depends on the layer."""


class Part(NamedTuple):
    """All measurements on one suite."""

    rows: list[Row]
    """Of all meters of the first one's layer."""
    roc: list[RocCurve]
    """Of the first meter."""
    damage: list[dict[str, Any]]
    """Mean damage by family and dose; empty where it was not asked for."""
    points: list[dict[str, Any]]
    """Damage and scores of single texts, for figures."""
    layers: list[dict[str, Any]]
    """Some of the rows of every meter, with its `layer`; empty where all read the same one."""

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "rows": [row.to_json() for row in self.rows],
            "roc": [curve.to_json() for curve in self.roc],
            "damage": self.damage,
            "points": self.points,
            "layers": self.layers,
        }

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> "Part":
        """The part that `to_json` gave."""
        rows = [Row(**row) for row in found["rows"]]
        roc = [RocCurve(**{**c, "fpr": tuple(c["fpr"]), "tpr": tuple(c["tpr"])}) for c in found["roc"]]
        return cls(rows, roc, found["damage"], found["points"], found.get("layers", []))


def score_prompts(
    meters: Sequence[Meter], prompts: list[Prompt], what: str, batch_tokens: int, progress: bool
) -> Scored:
    """Every score of every prompt under meters of one model, from one run of it.

    Errors: those of `Taps` for meters of several layers that do not go together.
    """
    names = [[n for n in all_score_names() if n.partition(".")[0] in m.normal.detectors] for m in meters]
    tables = [{name: torch.zeros(len(prompts)) for name in own} for own in names]
    lengths = [torch.zeros(len(prompts)) for _ in meters]
    layers = by_layer(meters)
    shared = {layer: share_detectors([meters[i].normal.detectors for i in own]) for layer, own in layers.items()}
    extractors = [meters[own[0]].extractor for own in layers.values()]
    source = Taps(extractors) if len(extractors) > 1 else SameTap(extractors[0], 1)
    passes = source.capture(prompts, logits=True, batch_tokens=batch_tokens)
    for captures in track(passes, what, len(prompts), progress, lambda found: len(found[0].rows)):
        for (layer, own), capture in zip(layers.items(), captures, strict=True):
            rows = torch.tensor(capture.rows)
            saes, references = [meters[i].sae for i in own], [meters[i].normal.references for i in own]
            for i, new in zip(own, score_tables(capture, saes, shared[layer], references), strict=True):
                for name, values in new.items():
                    tables[i][name][rows] = values
                lengths[i][rows] = torch.bincount(capture.prompt, minlength=len(capture.rows)).float()
    return Scored(tables, lengths)


def by_layer(meters: Sequence[Meter]) -> dict[int, list[int]]:
    """Which of the meters read each layer, in the order in which layers first come."""
    found: dict[int, list[int]] = {}
    for i, meter in enumerate(meters):
        found.setdefault(meter.extractor.tap.layer, []).append(i)
    return found


def _kinds() -> dict[str, Any]:
    return {n: "baseline" if DETECTORS[n.partition(".")[0]].baseline else "concept" for n in all_score_names()}


def measure(meters: Sequence[Meter], suite: Suite, config: BenchConfig, *, progress: bool = False) -> Part:
    """Rows, curves and damage of one suite for every meter of one model.

    Meters of the first one's layer differ in the seed of their SAE; what those of other layers say stands apart.
    """
    extractor = meters[0].extractor
    prompts = extractor.prepare([c.id for c in suite.cases], [c.text for c in suite.cases])
    scored = score_prompts(meters, prompts, f"suite {suite.name}", config.batch_tokens, progress)
    tables = [ScoreTable(table, _kinds()) for table in scored.tables]
    seeds = [meter.info.seed or 0 for meter in meters]
    harm = DamagePart([], [], [])
    if suite.name in config.damage:
        twins = twin_damage(extractor.lm, extractor.policy, suite, config.damage_doses, progress=progress)
        here = by_layer(meters)[extractor.tap.layer]
        harm = damage_part(
            suite, twins, [tables[i] for i in here], [meters[i].main for i in here], config, [seeds[i] for i in here]
        )
    rows: list[Row] = []
    layers: list[dict[str, Any]] = []
    roc: list[RocCurve] = []
    for i, (meter, table) in enumerate(zip(meters, tables, strict=True)):

        def score(cases: Sequence[Case], table: ScoreTable = table) -> ScoreTable:
            assert len(cases) == len(suite.cases), "a suite is scored whole"
            return table

        result = bench(score, suite, main=meter.main, seed=seeds[i], config=Measuring(resamples=config.resamples))
        layers += layer_rows(meter, result.rows)
        if meter.extractor.tap.layer != extractor.tap.layer:
            continue
        rows += result.rows
        roc += result.roc if i == 0 else []
        if suite.benign:
            calibration = meter.normal.calibration
            p = {
                n: calibration.p_values(n, v, scored.lengths[i]).p
                for n, v in table.scores.items()
                if n in calibration.scores
            }
            rows += benign_alarm_rows(p, table.kinds, suite, seed=seeds[i])
    return Part([*rows, *harm.rows], roc, harm.damage, harm.points, layers if len(by_layer(meters)) > 1 else [])


def layer_rows(meter: Meter, rows: Sequence[Row]) -> list[dict[str, Any]]:
    """What is kept to compare layers: areas in plain pooling, and the main score against the baseline of other folds."""
    return [
        row.to_json() | {"layer": meter.extractor.tap.layer}
        for row in rows
        if (row.metric == "auroc" and ("." not in row.detector or row.detector == meter.main))
        or (row.metric == "auroc_difference_out_of_fold" and row.selection == "main")
    ]


def suite_origin(meters: Sequence[Meter], suite: Suite, config: BenchConfig) -> dict[str, Any]:
    """All that the measurements on a suite depend on, by name."""
    lm = meters[0].lm
    cases = [list(case) for case in suite.cases]
    damaged = suite.name in config.damage
    return {
        "layout": LAYOUT,
        "version": __version__,
        "torch": torch.__version__,
        "device": lm.device.type,
        "meters": [[m.identity, m.main] for m in meters],
        "texts": hash_json([cases, suite.matching, suite.benign]),
        "resamples": config.resamples,
        "batch_tokens": config.batch_tokens,
        "measuring": Measuring().fingerprint(),
        "damage": list(config.damage_doses) if damaged else [],
    }


def kept(
    file: Path,
    origin: Mapping[str, Any],
    config: Config,
    make: Callable[[], dict[str, Any]],
    *,
    what: str,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """What `file` holds where it was made from the same things; else what `make` gives, once it is in `file`.

    What differs is said, and then measured again: two runs never mix. Results of meters that were never saved cannot be
    told apart and are always made anew.
    """
    settings = config.model_dump(mode="json")
    saved = all(digest != UNSAVED for digest, _ in origin.get("meters", []))
    if file.is_file() and saved:
        why = _stale(file, origin, settings)
        if not why:
            say(f"{what}: measured before, taken from {file.name}")
            return read_json(file)["result"]
        say(f"{what}: {file.name} was made from other things ({why}); measured again")
    write_json(file, {"origin": dict(origin), "configuration": settings, "result": make()}, indent=None)
    # As read back, so that a run in one go and a resumed one hold the same values.
    return read_json(file)["result"]


def _stale(file: Path, origin: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    """What differs from what the file was made from; empty where nothing does."""
    try:
        before = read_json(file)
        old, old_settings = before["origin"], before["configuration"]
        now = json.loads(json.dumps(dict(origin)))
        changed = sorted(key for key in {*old, *now} if old.get(key) != now.get(key))
        if not changed:
            return "" if isinstance(before["result"], dict) else "it holds no result"
    except (CorruptArtifact, KeyError, TypeError, AttributeError):
        return "it cannot be read"
    if "texts" not in changed:
        return ", ".join(changed)
    named = [
        f"{key} {old_settings.get(key)}, now {settings.get(key)}"
        for key in sorted({*old_settings, *settings})
        if old_settings.get(key) != settings.get(key)
    ]
    return ", ".join(changed) + (f": {'; '.join(named)}" if named else "")
