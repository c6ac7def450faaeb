"""Sequences, what is predicted in them and what is new."""

import copy

import pytest
import torch

from perimetry.errors import ConfigError
from perimetry.runtime import generator
from perimetry.sae.base import Start
from perimetry.sae.steps import products
from perimetry.sae.steps.auto import autograd_step, dense_step
from perimetry.sae.steps.base import Objective
from perimetry.sae.temporal import TemporalOptions, TemporalRules, TemporalSAE


def fresh(context: int = 5, k: int = 3, **options: object) -> TemporalSAE:
    made = TemporalOptions.model_validate({"context": context, "bottleneck": 4, **options})
    return TemporalSAE.fresh(Start(torch.linspace(-0.5, 0.5, 6), 16, k, 0, options=made))


@pytest.fixture
def acts() -> torch.Tensor:
    return torch.randn(40, 6, generator=generator(3))


def test_worked_by_hand() -> None:
    sae = TemporalSAE(torch.eye(2), torch.zeros(2), 1, TemporalRules(k=1, context=2, heads=1, slope=1.0))
    with torch.no_grad():
        sae.value.weight.copy_(torch.eye(2))
        sae.mix.weight.copy_(torch.eye(2))
    # Queries of 0 attend evenly: the second token to the empty start and to the first, whose direction takes (1, 0) of it.
    tokens = torch.tensor([[1.0, 0.0], [1.0, 2.0], [3.0, 0.0], [0.0, 1.0]])
    novel, predicted = sae.parts(tokens)
    assert predicted.tolist() == [[0, 0], [1, 0], [0, 0], [0, 0]]
    assert novel.indices.tolist() == [[0], [1], [0], [1]]
    assert novel.values.tolist() == [[1], [2], [3], [1]]
    assert torch.equal(sae(tokens).reconstruction, tokens)
    assert sae.decode(novel).tolist() == [[1, 0], [0, 2], [3, 0], [0, 1]]


@pytest.mark.parametrize("context", [1, 2, 5, 40])
@pytest.mark.parametrize("heads", [1, 4])
def test_gradients_within_sequences(context: int, heads: int, acts: torch.Tensor) -> None:
    sae = fresh(context, heads=heads)
    with torch.no_grad():
        for layer in (sae.query, sae.key, sae.value, sae.mix):
            layer.weight.mul_(3)
            if layer is not sae.key:
                layer.bias.add_(0.05)
    found = autograd_step(sae, acts, Objective())
    wanted = dense_step(copy.deepcopy(sae).double(), acts.double(), Objective())
    assert context == 1 or float(wanted.gradients["key.weight"].abs().max()) > 1e-6
    for name, reference in wanted.gradients.items():
        error = float((found.gradients[name].double() - reference).abs().max())
        assert error <= 1e-5 * float(reference.abs().max()) + 1e-9, name
    assert found.loss == pytest.approx(wanted.loss, rel=1e-5)


def test_a_token_changes_nothing_before_it_and_nothing_in_other_sequences(acts: torch.Tensor) -> None:
    sae, other = fresh(10), acts.clone()
    other[14] += 1
    one, two = sae(acts).reconstruction, sae(other).reconstruction
    same = (one == two).all(1)
    assert [i for i in range(40) if not same[i]] == [14, 15, 16, 17, 18, 19]


def test_the_first_token_has_no_prediction_and_the_rest_is_orthogonal_to_it(acts: torch.Tensor) -> None:
    sae = fresh(10)
    predicted = sae.parts(acts).predicted
    assert bool((predicted[::10] == 0).all())
    assert bool((predicted[1::10] != 0).any())
    left = acts - sae.b_dec.detach() - predicted
    torch.testing.assert_close((left * predicted).sum(1), torch.zeros(40), atol=1e-5, rtol=0)


def test_a_last_sequence_may_be_short(acts: torch.Tensor) -> None:
    sae = fresh(12)
    whole = sae(acts)
    torch.testing.assert_close(sae(acts[:3]).reconstruction, whole.reconstruction[:3])
    torch.testing.assert_close(sae(acts[36:]).reconstruction, whole.reconstruction[36:])


def test_chunks_end_with_sequences(acts: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    sae = fresh(4)
    whole = sae(acts).reconstruction
    monkeypatch.setattr(products, "CHUNK_ELEMENTS", 16 * 10)
    torch.testing.assert_close(sae(acts).reconstruction, whole)


def test_a_scale_is_folded_into_products(acts: torch.Tensor) -> None:
    sae = fresh()
    before = sae(0.2 * acts)
    sae.fold_scale(0.2)
    after = sae(acts)
    torch.testing.assert_close(after.codes.dense(), before.codes.dense())
    torch.testing.assert_close(after.reconstruction, 5 * before.reconstruction)
    assert sae.rules.slope == pytest.approx(0.04 / 24)


def test_what_does_not_fit_is_refused(acts: torch.Tensor) -> None:
    with pytest.raises(ConfigError, match="a batch of 38 tokens for sequences of 5; give a batch that is a multiple"):
        autograd_step(fresh(), acts[:38], Objective())
    with pytest.raises(ConfigError, match="3 heads for a width of 16 and queries of 3; give a number of heads"):
        fresh(heads=3)
    with pytest.raises(ConfigError, match="k = 17 for a dictionary of 16 latents"):
        fresh(k=17)


def test_training_a_little_lowers_the_error(acts: torch.Tensor) -> None:
    slow = torch.randn(8, 1, 6, generator=generator(4)).expand(8, 5, 6).reshape(40, 6) + 0.3 * acts
    sae = fresh()
    optimizer = torch.optim.Adam(sae.parameters(), lr=3e-3)
    errors: list[float] = []
    for _ in range(150):
        result = autograd_step(sae, slow, Objective())
        errors.append(result.reconstruction)
        for name, parameter in sae.named_parameters():
            parameter.grad = result.gradients[name]
        optimizer.step()
    assert errors[-1] < 0.3 * errors[0]
