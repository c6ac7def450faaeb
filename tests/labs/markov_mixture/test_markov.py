"""The world, the algorithms and the exact detectors, each against a second way of computing it."""

import itertools
import math

import pytest
import torch

from perimetry.labs.markov_mixture.algorithms import (
    algorithm_matrices,
    counts_of,
    fit_weights,
    log_likelihoods,
    matrix_kl,
    mixed,
)
from perimetry.labs.markov_mixture.attachment import mutual_information, separation
from perimetry.labs.markov_mixture.optimal import log_fresh, log_known, log_near, log_unordered
from perimetry.labs.markov_mixture.phases import contexts_of, phase_of, resampled, retrieves
from perimetry.labs.markov_mixture.training import MarkovArm, train_states
from perimetry.labs.markov_mixture.world import Mixture, fresh_chains, published_chains
from perimetry.labs.nano import Nano, NanoConfig
from perimetry.runtime import generator


def test_the_published_chains_are_those() -> None:
    _, prior = published_chains(4)
    torch.testing.assert_close(prior, torch.tensor([0.14102, 0.35796, 0.27561, 0.22541]), atol=1e-5, rtol=0)


def test_stationary_chances_stay() -> None:
    chains = fresh_chains(20, 5, 0)
    moved = (chains.stationary[:, None] @ chains.transitions)[:, 0]
    torch.testing.assert_close(moved, chains.stationary, atol=1e-6, rtol=0)


def test_sequences_have_the_steps_of_their_chain() -> None:
    mixture = Mixture(2, 3, 1)
    found = mixture.of_chain(1, 400, 100, generator(0))
    counts = counts_of(found.ids, 3).sum(0)
    shares = (counts / counts.sum(1, keepdim=True)).float()
    torch.testing.assert_close(shares, mixture.chains.transitions[1], atol=0.03, rtol=0)


def test_chances_of_all_sequences_sum_to_one() -> None:
    mixture = Mixture(3, 3, 2)
    every = torch.tensor(list(itertools.product(range(3), repeat=4)))
    unordered = log_unordered(mixture, every)
    for values in (log_known(mixture, every), log_fresh(3, every), log_near(mixture, 10.0, every), unordered):
        assert float(values.exp().sum()) == pytest.approx(1.0, rel=1e-6)
    torch.testing.assert_close(unordered, log_unordered(mixture, every.flip(1)))


def test_the_chance_under_a_chain_is_the_product_of_its_steps() -> None:
    mixture = Mixture(2, 4, 3)
    ids = mixture.known(5, 9, generator(1)).ids
    found = log_likelihoods(mixture.chains, ids)
    for row, sequence in enumerate(ids.tolist()):
        for chain in range(2):
            total = math.log(float(mixture.chains.stationary[chain, sequence[0]]))
            total += sum(
                math.log(float(mixture.chains.transitions[chain, a, b])) for a, b in itertools.pairwise(sequence)
            )
            assert float(found[row, chain]) == pytest.approx(total, rel=1e-5)


def test_algorithms_by_hand() -> None:
    mixture = Mixture(3, 3, 4)
    ids = mixture.known(4, 7, generator(2)).ids
    found = algorithm_matrices(mixture, ids)
    for context, state in itertools.product(range(4), range(3)):
        inserted = ids[context].clone()
        inserted[-1] = state
        counts = counts_of(inserted[None], 3)[0] + 1
        torch.testing.assert_close(found["Bi-Inf"][context, state], counts[state] / counts[state].sum())
        weights = (mixture.prior.double().log() + log_likelihoods(mixture.chains, inserted[None])[0]).softmax(0)
        torch.testing.assert_close(
            found["Bi-Ret"][context, state], weights @ mixture.chains.transitions[:, state].double()
        )
    for matrices in found.values():
        torch.testing.assert_close(matrices.sum(2), torch.ones(4, 3, dtype=torch.float64), atol=1e-6, rtol=0)


def test_the_mix_is_found_again_and_lies_on_the_simplex() -> None:
    mixture = Mixture(4, 4, 5)
    by = algorithm_matrices(mixture, mixture.known(60, 30, generator(3)).ids)
    wanted = {"Uni-Ret": 0.0, "Bi-Ret": 0.3, "Uni-Inf": 0.0, "Bi-Inf": 0.7}
    fit = fit_weights(mixed(wanted, by), by)
    assert fit.weights == pytest.approx(wanted, abs=1e-6)
    assert fit.error == pytest.approx(0, abs=1e-6)
    noisy = fit_weights(torch.rand(60, 4, 4, dtype=torch.float64, generator=generator(4)), by)
    assert sum(noisy.weights.values()) == pytest.approx(1)
    assert min(noisy.weights.values()) >= 0


def test_the_divergence_takes_the_estimate_first() -> None:
    mixture = Mixture(1, 3, 6)
    truth = mixture.chains.transitions.double()
    assert float(matrix_kl(truth, mixture.chains, torch.tensor([0]))[0]) == pytest.approx(0, abs=1e-6)
    even = torch.full((1, 3, 3), 1 / 3, dtype=torch.float64)
    by_hand = sum(
        float(mixture.chains.stationary[0, s])
        * sum((1 / 3) * math.log((1 / 3) / float(truth[0, s, j])) for j in range(3))
        for s in range(3)
    )
    assert float(matrix_kl(even, mixture.chains, torch.tensor([0]))[0]) == pytest.approx(by_hand, rel=1e-5)


