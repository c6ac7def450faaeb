"""The sums of neighbours, and the block that learns them."""

import math

import pytest
import torch

from perimetry.labs.lines import first_where
from perimetry.labs.matrix_completion.attachment import DOSES, AttachConfig, attach_sums
from perimetry.labs.matrix_completion.running import _half_way
from perimetry.labs.matrix_completion.sums import (
    FLOOR,
    LENGTH,
    Sums,
    SumsArm,
    joined,
    looked_at,
    sequences,
    sums,
    train_sums,
)
from perimetry.runtime import generator


def test_sums_by_hand() -> None:
    numbers = torch.tensor([[5, 16, 3, 9]])
    assert sums(numbers).tolist() == [[5, 4, 2, 12]]
    assert sums(numbers, 3).tolist() == [[5, 4, 7, 11]]
    assert sums(numbers, 1).tolist() == [[5, 16, 3, 9]]


def test_sequences_hold_numbers_the_mark_and_their_sums() -> None:
    ids = sequences(50, generator(0))
    assert ids.shape == (50, 2 * LENGTH + 1)
    assert bool((ids[:, LENGTH] == 17).all())
    assert (int(ids[:, :LENGTH].min()), int(ids[:, :LENGTH].max())) == (1, 16)
    assert torch.equal(ids[:, LENGTH + 1 :], sums(ids[:, :LENGTH]))
    free = sequences(200, generator(0), "random")
    assert float((free[:, LENGTH + 1 :] == sums(free[:, :LENGTH])).float().mean()) == pytest.approx(1 / 17, abs=0.02)
    assert pytest.approx(1.300, abs=1e-3) == FLOOR


def test_attention_is_causal_and_linear() -> None:
    model = Sums(16, 0)
    ids = sequences(3, generator(1))
    later = ids.clone()
    later[:, 20:] = 1
    with torch.no_grad():
        one, two = model.read(ids), model.read(later)
        torch.testing.assert_close(one.logits[:, :20], two.logits[:, :20])
        assert not torch.allclose(one.logits[:, 20:], two.logits[:, 20:])
        assert float(one.attention.triu(1).abs().max()) == 0
        assert not torch.allclose(one.attention.sum(2), torch.ones(())), "weights are not a softmax"


def test_even_attention_shares_evenly() -> None:
    model = Sums(16, 0, uniform=True)
    look = looked_at(model, sequences(4, generator(2)))
    rows = range(LENGTH, 2 * LENGTH)
    total = sum((1 if row == LENGTH else 2) / (row + 1) for row in rows)
    # Over the whole of the attention: every row sums to 1.
    assert look.progress == pytest.approx(total / LENGTH, rel=1e-5)
    assert look.total == pytest.approx(math.log(18), abs=0.2)


def test_what_is_written_is_what_is_likeliest_step_by_step() -> None:
    model = Sums(16, 3)
    numbers = sequences(5, generator(3))[:, :LENGTH]
    written = model.write(numbers)
    with torch.no_grad():
        again = model(joined(numbers, written))[:, LENGTH:-1].argmax(-1)
    assert torch.equal(again, written)


def test_training_hands_out_looks_and_lowers_the_loss() -> None:
    arm = SumsArm(width=32, batch=32, lr=2e-3)
    ids = sequences(64, generator(4))
    seen = {step: looked_at(model, ids).total for step, model in train_sums(arm, 0, 25, 10)}
    assert list(seen) == [0, 10, 20, 25]
    assert seen[25] < seen[0] - 0.05


def test_a_meter_of_sums_measures_every_score() -> None:
    measured, meter = attach_sums(Sums(16, 5), AttachConfig(24, 32, 4, 20), 0)
    scores = set(meter.detectors) | {"nll", "entropy", "collapse"}
    follows = {m.case for m in measured if m.metric == "score follows the share of wrong answers"}
    assert follows == scores
    assert {m.case for m in measured if m.metric == "AUROC of the wrong place"} == scores
    again = [m.value for m in measured if m.metric == "AUROC of known again"]
    assert all(0.2 < value < 0.8 for value in again)
    assert DOSES[0] == 0.0


def test_steps_of_a_line() -> None:
    assert first_where([0, 10, 20], (y < 1.0 for y in (3.0, 2.0, 0.5))) == 20
    assert first_where([0, 10, 20], (y < 1.0 for y in (3.0, 2.0, 1.5))) == 40
    assert first_where([0, 10, 20], (y > 0.9 for y in (0.0, 0.95, 1.0))) == 10
    assert _half_way([0, 10, 20], [3.0, 2.0, 1.0]) == 10
