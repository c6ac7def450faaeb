"""Damage to the model against plain transformers, one text at a time in float64; rank agreement against scipy."""

import math
import random
import re

import pytest
import torch
from scipy import stats
from tests.worlds import text_of

from perimetry.activations.model import LanguageModel, tiny_language_model
from perimetry.activations.policy import TokenPolicy
from perimetry.activations.twins import Twin
from perimetry.errors import ConfigError, NonFinite, PromptTooLong, TooFewSamples, UsageError
from perimetry.evals.damage import damage
from perimetry.evals.damage_ranks import agreements, kendall_draws, spearman_draws
from perimetry.measures.stats import resample_counts, spearman
from perimetry.runtime import generator

TEXTS = [text_of(f"damage{i}", n) for i, n in enumerate((3, 4, 9, 16, 11, 20))]


def scrambled(text: str, seed: int) -> str:
    rng = random.Random(seed)
    return " ".join("".join(rng.sample(w, len(w))) if rng.random() < 0.5 else w for w in text.split(" "))


TWINS = [Twin(f"t{i}", text, scrambled(text, i)) for i, text in enumerate(TEXTS)]


def plain_log_probabilities(lm: LanguageModel, ids: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return lm.model(input_ids=torch.tensor([ids])).logits[0].double().log_softmax(1)


def plain_ids(lm: LanguageModel, text: str) -> list[int]:
    start = [] if lm.bos_id is None else [lm.bos_id]
    return [*start, *lm.plain_tokenizer.encode(text, add_special_tokens=False).ids]


def plain_damage(lm: LanguageModel, twin: Twin) -> tuple[float, float]:
    """The whole definition again: every word's end by tokenising the text up to it."""
    ends = [[m.end() for m in re.finditer(r"\S+", text)] for text in (twin.clean, twin.corrupted)]
    divergences = []
    whole = [plain_log_probabilities(lm, plain_ids(lm, text)) for text in (twin.clean, twin.corrupted)]
    for a, b in zip(*ends, strict=True):
        p = whole[0][len(plain_ids(lm, twin.clean[:a])) - 1]
        q = whole[1][len(plain_ids(lm, twin.corrupted[:b])) - 1]
        divergences.append(float((p.exp() * (p - q)).sum()))
    cut = min(math.ceil(2 * len(ends[0]) / 3), len(ends[0]) - 1)
    tail = twin.clean[ends[0][cut - 1] :]
    means = []
    for beginning in (twin.corrupted[: ends[1][cut - 1]], twin.clean[: ends[0][cut - 1]]):
        before, ids = len(plain_ids(lm, beginning)), plain_ids(lm, beginning + tail)
        table = plain_log_probabilities(lm, ids)
        means.append(-sum(float(table[i - 1, ids[i]]) for i in range(before, len(ids))) / (len(ids) - before))
    return sum(divergences) / len(divergences), means[0] - means[1]


@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen2", "gemma2"])
@pytest.mark.parametrize("batch_tokens", [1, 4096])
def test_equals_the_definition(family: str, batch_tokens: int) -> None:
    lm = tiny_language_model(family)
    found = damage(lm, TWINS, batch_tokens=batch_tokens)
    wanted = [plain_damage(lm, twin) for twin in TWINS]
    assert found.kl.tolist() == pytest.approx([w[0] for w in wanted], rel=1e-3, abs=1e-5)
    assert found.nll_rise.tolist() == pytest.approx([w[1] for w in wanted], rel=1e-3, abs=1e-4)
    assert found.ids == tuple(t.id for t in TWINS)
    assert found.words.tolist() == [len(t.split()) for t in TEXTS]


def test_chunks_of_logits_change_nothing(tiny_lm: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = damage(tiny_lm, TWINS)
    monkeypatch.setattr("perimetry.evals.damage.CHUNK_BYTES", 1)
    parts = damage(tiny_lm, TWINS)
    assert torch.allclose(whole.kl, parts.kl, atol=1e-6)
    assert torch.allclose(whole.nll_rise, parts.nll_rise, atol=1e-6)


def test_no_corruption_is_no_damage(tiny_lm: LanguageModel) -> None:
    found = damage(tiny_lm, [Twin(t.id, t.clean, t.clean) for t in TWINS])
    assert float(found.kl.max()) < 1e-6
    assert float(found.nll_rise.abs().max()) < 1e-5


def test_other_scripts_and_white_space(tiny_lm: LanguageModel) -> None:
    twin = Twin("x", "日本 café\n\nthe  old 😀 man", "日木 acfé\n\nthe  odl 😀 man")
    found = damage(tiny_lm, [twin])
    kl, rise = plain_damage(tiny_lm, twin)
    assert float(found.kl) == pytest.approx(kl, rel=1e-3)
    assert float(found.nll_rise) == pytest.approx(rise, rel=1e-3, abs=1e-5)


def test_refusals(tiny_lm: LanguageModel) -> None:
    with pytest.raises(UsageError, match=r"pair 'a' has 3 clean and 2 corrupted words; equal numbers, at least 3"):
        damage(tiny_lm, [Twin("a", "one two three", "one two")])
    with pytest.raises(UsageError, match="has 2 clean and 2 corrupted"):
        damage(tiny_lm, [Twin("a", "one two", "one owt")])
    with pytest.raises(PromptTooLong, match="pair 'long': the text has"):
        damage(tiny_lm, [Twin("long", text_of(1, 300), text_of(1, 300))])
    with pytest.raises(ConfigError, match="use template = 'none'"):
        damage(tiny_lm, TWINS, policy=TokenPolicy(template="chat"))


def ranked(n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    a = torch.randn(n, generator=draw)
    return (a * 3).round() / 3, a + torch.randn(n, generator=draw)


def test_correlations_of_resamples_are_scipys() -> None:
    a, b = ranked(40, 0)
    counts = resample_counts(40, 12, generator(1))
    for row, rho, tau in zip(counts, spearman_draws(a, b, counts), kendall_draws(a, b, counts), strict=True):
        x, y = (v.repeat_interleave(row.long()).numpy() for v in (a, b))
        assert float(rho) == pytest.approx(stats.spearmanr(x, y)[0])
        assert float(tau) == pytest.approx(stats.kendalltau(x, y)[0], abs=1e-6)


def test_agreement_of_scores_with_damage() -> None:
    good, harm = ranked(120, 2)
    poor = torch.randn(120, generator=generator(3))
    units = [str(i // 3) for i in range(120)]
    scores, kinds = {"good": good, "poor": poor}, {"kl": harm, "nll_rise": -harm}
    found = {(r.detector, r.damage): r for r in agreements(scores, kinds, units, generator(4), against="poor")}
    assert len(found) == 4
    row = found["good", "kl"]
    assert row.spearman.estimate == pytest.approx(spearman(good, harm).estimate)
    assert row.kendall.estimate == pytest.approx(stats.kendalltau(good.numpy(), harm.numpy())[0], abs=1e-6)
    assert row.spearman.low < row.spearman.estimate < row.spearman.high
    assert row.spearman.n == 40, "passages, not pairs, are the units"
    assert row.gain is not None
    assert row.gain.low > 0
    assert row.gain.estimate == pytest.approx(row.spearman.estimate - found["poor", "kl"].spearman.estimate)
    assert found["poor", "kl"].gain is None
    assert found["poor", "kl"].spearman.low < 0 < found["poor", "kl"].spearman.high
    assert found["good", "nll_rise"].spearman.estimate == pytest.approx(-row.spearman.estimate)


def test_intervals_of_the_agreement_cover() -> None:
    """Independent score and damage: nought lies inside about as often as promised."""
    inside = 0
    for seed in range(150):
        draw = generator(seed)
        scores, harm = {"a": torch.randn(60, generator=draw)}, {"kl": torch.randn(60, generator=draw)}
        (row,) = agreements(scores, harm, [str(i) for i in range(60)], draw, resamples=300)
        inside += row.spearman.low <= 0 <= row.spearman.high
    assert stats.binom.ppf(0.001, 150, 0.92) <= inside


def test_a_constant_score_agrees_with_nothing() -> None:
    _, harm = ranked(30, 5)
    (row,) = agreements({"flat": torch.ones(30)}, {"kl": harm}, [str(i) for i in range(30)], generator(6))
    assert (row.spearman.estimate, row.kendall.estimate) == (0.0, 0.0)


def test_refusals_of_the_agreement() -> None:
    a, b = ranked(20, 7)
    units = [str(i) for i in range(20)]
    with pytest.raises(TooFewSamples, match="at least 8 passages, got 1"):
        agreements({"a": a}, {"kl": b}, ["x"] * 20, generator(0))
    with pytest.raises(UsageError, match="'a' has 19 values for 20 pairs"):
        agreements({"a": a[:-1]}, {"kl": b}, units, generator(0))
    with pytest.raises(NonFinite, match="'kl' holds NaN"):
        agreements({"a": a}, {"kl": b.clone().fill_(math.nan)}, units, generator(0))
    with pytest.raises(UsageError, match="no score 'z' to compare with; known: a"):
        agreements({"a": a}, {"kl": b}, units, generator(0), against="z")
