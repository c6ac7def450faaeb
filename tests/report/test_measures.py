"""Tables of choices made elsewhere and of added value: every row is there, with its interval and how it was made."""

from perimetry.report.markup import join, number
from perimetry.report.measures import TABLES, measure_tables
from perimetry.report.schema import parse_results
from report.parsing import Page
from report.samples import results

ROWS = parse_results(results((0,), 40)).rows


def test_every_measurement_has_its_line() -> None:
    for suite in ("typos", "jailbreaks"):
        page = Page(join(measure_tables(ROWS, suite)))
        assert page.open == []
        assert page.count("caption") == page.count("table")
        for row in ROWS:
            names = {metric: text for table in TABLES for metric, text in table.names.items()}
            if row.suite == suite and row.metric in names:
                line = [row.detector, names[row.metric], number(row.estimate), row.method]
                assert any(all(cell in found for cell in line) for found in page.rows), row


def test_families_left_out_stand_where_there_are_several() -> None:
    assert "Each family left out in jailbreaks" in Page(join(measure_tables(ROWS, "jailbreaks"))).texts
    assert not any("left out" in text for text in Page(join(measure_tables(ROWS, "typos"))).texts)
    assert measure_tables([row for row in ROWS if row.metric == "auroc"], "typos") == []
