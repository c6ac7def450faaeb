"""Views of the benchmarks' result files for performance.md; make_results.py puts them between the marks."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

__all__ = ["VIEWS"]

Row = dict[str, Any]
SIZE = ("batch", "d_model", "width", "k")
PRODUCT = "gemm_bfloat16"
NAMES = {
    "perimetry": "perimetry",
    "perimetry_dense": "perimetry, dense autograd (float32)",
    "gemm_float32": "*the encoder's product alone, float32*",
    "gemm_bfloat16": "*the encoder's product alone, bfloat16*",
    "saelens": "SAELens",
    "saelens_fused": "SAELens, fused Adam",
    "saelens_sparse": "SAELens, sparse activations",
    "saelens_autocast": "SAELens, autocast",
    "saelens_autocast_fused": "SAELens, autocast, fused Adam",
    "sparsify": "sparsify",
    "sparsify_fused": "sparsify, fused Adam",
    "sparsify_autocast": "sparsify, bfloat16 autocast",
    "sparsify_autocast_fused": "sparsify, bfloat16 autocast, fused Adam",
    "dictionary_learning": "dictionary_learning",
    "dictionary_learning_fused": "dictionary_learning, fused Adam",
}
"""Arm -> how a reader calls it."""
TARGETS = (
    ("saelens", "step of SAELens, as it is by default, over that of perimetry", 20.0),
    ("saelens_autocast", "step of SAELens with autocast over that of perimetry", 12.0),
    ("sparsify_autocast", "step of sparsify with bfloat16 autocast over that of perimetry", 3.0),
)
SHARE = 0.6
MEMORY = 1.25


def table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *lines))


def source(measured: dict[str, Any]) -> str:
    """What made the numbers, in a line."""
    machine = measured["hardware"]
    libraries = ", ".join(f"{name} {version}" for name, version in measured.get("libraries", {}).items())
    parts = [
        f"`{measured['command']}`",
        f"perimetry {measured['version']}",
        libraries,
        str(machine.get("processor", "")),
        f"{machine.get('cores', '?')} cores, {machine.get('threads', '?')} threads",
        f"torch {machine['torch']}" if "torch" in machine else "",
        f"activations: {' and '.join(measured['data'])}" if isinstance(measured.get("data"), list) else "",
        measured["date"][:10],
    ]
    return ", ".join(part for part in parts if part) + "."


def size_of(row: Row) -> tuple[int, ...]:
    """Batch, width of the model, width of the dictionary, k."""
    return tuple(row[name] for name in SIZE)


def pick(measured: dict[str, Any], section: str, metric: str, **wanted: Any) -> list[Row]:
    """Rows of a section."""
    rows = [r for r in measured["rows"] if r.get("section") == section and r["metric"] == metric]
    return [r for r in rows if all(r.get(name) == value for name, value in wanted.items())]


def count(value: float) -> str:
    """A speed, to three digits."""
    return f"{float(f'{value:.3g}'):,.0f}"


def spread(row: Row, form: str = ".2f") -> str:
    """A middle with its quartiles."""
    return f"{row['estimate']:{form}} ({row['low']:{form}} to {row['high']:{form}})"


def share(row: Row | None) -> str:
    """Speed as a share of the product's, of a row with the ratio of times."""
    if row is None:
        return ""
    return f"{100 / row['estimate']:.0f} % ({100 / row['high']:.0f} to {100 / row['low']:.0f})"


def ratio_of(rows: Sequence[Row], arm: str) -> Row | None:
    """The row with an arm's ratio of times, of the first group that it ran in."""
    return next((r for r in rows if r["arm"] == arm), None)


def skipped(measured: dict[str, Any], section: str) -> str:
    """What was left out, and why."""
    lines = [
        f"* {NAMES.get(s['arm'], s['arm'])}, {s['architecture']}, batch {s['batch']}, d {s['d_model']}, width {s['width']}: {s['reason']}"
        for s in measured.get("skipped", [])
        if s["section"] == section
    ]
    return "\n".join(["Left out:", "", *lines]) if lines else ""


