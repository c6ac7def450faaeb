"""The page of a study of known features: sentences that follow the claims, a figure a number, all text escaped."""

import copy
from typing import Any

import pytest

from perimetry.errors import ConfigError
from perimetry.report.html import render
from perimetry.report.schema_truth import parse_truth
from perimetry.report.truth import truth_charts, truth_verdicts


def row(part: str, arm: str, metric: str, estimate: float, **changes: Any) -> dict[str, Any]:
    return {
        **{"part": part, "preset": "small", "arm": arm, "against": "", "seed": None, "metric": metric, "n": 24},
        **{
            "estimate": estimate,
            "low": estimate - 0.02,
            "high": estimate + 0.02,
            "p_value": None,
            "method": "bootstrap",
        },
        **changes,
    }


def claim(verdict: str, **changes: Any) -> dict[str, Any]:
    return {
        **{
            "part": "causal",
            "arm": "broken",
            "against": "none",
            "metric": "absorption",
            "sign": -1,
            "said": "so <they> say",
        },
        **{"estimate": -0.05, "low": -0.08, "high": -0.02, "n": 24, "seeds": 3, "seeds_so": 3, "verdict": verdict},
        **changes,
    }


METRIC = {"unit": "share", "higher": False, "text": "A share <of> tokens."}
RESULTS: dict[str, Any] = {
    **{"title": "Known", "subtitle": "both", "command": "perimetry study truth", "version": "0.1.0"},
    **{"hardware": {"cores": 2}, "date": "2026-11-21"},
    "rows": [
        row("causal", "none", "absorption", 0.05),
        row("causal", "broken", "absorption", 0.01),
        row("causal", "broken", "absorption", 0.02, seed=1),
        row("causal", "broken", "absorption", -0.04, against="none", p_value=0.01),
        row("order", "matching_pursuit", "f1", 0.4),
        row("order", "probe", "f1", 0.98),
    ],
    "claims": [claim("holds"), claim("fails", seeds_so=0), claim("open")],
    "metrics": dict.fromkeys(("absorption", "f1"), METRIC),
}


def test_sentences_follow_the_claims() -> None:
    found = truth_verdicts(parse_truth(copy.deepcopy(RESULTS)))
    assert [v.tone for v in found] == ["good", "bad", "open"]
    assert "absorption of broken below that of none (so <they> say): holds" in found[0].text
    assert "24 units, this way in 3 of 3 seeds" in found[0].text
    assert "the opposite holds" in found[1].text
    assert "not decided" in found[2].text


def test_the_page_has_every_part_and_escapes_what_it_shows() -> None:
    page = render(parse_truth(copy.deepcopy(RESULTS)))
    assert "so &lt;they&gt; say" in page
    assert "<they>" not in page
    assert "matching pursuit" in page
    assert page.count("<svg") == 2
    assert "http" not in page.replace("http-equiv", "").replace("http://www.w3.org/2000/svg", "")
    assert [chart.name for chart in truth_charts(parse_truth(RESULTS))] == ["truth-order-f1", "truth-causal-absorption"]
    alone = render(parse_truth(RESULTS | {"rows": RESULTS["rows"][:4]}))
    assert "Architectures on a world" not in alone


def test_what_is_no_such_file_is_refused() -> None:
    with pytest.raises(ConfigError, match="known features"):
        parse_truth(RESULTS | {"claims": [claim("maybe")]})
