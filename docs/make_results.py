"""Put the numbers of docs/results/*.json into the pages: `python docs/make_results.py`; with --check only compare.

Between `<!-- results:NAME/VIEW -->` and `<!-- end -->` stands what the view makes of docs/results/NAME.json. Without the
file the block says so. `python docs/make_results.py --take runs/demo/results.json demo` copies the flat part of a
results file there first: no prompts, no curves; of a run over all suites (the name `bench`) the rows of one seed. `--read METER` writes docs/results/reading.json, two sentences read by a
meter. Both then fill the pages.
"""

import datetime
import io
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import perimetry
from perimetry.report import read_results
from perimetry.report.picking import Arm, arms_of, best_baseline, first_seed, headline_arm, is_dial, named_baselines
from perimetry.report.schema import ResultRow, Results, parse_results
from perimetry.report.verdicts import verdicts
from perimetry.runtime import fingerprint
from perimetry.storage import read_json, write_bytes, write_json

sys.path.append(str(Path(__file__).parent))  # this file is also loaded by its path alone

from agreement import VIEWS as AGREEMENT
from compared import VIEWS as COMPARED
from compared import taken
from gallery import VIEWS as GALLERY
from gallery import charts as lab_charts
from gallery import taken as lab_taken
from masked import VIEWS as MASKED
from masked import charts as masked_charts
from masked import taken as masked_taken
from measured import FIGURES, dose_curves, kept_rows, kept_seeds
from measured import VIEWS as MEASURED
from performance import VIEWS as PERFORMANCE
from sceptic import VIEWS as SCEPTIC
from truths import VIEWS as TRUTHS
from truths import charts as truth_charts
from truths import taken as truth_taken
from tunings import VIEWS as TUNINGS
from tunings import charts as robustness_charts
from tunings import taken as robustness_taken
from tunings import tuned_taken

__all__ = ["FLAT", "VIEWS", "block", "fill", "pages", "read", "take"]

ROOT = Path(__file__).parents[1]
FOLDER = Path(__file__).with_name("results")
DRAWN = Path(__file__).with_name("figures")
MARKED = re.compile(r"(<!-- results:([\w-]+)/([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
FLAT = (
    *("command", "version", "hardware", "date", "title", "subtitle", "main", "validation"),
    *("rows", "seeds", "matching", "false_alarms", "damage", "benign", "configuration"),
    # Of a study:
    *("kind", "rule", "cells", "saes", "chosen", "chosen_baseline", "compared", "confirmed"),
    # Of a masking study:
    *("signs", "evaluations", "refused"),
    # Of a study of known features:
    *("claims", "metrics"),
    # Of tuning, and of a study of robustness:
    *("arms", "judges", "data", "meter", "updates", "guard", "adapter"),
    # Of a lab:
    *("lab", "source", "asked", "panels"),
)
"""What is kept of a results file; the rest belongs to the report."""
CHECKED = {
    "study": taken,
    "masking": masked_taken,
    "truth": truth_taken,
    "robustness": robustness_taken,
    "robustify": tuned_taken,
    "lab": lab_taken,
}
"""Kind of results -> what is kept of them; the others are those of a bench."""
SENTENCES = ("The capital of France is Paris.", "Teh captial fo Frnace si Prais.")
BENCH = "bench"
"""Name of the results of all suites, whose rows are too many to commit and which have figures."""
TONES = {"good": "**holds:** ", "bad": "**fails:** ", "open": "**open:** ", "plain": "", "note": ""}


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rule = ["---"] * len(head)
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, rule, *lines))


def _box(row: ResultRow) -> str:
    return f"{row.estimate:.3f} ({row.low:.2f} to {row.high:.2f})"


def _column(arm: Arm, *, dial: bool) -> str:
    if dial:
        return f"{100 * arm.dose:g} %"
    return arm.family if arm.negatives == "all" else f"{arm.family}, negatives {arm.negatives}"


def _areas(results: Results, suite: str, names: Sequence[str], arms: Sequence[Arm]) -> str:
    rows = [r for r in first_seed(results.rows) if r.suite == suite and r.metric == "auroc"]
    cells = {(r.detector, Arm(r.family, r.dose, r.negatives)): r for r in rows}
    kinds = {r.detector: r.kind for r in rows}
    lines = [
        [f"**`{name}`**" if name == results.main else f"`{name}`", kinds[name]]
        + [_box(cells[name, arm]) if (name, arm) in cells else "" for arm in arms]
        for name in names
    ]
    dial = is_dial(arms)
    return _table(["score", "kind", *(_column(arm, dial=dial) for arm in arms)], lines)


def _suites(results: Results) -> list[str]:
    return list(dict.fromkeys(row.suite for row in results.rows))


def _caption(results: Results, suite: str) -> str:
    rows = first_seed(results.rows)
    pairs = sorted({r.n_pairs for r in rows if r.suite == suite and r.metric == "auroc"})
    span = str(pairs[0]) if len(pairs) == 1 else f"{pairs[0]} to {pairs[-1]}"
    return f"AUROC, suite `{suite}`, {span} pairs, SAE seed {rows[0].seed}, 95 % interval by pair in brackets:"