def headline(measured: dict[str, Any]) -> str:
    """Every arm at the first size."""
    rows = pick(measured, "speed", "tokens_per_s")
    first = [r for r in rows if size_of(r) == size_of(rows[0])]
    ratios = pick(measured, "speed", "time_ratio", **dict(zip(SIZE, size_of(rows[0]), strict=True)))
    seen: dict[str, Row] = {}
    for row in first:
        seen.setdefault(row["arm"], row)
    lines: list[list[str]] = []
    for arm, row in seen.items():
        ratio = ratio_of([r for r in ratios if r["against"] == "perimetry"], arm)
        speed = f"{count(row['estimate'])} ({count(row['low'])} to {count(row['high'])})"
        lines.append([NAMES[arm], speed, spread(ratio) if ratio else "", str(row["n"])])
    batch, d, width, k = size_of(rows[0])
    caption = f"TopK, batch {batch}, d {d}, width {width}, k {k}; the middle of the turns, quartiles in brackets:"
    head = ["", "tokens a second", "time of its step over that of perimetry's", "turns"]
    return "\n\n".join(x for x in (caption, table(head, lines), skipped(measured, "speed"), source(measured)) if x)


def targets(measured: dict[str, Any]) -> str:
    """What was aimed at, and what was reached."""
    rows = pick(measured, "speed", "tokens_per_s")
    where = dict(zip(SIZE, size_of(rows[0]), strict=True))
    ratios = pick(measured, "speed", "time_ratio", **where)
    lines: list[list[str]] = []
    for arm, what, wanted in TARGETS:
        row = ratio_of([r for r in ratios if r["against"] == "perimetry"], arm)
        if row is not None:
            lines.append([what, f"at least {wanted:g}", spread(row), "yes" if row["estimate"] >= wanted else "no"])
    product = next((r for r in ratios if r["arm"] == "perimetry"), None)
    if product is not None:
        met = "yes" if 1 / product["estimate"] >= SHARE else "no"
        lines.append(["speed over that of the encoder's product", f"at least {100 * SHARE:.0f} %", share(product), met])
    peak = pick(measured, "memory", "peak_ratio", arm="perimetry", architecture="topk")
    if peak:
        met = "yes" if peak[0]["estimate"] <= MEMORY else "no"
        what = "peak memory of a step over parameters, Adam's moments and the batch"
        lines.append([what, f"at most {MEMORY:g}", f"{peak[0]['estimate']:.2f}", met])
    return table(["at the first size", "wanted", "reached", "met"], lines)


def sizes(measured: dict[str, Any]) -> str:
    """perimetry at every size, and how much longer the others take."""
    rows = pick(measured, "speed", "tokens_per_s", arm="perimetry")
    ratios = pick(measured, "speed", "time_ratio")
    shown = [arm for arm in NAMES if any(r["arm"] == arm and size_of(r) != size_of(rows[0]) for r in ratios)]
    others = [arm for arm in shown if arm != "perimetry"]
    lines: list[list[str]] = []
    for size in dict.fromkeys(size_of(r) for r in rows):
        here = [r for r in ratios if size_of(r) == size]
        speed = next(r for r in rows if size_of(r) == size)
        product = next((r for r in here if r["arm"] == "perimetry"), None)
        found = [ratio_of([r for r in here if r["against"] == "perimetry"], arm) for arm in others]
        cells = [f"{r['estimate']:.1f}" if r else "" for r in found]
        lines.append([*map(str, size), count(speed["estimate"]), share(product), *cells])
    head = ["batch", "d", "width", "k", "perimetry, tokens a second", "of the product", *(NAMES[arm] for arm in others)]
    caption = (
        "Time of a step over that of perimetry's; `of the product` is perimetry's speed over the encoder's product's:"
    )
    return "\n\n".join([caption, table(head, lines), source(measured)])


def architectures(measured: dict[str, Any]) -> str:
    """Every architecture of perimetry."""
    rows = pick(measured, "architectures", "tokens_per_s", arm="perimetry")
    lines: list[list[str]] = []
    for row in rows:
        here = pick(measured, "architectures", "time_ratio", architecture=row["architecture"])
        product, dense = ratio_of(here, "perimetry"), ratio_of(here, "perimetry_dense")
        peak = pick(measured, "memory", "peak_ratio", arm="perimetry", architecture=row["architecture"])
        memory = f"{peak[0]['estimate']:.2f}" if peak else ""
        speed = f"{count(row['estimate'])} ({count(row['low'])} to {count(row['high'])})"
        lines.append(
            [
                f"`{row['architecture']}`",
                speed,
                share(product),
                spread(dense, ".1f") if dense else "",
                f"{row['l0']:g}",
                memory,
            ]
        )
    head = ["", "tokens a second", "of the product", "dense autograd over it", "L0", "peak memory"]
    return "\n\n".join(x for x in (table(head, lines), skipped(measured, "architectures"), source(measured)) if x)


