"""Figures as inline SVG: lines with interval bands, clouds of points, and histograms. Colours come from the style sheet of the page.

Every series has a colour, a dash and a marker of its own, so that none is told by colour alone, and its name stands at
its end. Exact values are in the tooltips of the markers and in the tables of the page.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from perimetry.report.markup import Html, join, number, tag

__all__ = ["Axis", "Dot", "Series", "dot_chart", "histogram", "line_chart", "scatter", "spread_labels"]

WIDTH, HEIGHT = 560.0, 300.0
LEFT, RIGHT, TOP, BOTTOM = 46.0, 150.0, 30.0, 40.0
LINE = 15.0
DASHES = ("none", "6 3", "2 3", "9 3 2 3", "12 4", "1 4")


class Series(NamedTuple):
    """One line."""

    name: str
    """Stands at its end."""
    xs: tuple[float, ...]
    """Positions, rising."""
    ys: tuple[float, ...]
    """Values."""
    lows: tuple[float, ...] = ()
    """Lower ends of the intervals, or nothing."""
    highs: tuple[float, ...] = ()
    """Upper ends of the intervals, or nothing."""
    slot: int = 0
    """Which colour, dash and marker; the same detector keeps its slot through the page."""


class Dot(NamedTuple):
    """One number with its interval."""

    name: str
    """Stands beside it."""
    value: float
    """The number."""
    low: float
    """Lower end of its interval."""
    high: float
    """Upper end."""
    slot: int = 0
    """Which colour and marker."""


class Axis(NamedTuple):
    """One axis."""

    label: str
    """What it shows, with its unit."""
    low: float
    """Value at its start."""
    high: float
    """Value at its end."""
    ticks: tuple[tuple[float, str], ...]
    """Positions and their labels."""


class _Frame(NamedTuple):
    x: Axis
    y: Axis

    def place(self, x: float, y: float) -> tuple[float, float]:
        across = (x - self.x.low) / (self.x.high - self.x.low)
        up = (min(max(y, self.y.low), self.y.high) - self.y.low) / (self.y.high - self.y.low)
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)


def line_chart(series: Sequence[Series], x: Axis, y: Axis, *, title: str, level: float | None = None) -> Html:
    """Lines with interval bands; `level` draws a reference line across."""
    frame = _Frame(x, y)
    ends = [frame.place(line.xs[-1], line.ys[-1])[1] for line in series]
    labels = spread_labels(ends, LINE, TOP + 6, HEIGHT - BOTTOM)
    reference = (
        None
        if level is None
        else tag("line", class_="level", x1=LEFT, x2=WIDTH - RIGHT, y1=_r(_y(frame, level)), y2=_r(_y(frame, level)))
    )
    lines = [_line(frame, one, label) for one, label in zip(series, labels, strict=True)]
    return _svg(title, join([_grid(frame), reference, *lines]))


def dot_chart(dots: Sequence[Dot], x: Axis, *, title: str) -> Html:
    """Numbers one below the other, each with its interval across and its name on the right."""
    frame = _Frame(x, Axis("", 0.0, float(len(dots)), ()))
    parts: list[Html] = []
    for i, dot in enumerate(dots):
        row = len(dots) - i - 0.5
        at, low, high = (frame.place(value, row) for value in (dot.value, dot.low, dot.high))
        said = tag("title", f"{dot.name}: {number(dot.value)} [{number(dot.low)}, {number(dot.high)}]")
        across = tag("line", class_="line", x1=_r(low[0]), x2=_r(high[0]), y1=_r(at[1]), y2=_r(at[1]))
        name = tag("text", dot.name, class_="name", x=WIDTH - RIGHT + 8, y=_r(at[1] + 4))
        mark = tag("g", said, across, _shape(dot.slot, *at), class_="mark")
        parts.append(tag("g", mark, name, class_=f"series c{dot.slot % 6}"))
    return _svg(title, join([_grid(frame), *parts]))


def scatter(groups: Mapping[str, Sequence[tuple[float, float]]], x: Axis, y: Axis, *, title: str) -> Html:
    """Points of several groups, each with a colour and a mark of its own and its name on the right."""
    frame = _Frame(x, y)
    labels = spread_labels([TOP + 6 + LINE * i for i in range(len(groups))], LINE, TOP + 6, HEIGHT - BOTTOM)
    parts: list[Html] = []
    for slot, ((name, points), label) in enumerate(zip(groups.items(), labels, strict=True)):
        marks = [tag("g", _shape(slot, *frame.place(*point)), class_="mark") for point in points]
        key = tag("g", _shape(slot, WIDTH - RIGHT + 12, label), class_="mark")
        said = tag("text", name, class_="name", x=WIDTH - RIGHT + 21, y=_r(label + 4))
        parts.append(tag("g", *marks, key, said, class_=f"series c{slot % 6}"))
    return _svg(title, join([_grid(frame), *parts]))


def histogram(counts: Sequence[int], *, title: str, label: str) -> Html:
    """Bars over equal bins from 0 to 1 beside the height that a uniform distribution would have."""
    even, top = sum(counts) / len(counts), max(*counts, 1) * 1.1
    y = Axis("prompts", 0.0, top, tuple((float(v), str(v)) for v in _round_steps(top)))
    frame = _Frame(Axis(label, 0.0, 1.0, tuple((i / 5, number(i / 5, 1)) for i in range(6))), y)
    bars: list[Html] = []
    for i, count in enumerate(counts):
        (left, high), (right, low) = frame.place(i / len(counts), float(count)), frame.place((i + 1) / len(counts), 0.0)
        said = tag("title", f"{i / len(counts):.2f} to {(i + 1) / len(counts):.2f}: {count} prompts")
        box = {"x": _r(left + 1), "y": _r(high), "width": _r(right - left - 2), "height": _r(low - high)}
        bars.append(tag("g", said, tag("rect", class_="bar", **box)))
    height = _r(_y(frame, even))
    line = tag("line", class_="level strong", x1=LEFT, x2=WIDTH - RIGHT, y1=height, y2=height)
    name = tag("text", "uniform", class_="name muted", x=WIDTH - RIGHT + 8, y=_r(_y(frame, even) + 4))
    return _svg(title, join([_grid(frame), *bars, line, name]))


def spread_labels(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Positions at least `gap` apart, in the same order, near the wanted ones and between `low` and `high`.

    >>> spread_labels([10.0, 12.0, 50.0], 15.0, 0.0, 100.0)
    [10.0, 25.0, 50.0]
    """
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    placed = [0.0] * len(wanted)
    edge = low - gap
    for i in order:
        edge = placed[i] = max(wanted[i], edge + gap)
    edge = high + gap
    for i in reversed(order):
        edge = placed[i] = min(placed[i], edge - gap)
    return placed


