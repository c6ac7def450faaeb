"""The headline: what the rows say, in sentences, whichever way it went."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from perimetry.report.markup import Html, join, number, tag
from perimetry.report.picking import Arm, arms_of, dose_name, first_seed, headline_arm, is_apart, is_dial
from perimetry.report.schema import FalseAlarmRow, ResultRow, Results, SeedRow

__all__ = ["Verdict", "verdict_list", "verdicts"]


Tone = Literal["good", "bad", "open", "plain", "note"]


class Verdict(NamedTuple):
    """One sentence."""

    tone: Tone
    """`good`: the claim is borne out; `bad`: the opposite is; `open`: undecided; `plain`: a headline; `note`: a remark."""
    text: str
    """The sentence."""


def verdict_list(found: Sequence[Verdict], note: str) -> Html:
    """The sentences, each in its tone, and beneath them what they rest on."""
    items = [tag("li", verdict.text, class_=verdict.tone) for verdict in found]
    return join([tag("ul", *items, class_="verdicts") if items else None, tag("p", note, class_="muted")])


def verdicts(results: Results) -> list[Verdict]:
    """For every suite the main score, its differences to the baselines, its doses and seeds; then the false alarms."""
    rows = first_seed(results.rows)
    found: list[Verdict] = []
    for suite in dict.fromkeys(row.suite for row in rows):
        if is_apart(results, suite):
            found += _harmless(suite, rows, results.main)
            continue
        arms = arms_of(rows, suite)
        arm = headline_arm(arms)
        own = [row for row in rows if row.suite == suite]
        here = [row for row in own if Arm(row.family, row.dose, row.negatives) == arm]
        seeds = [row for row in results.seeds if row.suite == suite and Arm(row.family, row.dose, row.negatives) == arm]
        place = f"{suite}, {dose_name(arm.dose)}" if is_dial(arms) else suite
        found += _main(place, here, results.main)
        found += [_difference(place, row, seeds) for row in here if _is_claim(row, results.main)]
        found += _doses(suite, own, results.main)
        found += _added(place, here, results.main)
    return found + _false_alarms(results.false_alarms)


def _harmless(suite: str, rows: Sequence[ResultRow], main: str) -> list[Verdict]:
    """A remark: whether an alarm on such texts is wanted depends on what the meter is for."""
    return [
        Verdict(
            "note",
            f"{suite}: {number(row.estimate)} of the {row.n_shifted} novel, harmless texts raise an alarm of {row.detector} "
            f"at 5 % ({_box(row)}); for a detector of attacks these are false alarms.",
        )
        for row in rows
        if (row.suite, row.family, row.metric, row.detector) == (suite, "all", "alarm_rate_at_5", main)
    ]


def _added(place: str, rows: Sequence[ResultRow], main: str) -> list[Verdict]:
    found: list[Verdict] = []
    for row in rows:
        if row.metric == "added_log_loss" and row.detector == main:
            tone = "good" if row.low > 0 else "bad" if row.high < 0 else "open"
            said = {"good": "adds", "bad": "takes away", "open": "may or may not add"}[tone]
            text = f"{place}: beside the baselines {main} {said} information ({number(row.estimate)} nats a text, {_box(row)})."
            found.append(Verdict(tone, text))
    return found


def _is_claim(row: ResultRow, main: str) -> bool:
    return row.metric == "auroc_difference" and row.selection == "main" and row.detector == main


def _box(row: ResultRow) -> str:
    return f"interval {number(row.low)} to {number(row.high)}"


def _main(place: str, rows: Sequence[ResultRow], main: str) -> list[Verdict]:
    areas = [row for row in rows if row.metric == "auroc"]
    found = [
        Verdict(
            "plain",
            f"{place}: the main score {main} reaches AUROC {number(row.estimate)} ({_box(row)}, {row.n_pairs} pairs).",
        )
        for row in areas
        if row.detector == main
    ]
    concepts = [row for row in areas if row.kind == "concept"]
    best = min(concepts, key=lambda row: (-row.estimate, row.detector), default=None)
    if best is not None and best.detector != main:
        text = f"{place}: the best concept score after the fact is {best.detector}, AUROC {number(best.estimate)} ({_box(best)})."
        found.append(Verdict("note", text))
    return found


def _difference(place: str, row: ResultRow, seeds: Sequence[SeedRow]) -> Verdict:
    name = f"the best baseline, {row.against}," if row.best_baseline else f"the baseline {row.against}"
    if row.low > 0:
        tone, text = "good", f"{row.detector} beats {name} by {number(row.estimate)} AUROC ({_box(row)})"
    elif row.high < 0:
        tone, text = "bad", f"{row.detector} loses to {name} by {number(-row.estimate)} AUROC (difference: {_box(row)})"
    else:
        tone, text = (
            "open",
            f"{row.detector} minus {name} is {number(row.estimate)} AUROC, {_box(row)}, which includes zero",
        )
    many = next((s for s in seeds if _same_claim(s, row)), None)
    if many is None:
        return Verdict(tone, f"{place}: {text}.")
    every = "every interval above zero" if many.every_interval_above_zero else "not every interval above zero"
    if tone == "good" and not many.every_interval_above_zero:
        tone = "open"
    spread = f"{many.seeds} SAE seeds: mean {number(many.mean)}, least {number(many.least)}, {every}"
    return Verdict(tone, f"{place}: {text}; {spread}.")


def _same_claim(many: SeedRow, row: ResultRow) -> bool:
    against = "best baseline" if row.best_baseline else row.against
    return many.seeds > 1 and (many.metric, many.selection, many.against) == (row.metric, row.selection, against)


def _doses(suite: str, rows: Sequence[ResultRow], main: str) -> list[Verdict]:
    steps = [row for row in rows if row.metric == "rising_steps" and row.detector == main]
    if not steps:
        return []
    flat = [row.family for row in steps if row.estimate < 1]
    if flat:
        return [Verdict("bad", f"{suite}: the mean of {main} does not rise with every dose for {', '.join(flat)}.")]
    kinds = "" if len(steps) == 1 else f", for all {len(steps)} kinds of shift"
    return [Verdict("good", f"{suite}: the mean of {main} rises with every dose{kinds}.")]


def _false_alarms(rows: Sequence[FalseAlarmRow]) -> list[Verdict]:
    if not rows:
        return []
    outside = [row for row in rows if not row.inside]
    if not outside:
        text = (
            f"False alarms on clean test text lie inside their intervals in all {len(rows)} checks of group and rate."
        )
        return [Verdict("good", text)]
    named = ", ".join(f"{r.group} at {r.alpha:g} ({number(r.realised)})" for r in outside)
    text = (
        f"False alarms on clean test text lie outside their intervals in {len(outside)} of {len(rows)} checks: {named}."
    )
    return [Verdict("bad", text)]