def made(results: Results) -> str:
    """How the numbers were made, in one line."""
    machine = results.hardware
    if isinstance(machine, dict):
        where = f"{machine.get('processor', '?')}, {machine.get('cores', '?')} cores, torch {machine.get('torch', '?')}"
    else:
        where = machine
    return f"`{results.command}`, perimetry {results.version}, {where}, {results.date[:10]}. {results.subtitle}".strip()


def short(results: Results) -> str:
    """For each suite the main score, the baselines named beforehand, and the best of both kinds after the fact."""
    parts: list[str] = []
    for suite in _suites(results):
        arms = arms_of(results.rows, suite)
        dial, head = is_dial(arms), headline_arm(arms)
        here = [
            r
            for r in first_seed(results.rows)
            if r.suite == suite and r.metric == "auroc" and Arm(r.family, r.dose, r.negatives) == head
        ]
        concepts = sorted((r for r in here if r.kind == "concept"), key=lambda r: (-r.estimate, r.detector))
        best = [r.detector for r in concepts[:1]] + [best_baseline(first_seed(results.rows), suite)]
        present = {r.detector for r in here}
        names = [n for n in dict.fromkeys([results.main, *best, *named_baselines(results)]) if n in present]
        shown = [a for a in arms if a.family == head.family and (dial or a.negatives == "all")]
        parts += [_caption(results, suite), _areas(results, suite, names, shown)]
    last = "Bold: the score that was named beforehand. The best of each kind is chosen after the fact."
    return "\n\n".join([*parts, last, made(results)])


def verdict(results: Results) -> str:
    """The sentences of the report, whichever way they went."""
    lines = [f"* {TONES[v.tone]}{v.text}" for v in verdicts(results)]
    return "\n".join(lines)


def detectors(results: Results) -> str:
    """Every detector and baseline with its plain pooling, and the main score."""
    parts: list[str] = []
    for suite in _suites(results):
        arms = [a for a in arms_of(results.rows, suite) if a.family == "all" or is_dial(arms_of(results.rows, suite))]
        here = [r for r in first_seed(results.rows) if r.suite == suite and r.metric == "auroc"]
        names = [n for n in dict.fromkeys(r.detector for r in here) if "." not in n or n == results.main]
        parts += [_caption(results, suite), _areas(results, suite, names, arms)]
    return "\n\n".join([*parts, made(results)])


def seeds(results: Results) -> str:
    """Differences of the main score to the baselines over the SAE seeds."""
    lines = [
        [
            f"`{row.suite}`",
            row.family if row.dose in (0.0, 1.0) else f"{100 * row.dose:g} %",
            row.negatives,
            row.against if row.against == "best baseline" else f"`{row.against}`",
            str(row.seeds),
            f"{row.mean:+.3f}",
            f"{row.least:+.3f} to {row.greatest:+.3f}",
            "yes" if row.every_interval_above_zero else "no",
        ]
        for row in results.seeds
        if row.metric == "auroc_difference" and row.selection == "main"
    ]
    head = ["suite", "dose or family", "negatives", "against", "seeds", "mean", "range", "every interval above zero"]
    return "\n\n".join([f"AUROC of `{results.main}` minus that of a baseline:", _table(head, lines), made(results)])


def false_alarms(results: Results) -> str:
    """Realised false alarms on clean test text."""
    lines = [
        [
            row.group,
            f"{row.alpha:g}",
            f"{row.realised:.3f}",
            f"{row.low:.3f} to {row.high:.3f}",
            "yes" if row.inside else "no",
            str(row.n_test),
            str(row.n_calibration),
        ]
        for row in results.false_alarms
    ]
    head = ["group", "rate asked for", "realised", "should lie in", "does", "test prompts", "calibration prompts"]
    return "\n\n".join([_table(head, lines), made(results)])


def printed(reading: dict[str, Any]) -> str:
    """What the terminal shows of two sentences."""
    command = f"$ {reading['command']}"
    return f"```text\n{command}\n{reading['printed'].rstrip()}\n```"


def speeds(measured: dict[str, Any]) -> str:
    """The rows of a benchmark."""
    fixed = ("metric", "arm", "against", "estimate", "low", "high", "n", "seed", "method")
    about = [key for key in measured["rows"][0] if key not in fixed]
    lines = [
        [str(row[key]) for key in about]
        + [
            row["metric"],
            row["arm"],
            row["against"],
            f"{row['estimate']:.4g}",
            f"{row['low']:.4g} to {row['high']:.4g}",
        ]
        + [str(row["n"])]
        for row in measured["rows"]
    ]
    head = [*about, "metric", "arm", "against", "estimate", "quartiles", "turns"]
    machine = measured["hardware"]
    where = f"{machine['processor']}, {machine['threads']} threads, torch {machine['torch']}"
    source = f"`{measured['command']}`, perimetry {measured['version']}, {where}, {measured['date'][:10]}."
    return "\n\n".join([_table(head, lines), source])


