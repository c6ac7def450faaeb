"""F2 and F1 against F3: by sets and loops, one text at a time; by hand; and what is refused."""

import random
import re

import pytest
import torch
from tests.worlds import text_of

from perimetry.activations.twins import Twin
from perimetry.errors import TooFewSamples, UsageError
from perimetry.evals.fallacious import METRICS, FallaciousResult, predict_f3
from perimetry.evals.fallacious_tokens import TokenText, tally
from perimetry.evals.harmless import rewritten
from perimetry.perturb import Typos
from perimetry.sae.base import Codes
from perimetry.shift.concepts import FallaciousF1
from perimetry.shift.context import FallaciousF2
from perimetry.shift.meter import Meter, Normal

TEXTS = [text_of(f"f3-{i}", 8 + i) for i in range(10)]
TWINS = [Twin(str(i), text, Typos().apply(text, 0.3, random.Random(i))) for i, text in enumerate(TEXTS)]

Marks = list[tuple[int, set[int], set[int], set[int]]]


def read(meter: Meter, text: str) -> Marks:
    """Word, active concepts, F1's and F2's of each token that counts."""
    (prompt,) = meter.extractor.prepare(["x"], [text])
    (capture,) = meter.extractor.capture([prompt], logits=False)
    evidence = capture.evidence(meter.sae)
    f1, f2 = meter.normal.detectors["fallacious_f1"], meter.normal.detectors["fallacious_f2"]
    assert isinstance(f1, FallaciousF1)
    assert isinstance(f2, FallaciousF2)
    rows = torch.arange(evidence.tokens.numel())
    flags = f1.false_slots(evidence, rows), f2.false_slots(evidence, rows)
    spans = [s for s, counts in zip(prompt.encoded.spans, capture.counted[0].tolist(), strict=True) if counts]
    found: Marks = []
    for t, span in enumerate(spans):
        assert span is not None
        before = [m for m in re.finditer(r"\S+", text) if m.end() <= span[0]]
        slots = evidence.codes.indices[t]
        active = evidence.codes.values[t] != 0
        found.append(
            (len(before), *(set(slots[m].tolist()) for m in (active, active & flags[0][t], active & flags[1][t])))
        )
    return found


def brute(meter: Meter, twins: list[Twin]) -> dict[tuple[str, str, str, str], float]:
    """The whole definition, with sets."""
    pairs: list[tuple[bool, bool, bool, bool, bool]] = []
    for twin in twins:
        words = list(zip(twin.clean.split(), twin.corrupted.split(), strict=True))
        changed = [a != b for a, b in words]
        harmless = rewritten(twin.clean, [i for i, c in enumerate(changed) if c]).text
        sides = [read(meter, text) for text in (twin.clean, twin.corrupted, harmless)]

        def used(side: Marks, word: int, changed: list[bool] = changed) -> Marks:
            mine = [m for m in side if m[0] == word]
            return mine if changed[word] else mine[-1:]

        for word, touched in enumerate(changed):
            clean, odd, calm = (used(side, word) for side in sides)
            known = set().union(*(m[1] for m in clean))
            usual = set().union(*(m[1] for m in calm))
            for _, active, one, two in odd:
                for f in active:
                    fresh = f not in known
                    pairs.append((touched, fresh and f not in usual, fresh, f in one, f in two))
    found: dict[tuple[str, str, str, str], float] = {}
    for words, keep in (("all", None), ("changed", True), ("unchanged", False)):
        mine = [p for p in pairs if keep is None or p[0] is keep]
        for oracle, column in (("f3", 1), ("f3_plain", 2)):
            for name, flag in (("active", None), ("fallacious_f1", 3), ("fallacious_f2", 4)):
                flagged = [p for p in mine if flag is None or p[flag]]
                hit, false = sum(p[column] for p in flagged), sum(p[column] for p in mine)
                share = hit / false if false else 0.0
                wrong, true = len(flagged) - hit, len(mine) - false
                both = len(flagged) + false
                values = (
                    hit / len(flagged) if flagged else 0.0,
                    share,
                    2 * hit / both if both else 0.0,
                    share - (wrong / true if true else 0.0),
                )
                found |= {(name, oracle, words, m): v for m, v in zip(METRICS, values, strict=True)}
    return found


@pytest.fixture(scope="module")
def result(meter: Meter) -> FallaciousResult:
    return predict_f3(meter, TWINS, resamples=200)


def test_equals_the_definition(meter: Meter, result: FallaciousResult) -> None:
    wanted = brute(meter, TWINS)
    found = {(r.detector, r.oracle, r.words, r.metric): r for r in result.rows if not r.against}
    assert found.keys() == wanted.keys()
    for key, row in found.items():
        assert row.estimate == pytest.approx(wanted[key], abs=1e-9), key
        assert row.n_pairs == len(TWINS)
    assert found["active", "f3", "all", "recall"].estimate == 1.0
    assert found["active", "f3", "all", "informedness"].estimate == pytest.approx(0.0)
    assert 0 < found["fallacious_f2", "f3", "all", "recall"].estimate < 1


