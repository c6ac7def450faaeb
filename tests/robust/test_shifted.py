import pytest
import torch

from perimetry.errors import Incompatible, TooFewSamples
from perimetry.robust.shifted import Energy, codes_with_gradient, fit_shift
from perimetry.sae import ARCHITECTURES
from perimetry.sae.batchtopk import BatchTopKSAE
from perimetry.sae.matching_pursuit import MatchingPursuitSAE


def acts_of(n: int = 60, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    found = torch.randn(n, 32, generator=torch.Generator().manual_seed(seed))
    return found, torch.arange(n) // 10


def dense_energy(sae: BatchTopKSAE, made: Energy, acts: torch.Tensor) -> torch.Tensor:
    """The same on dense latents, for plain autograd."""
    given = acts - sae.b_dec if sae.subtract_b_dec else acts
    pre = given @ sae.W_enc.T + sae.b_enc
    latents = torch.where(pre > sae.threshold, pre, 0.0)
    error = (acts - latents @ sae.W_dec - sae.b_dec).square().sum(1)
    return (error / made.scale + latents @ made.weights).mean() / made.normal


def test_energy_and_its_gradient_are_those_of_dense_latents(sae: BatchTopKSAE) -> None:
    clean, prompt = acts_of()
    made = fit_shift("energy", sae, clean, prompt)
    assert isinstance(made, Energy)
    one, other = (acts_of(seed=1)[0].requires_grad_() for _ in range(2))
    found, wanted = made(one, prompt), dense_energy(sae, made, other)
    assert float(found) == pytest.approx(float(wanted), rel=1e-5)
    found.backward()
    wanted.backward()
    torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("pull", ["energy", "concepts", "residual"])
def test_clean_text_has_one_and_far_text_has_more(sae: BatchTopKSAE, pull: str) -> None:
    clean, prompt = acts_of()
    made = fit_shift(pull, sae, clean, prompt)  # pyright: ignore[reportArgumentType]
    assert float(made(clean, prompt)) == pytest.approx(1, rel=1e-5)
    assert float(made(clean * 3 + 2, prompt)) > 1.5


@pytest.mark.parametrize("name", ["batchtopk", "topk", "jumprelu", "standard", "matryoshka"])
def test_values_are_those_of_the_encoder(name: str) -> None:
    sae = ARCHITECTURES[name].tiny()
    acts = torch.randn(20, 8, generator=torch.Generator().manual_seed(0))
    active, values = codes_with_gradient(sae, acts)  # pyright: ignore[reportArgumentType]
    torch.testing.assert_close(values, active.values, rtol=1e-4, atol=1e-5)


def test_a_dictionary_whose_gradient_is_not_known_is_refused() -> None:
    acts = torch.randn(40, 8, generator=torch.Generator().manual_seed(0))
    with pytest.raises(Incompatible, match="encoder matrix"):
        fit_shift("energy", MatchingPursuitSAE.tiny(), acts, torch.arange(40) // 10)


def test_too_little_clean_text_is_refused(sae: BatchTopKSAE) -> None:
    acts, prompt = acts_of(20)
    with pytest.raises(TooFewSamples, match="20 clean tokens of 2 texts"):
        fit_shift("residual", None, acts, prompt)


def test_a_dictionary_that_always_fires_is_refused(sae: BatchTopKSAE) -> None:
    sae.threshold = 0.0
    acts, prompt = acts_of()
    with pytest.raises(Incompatible, match="more than half of all tokens"):
        fit_shift("energy", sae, acts + 5, prompt)
