"""The toy of the steering lab."""

import torch

from perimetry.labs.steering.toy import ANSWER, answers, train_toy

PLUS_SET, MINUS_SET = range(28, 40), range(40, 52)


def test_negative_answers_are_the_positive_ones_turned() -> None:
    both = answers(40, 0)
    assert torch.equal(both.positive[:, :ANSWER], both.negative[:, :ANSWER])
    changed = both.positive != both.negative
    assert 0.35 < float(changed[:, ANSWER:].float().mean()) < 0.65
    assert set(both.positive[changed].tolist()) <= set(PLUS_SET)
    assert torch.equal(both.negative[changed], both.positive[changed] + 12)
    assert not bool(((both.positive >= MINUS_SET.start) & (both.positive < MINUS_SET.stop)).any())


def test_no_push_changes_nothing_and_a_push_does() -> None:
    toy = train_toy(0, 20)
    both = answers(10, 1)
    before = toy.likelihoods(both.positive)
    torch.testing.assert_close(toy.likelihoods(both.positive, 0 * toy.direction), before)
    assert not torch.allclose(toy.likelihoods(both.positive, 5 * toy.direction), before)
    moved = toy.states(both.positive, toy.direction) - toy.states(both.positive)
    torch.testing.assert_close(moved, toy.direction.expand_as(moved), atol=1e-5, rtol=0)