def _of_results(view: Callable[[Results], str]) -> Callable[[dict[str, Any]], str]:
    return lambda whole: view(parse_results(whole))


VIEWS: dict[str, Callable[[dict[str, Any]], str]] = {
    "detectors": _of_results(detectors),
    "false-alarms": _of_results(false_alarms),
    "printed": printed,
    "seeds": _of_results(seeds),
    "short": _of_results(short),
    "speeds": speeds,
    "verdicts": _of_results(verdict),
    **COMPARED,
    **AGREEMENT,
    **GALLERY,
    **MASKED,
    **MEASURED,
    **PERFORMANCE,
    **SCEPTIC,
    **TRUTHS,
    **TUNINGS,
}
"""View -> Markdown of a result file."""


def block(name: str, view: str, folder: Path = FOLDER) -> str:
    """What stands between the marks. Errors: `KeyError` for a view that there is not."""
    make = VIEWS[view]
    file = folder / f"{name}.json"
    if not file.is_file():
        return f"*No result is committed yet: `docs/results/{name}.json` is absent.*"
    return make(read_json(file))


def fill(text: str, folder: Path = FOLDER) -> str:
    """A page with its blocks as the result files have them now."""
    return MARKED.sub(lambda m: f"{m[1]}\n{block(m[2], m[3], folder)}\n\n{m[4]}", text)


def pages() -> list[Path]:
    """Pages that have a block."""
    found = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    return [page for page in found if MARKED.search(page.read_text(encoding="utf-8"))]


def drawings(folder: Path = FOLDER) -> dict[Path, str]:
    """The figures as the result files have them now: file -> SVG."""
    found: dict[Path, str] = {}
    if (file := folder / f"{BENCH}.json").is_file():
        results = parse_results(read_json(file))
        found |= {DRAWN / f"{suite}.svg": dose_curves(results, suite) for suite in FIGURES}
    for name, charts in (("masking", masked_charts), ("robustness", robustness_charts), ("truth", truth_charts)):
        if (file := folder / f"{name}.json").is_file():
            found |= {DRAWN / f"{chart}.svg": text for chart, text in charts(read_json(file)).items()}
    for file in sorted(folder.glob("lab-*.json")):
        found |= {DRAWN / f"{chart}.svg": text for chart, text in lab_charts(read_json(file)).items()}
    return found


def take(source: Path, name: str) -> Path:
    """Copy the flat part of a results file to docs/results/NAME.json; the rows of a run of controls are its controls.

    Of a study the rows of the validation texts stay out, their means stand in `cells`.
    """
    whole = read_results(source)
    if whole.get("kind") in CHECKED:
        whole = CHECKED[whole["kind"]](whole)
    else:
        parse_results(whole)
    if name == BENCH:
        whole |= {"rows": kept_rows(whole["rows"], whole["main"]), "seeds": kept_seeds(whole["seeds"], whole["main"])}
    if not whole["rows"] and whole.get("controls"):
        whole["rows"] = whole["controls"]
    target = FOLDER / f"{name}.json"
    write_json(target, {key: whole[key] for key in FLAT if key in whole}, indent=0)
    return target


def read(meter: Path) -> Path:
    """Read two sentences with a meter, to docs/results/reading.json."""
    from rich.console import Console

    from perimetry.cli.show import show_reading
    from perimetry.shift.loading import load_meter

    console = Console(file=io.StringIO(), width=100, record=True)
    readings = load_meter(meter).score(SENTENCES)
    for reading, text in zip(readings, SENTENCES, strict=True):
        show_reading(reading, text, console)
    lines = (line.rstrip() for line in console.export_text().splitlines())
    quoted = " ".join(f'"{text}"' for text in SENTENCES)
    value = {
        "command": f"perimetry score {meter} {quoted}",
        "version": perimetry.__version__,
        "hardware": fingerprint(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "rows": [r.to_json() | {"text": text} for r, text in zip(readings, SENTENCES, strict=True)],
        "printed": "\n".join(lines),
    }
    target = FOLDER / "reading.json"
    write_json(target, value, indent=1)
    return target


def main() -> int:
    """Fill the pages, or say whether they are up to date."""
    arguments = sys.argv[1:]
    if arguments[:1] == ["--take"]:
        take(Path(arguments[1]), arguments[2])
    if arguments[:1] == ["--read"]:
        read(Path(arguments[1]))
    wanted = {page: fill(page.read_text(encoding="utf-8")) for page in pages()} | drawings()
    stale = {
        file: text for file, text in wanted.items() if not file.is_file() or file.read_text(encoding="utf-8") != text
    }
    if "--check" in arguments:
        return int(bool(stale))
    for file, text in stale.items():
        file.parent.mkdir(exist_ok=True)
        write_bytes(file, text.encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
