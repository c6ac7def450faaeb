"""Figures: points where they belong, labels apart, every series told by more than colour."""

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perimetry.report.figures import Axis, Series, histogram, line_chart, spread_labels
from report.parsing import Page

X = Axis("dose", 0.0, 2.0, ((0.0, "5 %"), (1.0, "10 %"), (2.0, "20 %")))
Y = Axis("AUROC", 0.5, 1.0, ((0.5, ".5"), (1.0, "1.0")))


def lines() -> list[Series]:
    one = Series("surprise", (0.0, 1.0, 2.0), (0.6, 0.8, 1.0), (0.5, 0.7, 0.9), (0.7, 0.9, 1.0))
    return [one, Series("<nll>", (0.0, 1.0, 2.0), (0.5, 0.5, 0.99), slot=1)]


def test_points_lie_where_the_axes_say() -> None:
    drawing = line_chart(lines(), X, Y, title="AUROC by dose", level=0.5)
    points = re.findall(r'<polyline class="line" points="([^"]+)"', drawing)
    first = [tuple(map(float, point.split(","))) for point in points[0].split()]
    assert [x for x, _ in first] == pytest.approx([46.0, 228.0, 410.0])
    assert [y for _, y in first] == pytest.approx([300 - 40 - 230 * share for share in (0.2, 0.6, 1.0)], abs=0.06)


def test_a_chart_is_well_formed_named_and_told_without_colour() -> None:
    page = Page(line_chart(lines(), X, Y, title="AUROC <by> dose"))
    svg = next(attributes for name, attributes in page.tags if name == "svg")
    assert svg["aria-label"] == "AUROC <by> dose"
    assert svg["role"] == "img"
    assert "<nll>" in page.texts
    assert "surprise: .800 [.700, .900]" in page.texts
    dashes = [a["stroke-dasharray"] for name, a in page.tags if name == "polyline"]
    assert len(set(dashes)) == 2
    assert sum(name == "polygon" and a.get("class") == "band" for name, a in page.tags) == 1


def test_values_off_the_axis_stay_inside() -> None:
    drawing = line_chart([Series("a", (0.0, 2.0), (0.1, 3.0))], X, Y, title="t")
    found = re.search(r'class="line" points="([^"]+)"', drawing)
    assert found
    assert found.group(1).split() == ["46.0,260.0", "410.0,30.0"]


def test_a_histogram_has_a_bar_for_each_bin_of_the_right_height() -> None:
    page = Page(histogram([4, 0, 8, 8], title="p-values", label="p-value"))
    bars = [attributes for name, attributes in page.tags if name == "rect"]
    heights = [float(str(bar["height"])) for bar in bars]
    assert len(bars) == 4
    assert heights[1] == 0
    assert heights[0] * 2 == pytest.approx(heights[2], abs=0.2)
    assert "0.50 to 0.75: 8 prompts" in page.texts


@given(st.lists(st.floats(0, 200), max_size=12))
def test_labels_keep_apart_and_in_order(wanted: list[float]) -> None:
    placed = spread_labels(wanted, 15.0, 0.0, 200.0)
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    ranked = [placed[i] for i in order]
    assert all(b - a >= 15 - 1e-9 for a, b in itertools.pairwise(ranked))
    assert all(-1e-9 <= y <= 200 + 1e-9 for y in placed)
