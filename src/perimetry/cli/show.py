"""A reading as a person would like to see it in a terminal."""

import unicodedata
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from perimetry.measures.stats import Interval
from perimetry.shift.drift import WindowDrift
from perimetry.shift.reading import Reading

__all__ = ["heat_text", "show_drift", "show_reading", "visible"]

SHADES = ("#440154", "#3b528b", "#21918c", "#5ec962", "#fde725")
"""Viridis, dark to bright: readable without colour sight, since brightness alone carries the order."""


def visible(text: str) -> str:
    """A prompt may hold terminal commands: control characters other than line ends and tabs become the replacement sign.

    >>> visible("a\x1b[31mb")
    'a�[31mb'
    """
    shown = ("\n", "\t")
    return "".join(c if c in shown or unicodedata.category(c) not in ("Cc", "Cs") else "\ufffd" for c in text)


def heat_text(reading: Reading) -> Text:
    """The tokens of a prompt, the hottest ones brightest; scores below the prompt's median stay plain."""
    scores = sorted(t.score for t in reading.tokens)
    out = Text()
    for token in reading.tokens:
        rank = sum(s < token.score for s in scores) / max(1, len(scores) - 1)
        style = ""
        if rank >= 0.6:
            shade = SHADES[min(len(SHADES) - 1, int((rank - 0.6) / 0.4 * len(SHADES)))]
            style = f"{'black' if rank > 0.8 else 'white'} on {shade}"
        out.append(visible(token.text), style=style)
    return out


def show_reading(reading: Reading, text: str, console: Console | None = None) -> None:
    """Print score, p-value, hottest tokens and the concepts that speak for the score."""
    console = console or Console()
    verdict = "[bold red]outside[/]" if reading.flagged else "[green]inside[/]"
    share = f"{reading.p_value:.3g}"
    console.print(
        f"\n[bold]{escape(visible(reading.id))}[/]  {verdict} at alpha {reading.alpha:g}   score [bold]{reading.score:.4g}[/] "
        f"({reading.detector})   p [bold]{share}[/]"
    )
    console.print(
        f"  clean prompts of {reading.group} score as high in {100 * reading.p_value:.3g} % of cases"
        + ("  [yellow](too few of this length: pooled calibration)[/]" if reading.fallback else "")
        + f"; {reading.tokens_scored} tokens scored, {reading.tokens_excluded} excluded"
        + ("  [yellow](cut to the context)[/]" if reading.truncated else "")
    )
    for name, tap in (reading.taps or {}).items():
        mark = "  [bold]<[/] tokens and concepts below" if name == reading.tap else ""
        console.print(f"  {escape(name)}: score {tap.score:.4g}, p {tap.p_value:.3g}{mark}")
    console.print(heat_text(reading) if reading.tokens else Text(visible(text)))
    if reading.concepts:
        table = Table(title="concepts that speak for the score", title_justify="left", expand=False)
        for heading in ("concept", "at token", "activation", "clean rate", "usually fires in"):
            table.add_column(heading, justify="left" if heading in ("at token", "usually fires in") else "right")
        for concept in reading.concepts:
            context = Text(
                visible(concept.contexts[0]) if concept.contexts else "(never on clean text)", overflow="ellipsis"
            )
            table.add_row(
                str(concept.latent),
                Text(repr(concept.token)[1:-1]),
                f"{concept.activation:.3g}",
                f"{100 * concept.clean_rate:.3g} %",
                context,
            )
        console.print(table)
    if reading.hot:
        console.print(_hot_table(reading))
    others = {k: v for k, v in reading.scores.items() if k != reading.detector}
    if others:
        console.print("  " + "  ".join(f"{name} {value:.4g}" for name, value in sorted(others.items())))


def _hot_table(reading: Reading) -> Table:
    """The hottest tokens, what fired there without support, and what the nearest clean tokens fire."""
    table = Table(title="hottest tokens and their nearest clean tokens", title_justify="left", expand=False)
    for heading in ("at token", "score", "fires", "where clean ones fire"):
        table.add_column(heading, justify="right" if heading == "score" else "left")
    for token in reading.hot:
        fired = [(f"{c.latent}{'' if c.supported else ' (unsupported)'}", c.contexts) for c in token.fired[:2]]
        instead = [(f"{c.latent} ({100 * c.share:.0f} %)", c.contexts) for c in token.instead[:2]]
        table.add_row(Text(repr(token.token)[1:-1]), f"{token.score:.3g}", _named(fired), _named(instead))
    return table


def _named(concepts: Sequence[tuple[str, Sequence[str]]]) -> Text:
    """A line a concept, with the clean passage in which it fires hardest."""
    lines = [f"{name} {visible(contexts[0]) if contexts else '(never on clean text)'}" for name, contexts in concepts]
    return Text("\n".join(lines) or "-", overflow="ellipsis")


def _interval(found: Interval) -> str:
    return f"{found.estimate:+.2f} [{found.low:+.2f}, {found.high:+.2f}]"


def show_drift(windows: Sequence[WindowDrift], budget: float, console: Console | None = None) -> None:
    """Print a row a window, then the size of the difference in each score over the window that drifted most."""
    console = console or Console()
    table = Table(
        title="windows of readings against clean prompts", title_justify="left", box=box.SIMPLE, padding=(0, 1)
    )
    for heading in ("window", "n", "score", "p-value", "scores", "alarms", "found", "p x 4"):
        table.add_column(heading, justify="right")
    table.add_column("", no_wrap=True)
    for w in windows:
        verdict = Text("drift", style="bold red") if w.drifted else Text("clean", style="green")
        tests = [f"{t.p_value:.2g}" for t in w.tests]
        counts = f"{w.alarms.realised}/{w.alarms.expected:.1f}"
        table.add_row(str(w.number), str(w.prompts), *tests, counts, f"{w.p_value:.2g}", verdict)
    console.print(table)
    worst = min(windows, key=lambda w: w.p_value)
    rate = worst.alarms.interval
    console.print(
        "n: prompts; p-values of four tests; found: alarms of single prompts over those expected\n"
        f"drift is said at p x 4 <= {worst.level:.2g}: {budget:g} over {len(windows)} window(s); "
        f"alarms in window {worst.number}: {100 * rate.estimate:.3g} % [{100 * rate.low:.3g}, {100 * rate.high:.3g}] at "
        f"alpha {worst.alarms.alpha:g}"
    )
    sizes = Table(title=f"size of the difference in window {worst.number} (95 % intervals)", title_justify="left")
    for heading in ("score", "Cliff's delta", "Hedges' g"):
        sizes.add_column(heading, justify="left" if heading == "score" else "right")
    for effect in worst.effects:
        sizes.add_row(effect.score, _interval(effect.cliff), _interval(effect.hedges))
    console.print(sizes)
    if left := sum(w.repeats for w in windows):
        console.print(f"{left} reading(s) with an id that had come before were left out: one prompt counts once")
