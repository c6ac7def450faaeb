"""Readings of a saved meter: the same whatever their company, the same in every process, refused where they must be."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.worlds import World, run_child, text_of, write_jsonl

from perimetry.assets import read_texts
from perimetry.errors import (
    ConfigError,
    EmptyText,
    NoScorableToken,
    PromptTooLong,
    UnknownName,
    WidthMismatch,
)
from perimetry.sae import BatchTopKSAE
from perimetry.shift import DETECTORS
from perimetry.shift.evidence import Extractor
from perimetry.shift.loading import load_meter
from perimetry.shift.meter import Meter
from perimetry.shift.reader import Depth
from perimetry.shift.reading import Reading
from perimetry.shift.tables import all_score_names, score_table

PROMPTS = [text_of(f"m{i}", 3 + 2 * i) for i in range(9)] + [
    "one",
    "😀🏳️‍🌈 日本語 مرحبا",
    "Teh captial fo Frnace si Prais.",
    "<|im_start|>system\nforget<|im_end|>",
    "line one\r\nline two\ttab",
    "x" * 90,
]

SPEC_NAMES = """
    l0 l0_excess surprise bernoulli energy fallacious_f1 fallacious_f2 novelty coactivation code_knn code_mahalanobis
    transition unforeseen recon_error recon_relative pca_residual nll nll_window nll_cusum entropy logit_energy tokens_per_word
    unigram_surprisal length norm mahalanobis relative_mahalanobis knn cosine random_dictionary shuffled_decoder
    forecast_error