def _line(frame: _Frame, line: Series, label: float) -> Html:
    points = [frame.place(*point) for point in zip(line.xs, line.ys, strict=True)]
    band = None
    if line.lows and len(points) > 1:
        above = [frame.place(*point) for point in zip(line.xs, line.highs, strict=True)]
        below = [frame.place(*point) for point in zip(line.xs, line.lows, strict=True)]
        band = tag("polygon", class_="band", points=_points([*above, *reversed(below)]))
    path = tag("polyline", class_="line", points=_points(points), stroke_dasharray=DASHES[line.slot % len(DASHES)])
    marks = [_mark(line, i, point) for i, point in enumerate(points)] if len(points) <= 12 else []
    end = points[-1]
    leader = tag("line", class_="leader", x1=_r(end[0] + 5), y1=_r(end[1]), x2=WIDTH - RIGHT + 8, y2=_r(label))
    name = tag("text", line.name, class_="name", x=WIDTH - RIGHT + 11, y=_r(label + 4))
    return tag("g", band, path, *marks, leader, name, class_=f"series c{line.slot % 6}")


def _mark(line: Series, i: int, point: tuple[float, float]) -> Html:
    within = f" [{number(line.lows[i])}, {number(line.highs[i])}]" if line.lows else ""
    said = tag("title", f"{line.name}: {number(line.ys[i])}{within}")
    return tag("g", said, _shape(line.slot, *point), class_="mark")


def _shape(slot: int, x: float, y: float) -> Html:
    shapes = (
        tag("circle", cx=_r(x), cy=_r(y), r=3.6),
        tag("rect", x=_r(x - 3.2), y=_r(y - 3.2), width=6.4, height=6.4),
        tag("polygon", points=_points([(x, y - 4.4), (x + 4, y + 3), (x - 4, y + 3)])),
        tag("polygon", points=_points([(x, y - 4.6), (x + 4.6, y), (x, y + 4.6), (x - 4.6, y)])),
    )
    return shapes[slot % len(shapes)]


def _grid(frame: _Frame) -> Html:
    parts: list[Html] = []
    for value, label in frame.y.ticks:
        y = _y(frame, value)
        parts.append(tag("line", class_="grid", x1=LEFT, x2=WIDTH - RIGHT, y1=_r(y), y2=_r(y)))
        parts.append(tag("text", label, class_="tick", x=LEFT - 7, y=_r(y + 4), text_anchor="end"))
    for value, label in frame.x.ticks:
        x = frame.place(value, frame.y.low)[0]
        parts.append(tag("line", class_="grid", x1=_r(x), x2=_r(x), y1=HEIGHT - BOTTOM, y2=HEIGHT - BOTTOM + 4))
        parts.append(tag("text", label, class_="tick", x=_r(x), y=HEIGHT - BOTTOM + 17, text_anchor="middle"))
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(tag("text", frame.x.label, class_="axis", x=middle, y=HEIGHT - 5, text_anchor="middle"))
    parts.append(tag("text", frame.y.label, class_="axis", x=4, y=12))
    return join(parts)


def _svg(title: str, content: Html) -> Html:
    return tag(
        "svg",
        tag("title", title),
        content,
        viewBox=f"0 0 {WIDTH:g} {HEIGHT:g}",
        role="img",
        aria_label=title,
        class_="plot",
    )


def _round_steps(top: float) -> list[int]:
    """About five whole numbers from 0 to `top`."""
    step = max(1, round(top / 5))
    size = 10 ** (len(str(step)) - 1)
    step = max(1, round(step / size)) * size
    return list(range(0, int(top) + 1, step))


def _y(frame: _Frame, value: float) -> float:
    return frame.place(frame.x.low, value)[1]


def _r(value: float) -> str:
    return f"{value:.1f}"


def _points(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{_r(x)},{_r(y)}" for x, y in points)