def test_differences_are_paired(result: FallaciousResult) -> None:
    plain = {(r.detector, r.oracle, r.words, r.metric): r for r in result.rows if not r.against}
    differences = [r for r in result.rows if r.against]
    assert {(r.detector, r.against) for r in differences} == {
        ("fallacious_f2", "fallacious_f1"),
        ("fallacious_f2", "active"),
    }
    for row in differences:
        place = (row.oracle, row.words, row.metric)
        gap = plain["fallacious_f2", *place].estimate - plain[row.against, *place].estimate
        assert row.estimate == pytest.approx(gap)
        assert row.low <= row.high


def test_chunks_and_batches_change_nothing(meter: Meter, result: FallaciousResult) -> None:
    assert predict_f3(meter, TWINS, resamples=200, chunk=3, batch_tokens=64).rows == result.rows


def test_sizes_of_f3(result: FallaciousResult) -> None:
    assert result.f3.estimate == pytest.approx(result.fresh.estimate - result.harmless.estimate)
    assert result.fresh.low <= result.fresh.estimate <= result.fresh.high
    assert result.tokens >= sum(len(t.split()) for t in TEXTS)
    changed = sum(a != b for t in TWINS for a, b in zip(t.clean.split(), t.corrupted.split(), strict=True))
    assert sum(result.rewrites.values()) == changed
    assert result.to_json()["rewrites"] == result.rewrites


def text(tokens: list[tuple[int, set[int], set[int]]]) -> TokenText:
    """Tokens by word, active concepts, and those of them that F2 flags; F1 flags concept 4."""
    indices, values = torch.zeros(len(tokens), 5, dtype=torch.int64), torch.zeros(len(tokens), 5)
    for t, (_, active, _) in enumerate(tokens):
        indices[t, : len(active)], values[t, : len(active)] = torch.tensor(sorted(active)), 1.0
    f2 = torch.tensor(
        [[s < len(a) and int(indices[t, s]) in f for s in range(5)] for t, (_, a, f) in enumerate(tokens)]
    )
    codes = Codes(indices, values, 8)
    return TokenText(codes, torch.tensor([word for word, _, _ in tokens]), (indices == 4) & (values != 0), f2)


def test_by_hand() -> None:
    clean = text([(0, {1}, set()), (0, {2}, set()), (1, {3}, set())])
    # Word 0 changed: both its tokens meet {1, 2}. Word 1 did not: its last token meets {3}, the first is left out.
    odd = text([(0, {1, 4}, {4}), (0, {2, 5, 6}, {2, 6}), (1, {7}, {7}), (1, {3, 6}, set())])
    calm = text([(0, {2, 5}, set()), (1, {3}, set())])
    found = tally(clean, odd, calm, torch.tensor([True, False]))
    assert found.tokens.tolist() == [2, 1]
    assert found.flagged.tolist() == [[5, 1, 3], [2, 0, 0]]
    assert found.false.tolist() == [[2, 3], [1, 1]], "concept 5 fires in the rewrite too"
    assert found.hit.tolist() == [[[2, 1, 2], [3, 1, 2]], [[1, 0, 0], [1, 0, 0]]]
    assert found.harmless.tolist() == [2, 0], "one fresh concept in the rewrite, for each of two tokens"


def test_words_that_were_kept_out_are_not_compared() -> None:
    odd = text([(0, {4}, {4}), (1, {5}, set())])
    found = tally(text([(1, {5}, set())]), odd, odd, torch.tensor([True, True]))
    assert found.tokens.tolist() == [1, 0]
    assert found.false.sum() == 0


def test_refusals(meter: Meter) -> None:
    with pytest.raises(UsageError, match="pair 'a' has 3 clean and 2 corrupted words"):
        predict_f3(meter, [Twin("a", "one two three", "one two")] * 8)
    with pytest.raises(TooFewSamples, match="2 pairs give no interval; at least 8"):
        predict_f3(meter, TWINS[:2])
    with pytest.raises(TooFewSamples, match="no concept of the corrupted texts is false"):
        predict_f3(meter, [Twin(t.id, t.clean, t.clean) for t in TWINS])
    few: Normal = meter.normal._replace(detectors={"fallacious_f1": meter.normal.detectors["fallacious_f1"]})
    bare = Meter(meter.extractor, meter.sae, meter.info, few, main=meter.main, details=meter.details)
    with pytest.raises(UsageError, match="the meter lacks fallacious_f1 or fallacious_f2"):
        predict_f3(bare, TWINS)