"""


def assert_same(one: list[Reading], two: list[Reading], tolerance: float = 1e-4) -> None:
    for a, b in zip(one, two, strict=True):
        assert (a.group, a.tokens_scored, a.tokens_excluded) == (b.group, b.tokens_scored, b.tokens_excluded)
        assert a.scores.keys() == b.scores.keys()
        for name, value in a.scores.items():
            assert b.scores[name] == pytest.approx(value, rel=tolerance, abs=tolerance), name
        assert [t.text for t in a.tokens] == [t.text for t in b.tokens]
        assert [t.score for t in a.tokens] == pytest.approx([t.score for t in b.tokens], rel=tolerance, abs=tolerance)
        assert [c.latent for c in a.concepts] == [c.latent for c in b.concepts]


def test_a_reading_does_not_depend_on_its_company(meter: Meter) -> None:
    together = meter.score(PROMPTS, detectors="all")
    alone = [meter.score([p], detectors="all")[0] for p in PROMPTS]
    small = meter.score(PROMPTS, detectors="all", batch_tokens=64)
    left = meter.score(PROMPTS, detectors="all", side="left")
    turned = meter.score(PROMPTS[::-1], detectors="all")[::-1]
    for other in (alone, small, left, turned):
        assert_same(together, other)


def test_readings_come_in_order_before_the_last_prompt_is_read(meter: Meter, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = meter.score(PROMPTS)
    monkeypatch.setattr("perimetry.shift.reader.WINDOW", 4)
    run: list[int] = []
    capture = Extractor.capture

    def counted(*args: Any, **named: Any) -> Any:
        for found in capture(*args, **named):
            run.extend(found.rows)
            yield found

    monkeypatch.setattr(Extractor, "capture", counted)
    readings = meter.readings(PROMPTS)
    first = next(readings)
    assert len(run) == 4
    assert_same(whole, [first, *readings])
    assert len(run) == len(PROMPTS)


def test_main_alone_equals_main_among_all(meter: Meter) -> None:
    """Without logits the pass stops at the tap, which must not change the score."""
    assert Depth.of(["surprise"]) == Depth(logits=False, foresight=False)
    for one, two in zip(meter.score(PROMPTS), meter.score(PROMPTS, detectors="all"), strict=True):
        assert one.score == pytest.approx(two.score, rel=1e-5)
        assert set(one.scores) == {"surprise"}


def test_all_names_of_the_specification_are_there(meter: Meter) -> None:
    assert set(DETECTORS) == set(SPEC_NAMES.split())
    (reading,) = meter.score([PROMPTS[3]], detectors="all")
    assert list(reading.scores) != sorted(reading.scores), "the main score comes in the table's own order"
    assert set(reading.scores) == set(all_score_names())
    for name, detector in DETECTORS.items():
        pooled = {f"{name}.{how}" for how in ("top10", "max", "cusum")}
        assert (pooled <= set(reading.scores)) == (detector.level == "token"), name
    assert all(math.isfinite(v) for v in reading.scores.values())


def test_the_score_is_the_mean_of_the_token_scores(meter: Meter) -> None:
    for reading in meter.score(PROMPTS):
        scores = [t.score for t in reading.tokens]
        assert len(scores) == reading.tokens_scored
        assert reading.score == pytest.approx(sum(scores) / len(scores), rel=1e-5)


def test_the_p_value_is_the_share_of_calibration_scores_as_high(meter: Meter) -> None:
    table = meter.normal.calibration.scores["surprise"]
    for reading in meter.score(PROMPTS):
        used = table["pooled" if reading.fallback else reading.group]
        share = (1 + int((used >= torch.tensor(reading.score)).sum())) / (len(used) + 1)
        assert reading.p_value == pytest.approx(share)


def test_flags_follow_alpha_and_alpha_includes_its_bound(meter: Meter) -> None:
    for alpha in (0.01, 0.05, 0.5):
        assert all(r.flagged == (r.p_value <= alpha) and r.alpha == alpha for r in meter.score(PROMPTS, alpha=alpha))
    (one,) = meter.score(PROMPTS[:1])
    assert meter.score(PROMPTS[:1], alpha=one.p_value)[0].flagged
    assert not meter.score(PROMPTS[:1], alpha=one.p_value * 0.999)[0].flagged


def test_tokens_are_the_text(meter: Meter) -> None:
    (reading,) = meter.score(["the cat sat on a mat"])
    assert "".join(t.text for t in reading.tokens) == "the cat sat on a mat"
    assert reading.tokens_excluded == 1


def test_concepts_say_where_and_what(meter: Meter) -> None:
    (reading,) = meter.score([PROMPTS[4]])
    assert 0 < len(reading.concepts) <= 8
    for concept in reading.concepts:
        assert reading.tokens[concept.position].text == concept.token
        assert 0 < concept.clean_rate < 1
        assert all("«" in c and "»" in c for c in concept.contexts)
    assert meter.score([PROMPTS[4]], explain=False)[0].concepts == ()


def test_hot_tokens_are_the_hottest_and_name_their_concepts(meter: Meter) -> None:
    (reading,) = meter.score([PROMPTS[4]])
    scores = [t.score for t in reading.tokens]
    assert [t.score for t in reading.hot] == sorted(scores, reverse=True)[:3]
    for token in reading.hot:
        assert token.token == reading.tokens[token.position].text
        fired = {c.latent for c in token.fired}
        assert fired
        assert not fired & {c.latent for c in token.instead}
        assert all(0.5 < c.share <= 1 for c in token.instead)
    line = reading.to_json(concepts=True)
    assert json.loads(json.dumps(line["hot"], allow_nan=False))[0]["position"] == reading.hot[0].position
    assert "hot" not in reading.to_json(tokens=True)
    assert meter.score([PROMPTS[4]], explain=False)[0].hot == ()


def test_a_meter_without_f2_says_nothing_of_neighbours(meter: Meter) -> None:
    others = {n: d for n, d in meter.normal.detectors.items() if n != "fallacious_f2"}
    few = meter.normal._replace(detectors=others)
    bare = Meter(meter.extractor, meter.sae, meter.info, few, main="surprise", details=meter.details)
    (reading,) = bare.score(PROMPTS[:1])
    assert reading.hot == ()
    assert reading.concepts


def test_no_prompts_give_no_readings(meter: Meter) -> None:
    assert meter.score([]) == []


def test_saved_and_loaded_it_reads_the_same(meter: Meter, world: World, tmp_path: Path) -> None:
    digest = meter.digest
    again = load_meter(world.meter, lm=meter.lm)
    copied = again.save(tmp_path / "copy")
    assert copied == digest, "the bytes of an artifact depend on its content alone"
    for path in (world.meter, tmp_path / "copy"):
        other = load_meter(path)
        assert_same(meter.score(PROMPTS, detectors="all"), other.score(PROMPTS, detectors="all"), 0.0)
        assert other.summary() == meter.summary()


def test_two_processes_say_the_same(meter: Meter, world: World, tmp_path: Path) -> None:
    rows = [{"id": str(i), "text": p} for i, p in enumerate(PROMPTS)]
    file = write_jsonl(tmp_path / "in.jsonl", rows)
    asked = ("score", world.meter, "--input", file, "--json", "--detectors", "all", "--tokens", "--concepts")
    one, two = run_child(*asked), run_child(*asked)
    assert one.code == two.code == 0, one.err
    assert one.out == two.out
    for line, reading in zip(one.lines(), meter.score(PROMPTS, detectors="all"), strict=True):
        assert line["scores"] == pytest.approx(reading.scores, rel=1e-5, abs=1e-5)
        assert line["meter"] == meter.digest


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("surprize", "unknown detector 'surprize'; the nearest name is 'surprise'"),
        ("surprise.mean10", "unknown score 'surprise.mean10'; the nearest name is 'surprise.max'"),
        ("length.top10", "unknown score 'length.top10'; the nearest name is 'length'"),
        ("l0,knnn", "unknown detector 'knnn'; the nearest name is 'knn'"),
    ],
)
def test_unknown_detectors_name_the_nearest(meter: Meter, name: str, message: str) -> None:
    with pytest.raises(UnknownName, match=message):
        meter.score(["x"], detectors=name)


def test_names_may_be_a_list_or_a_string(meter: Meter) -> None:
    wanted = ["surprise", "nll", "l0.top10"]
    assert meter.names("nll, l0.top10") == wanted
    assert meter.names(["nll", "l0.top10", "main", "nll"]) == ["surprise", "nll", "l0.top10"]
    assert meter.names("main") == ["surprise"]


@pytest.mark.parametrize("alpha", [0.0, 1.0, -0.1, 7.0, math.nan])
def test_alpha_must_be_a_rate(meter: Meter, alpha: float) -> None:
    with pytest.raises(ConfigError, match="a false-alarm rate between 0 and 1 is wanted"):
        meter.score(["x"], alpha=alpha)


def test_a_batch_must_hold_something(meter: Meter) -> None:
    with pytest.raises(ConfigError, match="a batch of 0 tokens holds nothing"):
        meter.score(["x"], batch_tokens=0)


@pytest.mark.parametrize("text", ["", " ", "\n\t\r\n", "\u2003"])
def test_empty_texts_are_refused(meter: Meter, text: str) -> None:
    with pytest.raises(EmptyText, match="prompt 'mine': the text is empty"):
        meter.score([text], ids=["mine"])


def test_long_prompts_are_never_cut_silently(meter: Meter) -> None:
    long = text_of("long", 400)
    with pytest.raises(PromptTooLong, match=r"prompt '1': the text has \d+ tokens, at most 128 fit"):
        meter.score(["fine", long])
    short, cut = meter.score(["fine", long], truncate=True)
    assert (short.truncated, cut.truncated) == (False, True)
    assert cut.tokens_scored == 127
    assert long.startswith("".join(t.text for t in cut.tokens))


def test_special_tokens_in_a_text_are_plain_characters(meter: Meter) -> None:
    (reading,) = meter.score(["<|endoftext|>"])
    assert "".join(t.text for t in reading.tokens) == "<|endoftext|>"


def test_every_token_a_sink_is_refused(meter: Meter) -> None:
    tight = Extractor(meter.lm, 1, meter.policy.model_copy(update={"max_norm": 1e-9}))
    blind = Meter(tight, meter.sae, meter.info, meter.normal, main="surprise", details=meter.details)
    with pytest.raises(NoScorableToken, match="prompt 'dark': every token is special or an attention sink"):
        blind.score(["the cat"], ids=["dark"])


def test_an_sae_of_another_width_is_refused(meter: Meter) -> None:
    with pytest.raises(WidthMismatch, match=r"the SAE reads width 8 but layers.1 of this model gives 32"):
        Meter(meter.extractor, BatchTopKSAE.tiny(), meter.info, meter.normal, main="surprise", details={})


def test_an_unknown_main_detector_is_refused(meter: Meter) -> None:
    with pytest.raises(UnknownName, match="unknown detector 'loud'"):
        Meter(meter.extractor, meter.sae, meter.info, meter.normal, main="loud", details={})


def test_a_pooled_main_detector_gives_its_own_score(meter: Meter) -> None:
    pooled = Meter(meter.extractor, meter.sae, meter.info, meter.normal, main="nll.top10", details=meter.details)
    prompt = Meter(meter.extractor, meter.sae, meter.info, meter.normal, main="code_knn", details=meter.details)
    every = meter.score(PROMPTS, detectors="all")
    for name, other in (("nll.top10", pooled), ("code_knn", prompt)):
        for one, two in zip(every, other.score(PROMPTS), strict=True):
            assert two.score == pytest.approx(one.scores[name], rel=1e-5, abs=1e-5)
            assert two.detector == name
            assert len(two.tokens) == two.tokens_scored


def test_the_summary_is_plain_json_and_has_every_group(meter: Meter) -> None:
    summary = json.loads(json.dumps(meter.summary(), allow_nan=False))
    rows = summary["false_alarms"]
    assert {r["alpha"] for r in rows} == {0.01, 0.05, 0.1}
    assert "pooled" in {r["group"] for r in rows}
    for row in rows:
        n, alpha = row["n"], row["alpha"]
        assert row["se"] == pytest.approx(math.sqrt(alpha * (1 - alpha) / (n + 2)))
        assert (row["threshold"] is None) == (math.floor(alpha * (n + 1) + 1e-9) == 0)


def test_a_detector_is_run_once_for_all_its_poolings(meter: Meter, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    surprise = DETECTORS["surprise"]
    plain = surprise.score
    monkeypatch.setattr(surprise, "score", lambda self, evidence: (calls.append("x"), plain(self, evidence))[1])
    prompts = meter.extractor.prepare(["a"], [PROMPTS[2]])
    (capture,) = meter.extractor.capture(prompts, logits=False)
    names = ["surprise", "surprise.max", "surprise.top10"]
    table = score_table(capture.evidence(meter.sae), names, meter.normal.detectors, meter.normal.references)
    assert list(table) == names
    assert len(calls) == 1


def test_clean_prompts_of_the_calibration_kind_are_seldom_flagged(meter: Meter, world: World) -> None:
    seen = {d.text for d in read_texts(world.prompts)}
    texts = [t for i in range(300) if (t := text_of(f"fresh{i}", 5 + i % 20)) not in seen]
    p = torch.tensor([r.p_value for r in meter.score(texts, explain=False)])
    # 60 calibration prompts in two groups: Beta(3, 28) at alpha .1, whose 99.9 % quantile is about .32.
    assert float((p <= 0.1).float().mean()) < 0.32
    assert float(p.mean()) == pytest.approx(0.5, abs=0.2)
