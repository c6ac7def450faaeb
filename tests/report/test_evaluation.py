"""The page of evaluations: sentences that follow the intervals, figures, and what is set apart."""

import copy
from typing import Any

import pytest

from perimetry.errors import ConfigError
from perimetry.report.evaluation import evaluation_verdicts
from perimetry.report.html import render
from perimetry.report.schema_evaluation import parse_evaluation


def row(metric: str, estimate: float, low: float, high: float, **changes: Any) -> dict[str, Any]:
    return {
        **{"sae": "one", "seed": 0, "control": "", "evaluation": "probing", "definition": "1", "reliable": True},
        **{"metric": metric, "unit": "AUC", "higher": True, "case": "", "k": 16, "arm": "sae", "against": ""},
        **{"estimate": estimate, "low": low, "high": high, "p_value": None, "n": 113, "method": "bootstrap over units"},
        **changes,
    }


def about(name: str, *, reliable: bool = True) -> dict[str, Any]:
    told = {"definition": "1", "source": "somewhere", "caveat": f"caveat of {name}", "reliable": reliable}
    return {"name": name, **told, "metrics": {"auroc": "An area <under> a curve."}}


SAE = {
    **{"name": "one", "path": "runs/one", "digest": "a" * 64, "architecture": "topk", "width": 64, "model": "m"},
    **{"layer": 3, "seed": 0, "tokens": 1000, "masking": {"probability": 0.3}},
}
RESULTS: dict[str, Any] = {
    **{"title": "Worth", "subtitle": "m, after block 3", "command": "perimetry eval runs/one", "version": "0.1.0"},
    **{"hardware": {"cores": 2}, "date": "2026-11-21", "saes": [SAE, {**SAE, "name": "two"}]},
    "evaluations": [about("probing"), about("tpp", reliable=False)],
    "rows": [
        row("auroc", 0.81, 0.79, 0.83),
        row("auroc", 0.70, 0.68, 0.72, k=1),
        row("auroc", 0.66, 0.64, 0.68, control="untrained_dictionary"),
        row("auroc", 0.60, 0.58, 0.62, control="untrained_dictionary", k=1),
        row("auroc", 0.15, 0.13, 0.17, against="untrained_dictionary", p_value=0.001),
        row("auroc", -0.02, -0.03, -0.01, sae="two", against="one", p_value=0.01),
        row("auroc", 0.88, 0.86, 0.9, arm="raw", k=0),
        row("tpp", 0.2, 0.1, 0.3, evaluation="tpp", reliable=False),
    ],
    "refused": [{"sae": "one", "control": "", "evaluation": "absorption", "why": "TooFewSamples: 3 letters <of> 15"}],
    "feature_diffs": [{"first": "one", "second": "two", "file": "feature-diff/1.json", "counts": {"shared": 40}}],
}


def page(**changes: Any) -> str:
    return render(parse_evaluation(copy.deepcopy(RESULTS) | changes))


@pytest.mark.parametrize(
    ("low", "high", "better", "tone", "said"),
    [
        (0.1, 0.2, True, "good", "is better than its untrained dictionary"),
        (-0.2, -0.1, True, "bad", "is worse than its untrained dictionary"),
        (-0.1, 0.1, True, "open", "is not told apart from its untrained dictionary"),
        (-0.2, -0.1, False, "good", "is better than its untrained dictionary"),
        (0.1, 0.2, False, "bad", "is worse than its untrained dictionary"),
    ],
)
def test_a_sentence_follows_the_interval(low: float, high: float, better: bool, tone: str, said: str) -> None:
    rows = [
        row("auroc", 0.8, 0.7, 0.9),
        row("auroc", (low + high) / 2, low, high, against="untrained_dictionary", p_value=0.1, higher=better),
    ]
    (verdict,) = evaluation_verdicts(parse_evaluation(copy.deepcopy(RESULTS) | {"rows": rows}))
    assert verdict.tone == tone
    assert said in verdict.text


def test_the_first_dictionary_is_named_and_one_count_speaks() -> None:
    texts = [verdict.text for verdict in evaluation_verdicts(parse_evaluation(copy.deepcopy(RESULTS)))]
    assert len(texts) == 2
    assert texts[0].startswith(
        "one: probing auroc at k = 16 is better than its untrained dictionary, difference .150 (.130"
    )
    assert texts[1].startswith("two: probing auroc at k = 16 is worse than one, difference −.020")


def test_unreliable_numbers_stand_apart_and_texts_are_escaped() -> None:
    text = page()
    front, apart = text.split('id="unreliable"')
    assert "caveat of probing" in front
    assert "caveat of tpp" not in front.partition("<main>")[2]
    assert "caveat of tpp" in apart
    assert "3 letters &lt;of&gt; 15" in text
    assert "An area &lt;under&gt; a curve." in text
    assert text.count("<svg") == 1, "areas by the number of latents"
    assert "feature-diff/1.json" in text


def test_sections_without_content_are_left_out() -> None:
    text = page(refused=[], feature_diffs=[], saes=[SAE])
    for anchor in ("refused", "latents"):
        assert f'id="{anchor}"' not in text


def test_what_is_no_result_is_refused() -> None:
    with pytest.raises(ConfigError, match="results of evaluations"):
        parse_evaluation({**RESULTS, "rows": [{"sae": "one"}]})
