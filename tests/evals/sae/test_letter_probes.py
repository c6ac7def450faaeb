"""Probes for first letters: the L1 probe is at its optimum, and the ranking follows it."""

import math

import torch
from scipy import optimize, sparse
from tests.evals.sae.planted_letters import planted
from torch import Tensor

from perimetry.evals.sae.letter_probes import csr_of, f1, fit_probe, l1_weights, main_latents, ranked_latents
from perimetry.sae.base import Codes


def test_f1() -> None:
    truth = torch.tensor([True, True, False, False])
    assert f1(truth, truth) == 1
    assert f1(~truth, truth) == 0
    assert f1(torch.zeros(4).bool(), torch.zeros(4).bool()) == 0
    assert f1(torch.tensor([True, False, True, False]), truth) == 0.5


def test_l1_weights_are_the_optimum() -> None:
    """The subgradient of each letter's loss holds 0 at the weights, with the bias that is best for them."""
    draw = torch.Generator().manual_seed(2)
    x = (torch.rand(60, 9, generator=draw) * (torch.rand(60, 9, generator=draw) < 0.4)).double() * 3
    truth = torch.stack([x[:, 0] + x[:, 1] > 1.5, x[:, 2] > 1.0], 1)
    l1 = 0.01
    weights = l1_weights(sparse.csr_array(x.numpy()), truth, l1)
    assert 0 < int((weights != 0).sum()) < weights.size
    for i in range(2):
        y = truth[:, i].double()
        share = torch.where(truth[:, i], 0.5 / y.sum(), 0.5 / (1 - y).sum())
        w = torch.tensor(weights[:, i], requires_grad=True)

        def loss(bias: float, w: Tensor = w, y: Tensor = y, share: Tensor = share) -> Tensor:
            scores = x @ w + bias
            return (share * torch.nn.functional.binary_cross_entropy_with_logits(scores, y, reduction="none")).sum()

        bias = float(optimize.minimize_scalar(lambda b: float(loss(b).detach()), tol=1e-12).x)  # pyright: ignore[reportAttributeAccessIssue]
        (slope,) = torch.autograd.grad(loss(bias), w)
        for g, value in zip(slope.tolist(), weights[:, i].tolist(), strict=True):
            assert abs(g) <= l1 * 1.01
            if value:
                assert math.isclose(g, -math.copysign(l1, value), rel_tol=0.01)


def test_latents_are_ranked_by_weight_then_by_difference_and_only_if_they_fire() -> None:
    truth = torch.tensor([[True]] * 10 + [[False]] * 10)
    x = torch.zeros(20, 6)
    x[:10, 4] = 2.0  # writes the letter
    x[:3, 2] = 1e-3  # too weak to be worth its weight, more at the letter
    x[10:13, 1] = 1e-3  # less
    x[[0, 10], 5] = 1e-3  # as much
    codes = Codes(torch.arange(6).expand(20, 6), x, 6)
    (ranked,) = ranked_latents(csr_of(codes, torch.ones(6)), truth, 0.05, 6)
    assert ranked.tolist() == [4, 2, 5, 1]
    (first,) = ranked_latents(csr_of(codes, torch.ones(6)), truth, 0.05, 1)
    assert first.tolist() == [4]


def test_sparse_codes_are_the_codes_times_the_factors() -> None:
    codes = planted(2).codes
    factors = torch.rand(codes.width, generator=torch.Generator().manual_seed(0)).double()
    dense = codes.dense().double() * factors
    torch.testing.assert_close(torch.from_numpy(csr_of(codes, factors).toarray()), dense)


def test_a_probe_weighs_both_classes_the_same() -> None:
    # Ten times the rows of one class leave the probe where it was.
    x = torch.tensor([[0.0], [1.0], [1.0], [2.0]])
    truth = torch.tensor([False, True, False, True])
    more = torch.cat([torch.arange(4), torch.tensor([0, 2] * 9)])
    one, many = fit_probe(x, truth, 0.1), fit_probe(x[more], truth[more], 0.1)
    torch.testing.assert_close(one.weights, many.weights, atol=1e-4, rtol=0)
    assert math.isclose(one.bias, many.bias, abs_tol=1e-4)
    assert math.isclose(float(one.scores(torch.ones(1, 1))), 0, abs_tol=1e-4)


def test_one_latent_more_must_add_more_than_the_rise() -> None:
    # Latent 0 finds 16 of 20 words of the letter, latent 1 two more, latent 2 the last two.
    x = torch.zeros(40, 3)
    x[:16, 0], x[16:18, 1], x[18:20, 2] = 1.0, 1.0, 1.0
    truth = torch.arange(40) < 20
    codes = sparse.csc_array(x.double().numpy())
    steps = [2 * n / (n + 20) for n in (16, 18, 20)]
    for rise, taken in ((0.03, 3), (0.055, 2), (0.06, 1), (0.9, 1)):
        main = main_latents((codes, codes), (truth, truth), torch.arange(3), rise, 1e-3)
        assert main.latents.tolist() == [0, 1, 2][:taken]
        assert math.isclose(main.f1, steps[taken - 1])
    assert 0.03 < steps[2] - steps[1] < 0.055 < steps[1] - steps[0] < 0.06


def test_the_first_latent_is_taken_whatever_its_worth() -> None:
    codes = sparse.csc_array(torch.ones(8, 2).double().numpy())
    truth = torch.tensor([True, False] * 4)
    assert main_latents((codes, codes), (truth, truth), torch.tensor([1, 0]), 0.03, 1e-3).latents.tolist() == [1]