def memory(measured: dict[str, Any]) -> str:
    """Peak of a step, for the TopK of each library."""
    rows = pick(measured, "memory", "peak_bytes", architecture="topk")
    lines: list[list[str]] = []
    for row in rows:
        ratio = next(r for r in pick(measured, "memory", "peak_ratio", architecture="topk") if r["arm"] == row["arm"])
        sizes = [row["estimate"], row["parameter_bytes"], row["batch_bytes"]]
        lines.append([NAMES[row["arm"]], *(f"{size / 2**20:.0f}" for size in sizes), f"{ratio['estimate']:.2f}"])
    batch, d, width, k = size_of(rows[0])
    head = ["", "peak, MiB", "parameters, MiB", "batch, MiB", "peak over parameters, two moments and batch"]
    caption = f"TopK, batch {batch}, d {d}, width {width}, k {k}; {rows[0]['method']}:"
    return "\n\n".join(x for x in (caption, table(head, lines), skipped(measured, "memory"), source(measured)) if x)


def training(measured: dict[str, Any]) -> str:
    """Whole short trainings: speed, last error, and seconds to errors."""
    rates = pick(measured, "training", "training_tokens_per_s")
    goals = sorted({r["target"] for r in pick(measured, "training", "seconds_to_fvu")}, reverse=True)
    lines: list[list[str]] = []
    for rate in rates:
        arm = rate["arm"]
        curve = pick(measured, "training", "fvu", arm=arm)
        ends = [r["estimate"] for r in curve if r["step"] == rate["steps"]]
        reached = {r["target"]: r for r in pick(measured, "training", "seconds_to_fvu", arm=arm)}
        last = " / ".join(f"{end:.4f}" for end in ends)
        cells = [f"{reached[goal]['estimate']:.1f}" if goal in reached else "" for goal in goals]
        lines.append([NAMES[arm], f"{rate['lr_factor']:g}", count(rate["estimate"]), last, *cells])
    batch, d, width, k = size_of(rates[0])
    caption = (
        f"TopK, {rates[0]['steps']} steps, batch {batch}, d {d}, width {width}, k {k}. Rate: multiple of the rule. Last FVU: on rows that were held out, "
        "one number a seed. Then seconds of stepping to each FVU; empty where it was passed before the first look or never:"
    )
    head = ["", "rate", "tokens a second", "last FVU", *(f"FVU {goal:g}, s" for goal in goals)]
    return "\n\n".join(x for x in (caption, table(head, lines), skipped(measured, "training"), source(measured)) if x)


def harvest(measured: dict[str, Any]) -> str:
    """Speed of reading activations."""
    names = {
        "truncated pass": "*the forward pass up to the block alone*",
        "harvest": "perimetry, harvest to the disk",
        "saelens": "SAELens, `ActivationsStore`, kept nowhere",
    }
    speeds = [r for r in measured["rows"] if r["metric"] == "tokens_per_s"]
    ratios = {r["arm"]: r for r in measured["rows"] if r["metric"] == "time_ratio"}
    lines: list[list[str]] = []
    for row in speeds:
        ratio = ratios.get(row["arm"])
        text = f"{spread(ratio)} of {names[ratio['against']].strip('*')}" if ratio else ""
        lines.append(
            [names[row["arm"]], f"{count(row['estimate'])} ({count(row['low'])} to {count(row['high'])})", text]
        )
    one = speeds[0]
    caption = (
        f"{one['model']}, after block {one['layer']}, rows of {one['context']} tokens, {one['tokens']} tokens a turn:"
    )
    return "\n\n".join([caption, table(["", "tokens a second", "time a token"], lines), source(measured)])