def test_information_and_shares_of_the_optimum() -> None:
    fires = torch.tensor([True, False] * 8)
    assert mutual_information(fires, torch.zeros(16, dtype=torch.int64)) == pytest.approx(0)
    assert mutual_information(fires, fires.long()) == pytest.approx(math.log(2))
    found = separation({"l0": {5: 0.75, 50: 0.9}}, {5: 0.75, 50: 0.999})
    assert found == {"l0": {5: pytest.approx(1.0)}}, "where the best is perfect, a share says nothing"


def test_training_lowers_the_loss_and_stops_where_it_is_told() -> None:
    arm = MarkovArm(chains=2, steps=40, length=30, batch=16)
    mixture = arm.mixture(0)
    ids = mixture.known(64, 30, generator(9)).ids
    before = float(arm.model(0).loss(ids).detach())
    seen = [(step, float(model.loss(ids).detach())) for step, model in train_states(arm, mixture, 0, [10, 40])]
    assert [step for step, _ in seen] == [10, 40]
    assert before > seen[0][1] > seen[1][1]


class Exact(Nano):
    """Answers as inference of the steps does: what a model of many chains comes to do."""

    def __init__(self) -> None:
        torch.nn.Module.__init__(self)

    def after(self, ids: torch.Tensor, k: int) -> torch.Tensor:
        found = []
        for s in range(k):
            counts = counts_of(torch.cat([ids, torch.full((len(ids), 1), s)], 1), k) + 1
            found.append((counts[:, s] / counts[:, s].sum(1, keepdim=True)).log())
        return torch.stack(found, 1)


def test_who_infers_steps_loses_them_with_the_order() -> None:
    """Negative controls of the mix: without order nearer to Uni-Inf, and not foretold by a mix that may not infer steps."""
    contexts = contexts_of(Mixture(512, 5, 0), 60, 100, 0)
    model = Exact()
    phase = phase_of(model, contexts)
    lines = {
        name: float(matrix_kl(contexts.fresh_by[name], contexts.fresh_chains, contexts.fresh.chain).mean())
        for name in ("Bi-Inf", "Uni-Inf")
    }
    assert phase.fresh == pytest.approx(lines["Bi-Inf"], rel=1e-6)
    assert phase.weights["Bi-Inf"] == pytest.approx(1.0, abs=1e-6)
    assert abs(phase.foretold - phase.fresh) < 1e-6
    assert abs(phase.shuffled - lines["Uni-Inf"]) < abs(phase.shuffled - lines["Bi-Inf"])
    without = phase_of(model, contexts, without="Bi-Inf")
    assert abs(without.foretold - phase.fresh) > 0.15
    ends = resampled(model, contexts, 0)
    assert ends["Bi-Inf"] == pytest.approx((1.0, 1.0), abs=1e-6)
    assert 0.3 < float(retrieves(model, contexts, 0).mean()) < 0.7


class Retrieving(Nano):
    """Answers with the chain of a mixture that is likeliest to have made the context."""

    def __init__(self, mixture: Mixture) -> None:
        torch.nn.Module.__init__(self)
        self.mixture = mixture

    def after(self, ids: torch.Tensor, k: int) -> torch.Tensor:
        return self.mixture.chains.transitions[log_likelihoods(self.mixture.chains, ids).argmax(1)].log()


def test_who_retrieves_is_nearer_to_the_mixture() -> None:
    mixture = Mixture(4, 5, 1)
    contexts = contexts_of(mixture, 40, 100, 1)
    assert float(retrieves(Retrieving(mixture), contexts, 0).mean()) == 1.0


@pytest.mark.parametrize("positions", ["rotary", "learned"])
def test_candidates_do_not_see_each_other(positions: str) -> None:
    """One pass over all candidates says what a pass for each says."""
    model = Nano(NanoConfig.model_validate({"vocab": 5, "context": 12, "positions": positions, "deviation": 0.5}), 0)
    ids = torch.randint(0, 5, (3, 9), generator=generator(4))
    one_by_one = [model(torch.cat([ids, torch.full((3, 1), s)], 1))[:, -1] for s in range(5)]
    found = model.after(ids, 5)
    torch.testing.assert_close(found, torch.stack(one_by_one, 1), rtol=1e-4, atol=1e-5)
    assert float((found[:, 0] - found[:, 1]).abs().max()) > 0.1


def test_rotary_scores_depend_on_the_distance_alone() -> None:
    """Queries and keys turned by their places: the same two tokens at the same distance attend alike, wherever they stand."""
    model = Nano(NanoConfig(vocab=3, context=40, layers=1, deviation=0.5), 1)
    ids = torch.zeros(1, 30, dtype=torch.long)
    (pattern,) = model.patterns(ids)
    ratios = pattern[0, :, 20, 15] / pattern[0, :, 20, 18], pattern[0, :, 29, 24] / pattern[0, :, 29, 27]
    torch.testing.assert_close(ratios[0], ratios[1], rtol=1e-4, atol=1e-6)
    assert float((ratios[0] - 1).abs().max()) > 0.05
