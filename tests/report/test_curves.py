"""Curves: the axis of false alarms is logarithmic, and old results with a rate of zero still have a figure."""

import math
import re

import pytest

from perimetry.report.curves import dose_figures, roc_figures
from perimetry.report.schema import parse_results
from report.parsing import Page
from report.samples import results

GIVEN = results((0,), 20)


def points_of(drawing: str) -> list[list[tuple[float, float]]]:
    found = re.findall(r'<polyline class="line" points="([^"]+)"', drawing)
    return [[(float(x), float(y)) for x, y in (point.split(",") for point in line.split())] for line in found]


def test_false_alarms_stand_on_a_logarithmic_axis() -> None:
    curve = {
        **{"suite": "typos", "family": "typos", "dose": 0.2, "detector": "surprise", "kind": "concept"},
        "fpr": [0.0, 0.001, 0.01, 0.1, 1.0],
        "tpr": [0.1, 0.2, 0.4, 0.6, 1.0],
    }
    drawing = roc_figures(parse_results({**GIVEN, "roc": [curve]}))
    (points,) = points_of(drawing)
    assert [x for x, _ in points] == pytest.approx([46 + 364 * step / 3 for step in range(4)], abs=0.06)
    texts = Page(drawing).texts
    assert [t for t in texts if t in ("0.1 %", "1 %", "10 %", "100 %")] == ["0.1 %", "1 %", "10 %", "100 %"]
    assert any("One false alarm among 20 clean texts is 5 %" in text for text in texts)


def test_every_dose_of_all_kinds_has_its_curves() -> None:
    page = Page(roc_figures(parse_results(GIVEN)))
    names = [str(a["aria-label"]) for name, a in page.tags if name == "svg"]
    assert names == [*(f"Share caught, typos, {d} %" for d in (5, 10, 20, 50)), "Share caught, jailbreaks"]


def test_doses_have_figures_only_where_there_is_a_dial() -> None:
    names = [str(a["aria-label"]) for n, a in Page(dose_figures(parse_results(GIVEN))).tags if n == "svg"]
    assert names == ["typos: AUROC by dose"]
    assert math.isclose(points_of(dose_figures(parse_results(GIVEN)))[0][0][0], 46 + 364 * 0.15 / 3.3, abs_tol=0.1)