def scoring(measured: dict[str, Any]) -> str:
    """What a reading costs beyond the forward pass."""
    names = {
        "truncated pass": "*tokenising, and the forward pass up to the tapped block*",
        "surprise": "one score of the tap, with its p-value (`--main surprise`)",
        "concepts": "every concept score of the tap, in every pooling",
        "explained": "`surprise` with its concepts and their clean contexts",
        "full pass": "*the whole model, to its logits*",
        "main": "the default score, which reads the last hidden state",
        "all": "every detector and baseline",
    }
    rows = {(r["metric"], r["arm"]): r for r in measured["rows"]}
    lines: list[list[str]] = []
    for arm, name in names.items():
        speed, times = rows["tokens_per_s", arm], rows.get(("time_ratio", arm))
        lines.append([name, count(speed["estimate"]), spread(times) if times else "1"])
    one = measured["rows"][0]
    caption = f"{one['model']}, after block {one['layer']}, width {one['width']:,}, {one['prompts']} prompts of {one['tokens']:,} tokens:"
    head = ["", "tokens a second", "time, over the pass up to the block"]
    return "\n\n".join([caption, table(head, lines), source(measured)])


def saebench(measured: dict[str, Any]) -> str:
    """What SAEBench said."""
    lines = [
        [f"`{r['metric']}`", f"{r['estimate']:.4g}", f"{r['low']:.4g} to {r['high']:.4g}", str(r["n"])]
        for r in measured["rows"]
        if not r["metric"].startswith("token_stats")
    ]
    sae = measured["sae"]
    about = f"{sae['architecture']} of width {sae['d_sae']} at `{sae['hook_name']}` of {sae['model_name']}, {sae['training_tokens']:,} tokens:"
    head = ["metric", "mean over parts of the text", "least to greatest", "parts"]
    return "\n\n".join([about, table(head, lines), source(measured)])


def kills(measured: dict[str, Any]) -> str:
    """What became of trainings that were killed, by where the kills hit."""
    rows = {r["arm"]: r for r in measured["rows"]}
    phases = [name for name in rows if name in measured["phases"]]
    lines = [
        [
            name,
            str(row["n"]),
            str(row["n_trainings"]),
            f"{round(row['estimate'] * row['n'])}",
            f"{100 * row['low']:.0f} %",
        ]
        for name, row in ((name, rows[name]) for name in [*phases, "all"])
    ]
    names = ", ".join(f"`{name}`" for name in measured["uninterrupted_s"])
    head = ["signal 9 came", "kills", "trainings", "ended with the same bytes", f"at least, {rows['all']['method']}"]
    verdict = "None ended otherwise." if not measured["unequal"] else f"{measured['unequal']} ended otherwise."
    return "\n\n".join([f"Trainings: {names}. {verdict}", table(head, lines), source(measured)])


def service(measured: dict[str, Any]) -> str:
    """What the service costs beside direct scoring."""
    rows = {(r["metric"], r["arm"]): r for r in measured["rows"]}
    names = {
        "direct": "*directly*",
        "batches": "requests of 32 prompts, two at a time",
        "single": "requests of one prompt, 32 at a time",
    }
    lines = [
        [name, spread(rows["prompts_per_s", arm]), spread(rows["throughput_ratio", arm]) if arm != "direct" else "1"]
        for arm, name in names.items()
    ]
    one, added = rows["throughput_ratio", "batches"], rows["latency_ms", "added"]
    caption = f"{one['model']}, {one['prompts']} prompts; largest difference of a score from the direct one: {one['difference']:.2g} of their range."
    alone = (
        f"Alone, a prompt takes {spread(rows['latency_ms', 'direct'], '.0f')} ms directly. Over HTTP it takes {spread(added, '.1f')} ms more "
        f"({added['method']}, {added['n']} pairs)."
    )
    memory = f"The process that listens takes {rows['resident_mb', 'service']['estimate']:.0f} MB beside the worker."
    head = ["", "prompts a second", "share of direct scoring"]
    return "\n\n".join([caption, table(head, lines), f"{alone} {memory}", source(measured)])


VIEWS: dict[str, Callable[[dict[str, Any]], str]] = {
    "architectures": architectures,
    "harvest": harvest,
    "scoring": scoring,
    "headline": headline,
    "kills": kills,
    "memory": memory,
    "saebench": saebench,
    "service": service,
    "sizes": sizes,
    "targets": targets,
    "training": training,
}
"""View -> Markdown of a benchmark's results."""
