import copy
import math

import pytest
import torch
from tests.train.planted import D_MODEL, Planted, config

from perimetry.errors import NonFinite
from perimetry.runtime import generator
from perimetry.sae import TopKSAE
from perimetry.sae.affine import tiny_weights
from perimetry.train.trainer import Trainer, apply_gradients


def trainer(**changes: object) -> Trainer:
    return Trainer(config(**changes), 0.05, torch.zeros(D_MODEL))


def test_one_update_by_a_second_hand() -> None:
    """Parallel part off, clip, Adam's first step, rows back to norm 1: in that order."""
    sae = TopKSAE(tiny_weights(), k=2)
    reference = copy.deepcopy(sae).double()
    source = generator(8)
    gradients = {n: torch.randn(p.shape, generator=source) for n, p in sae.named_parameters()}
    expected = {n: g.double() for n, g in gradients.items()}
    rows = reference.W_dec.detach()
    expected["W_dec"] = expected["W_dec"] - (expected["W_dec"] * rows).sum(1, keepdim=True) * rows
    norm = math.sqrt(sum(float(g.square().sum()) for g in expected.values()))
    optimizer = torch.optim.Adam(sae.parameters(), lr=0.01, betas=(0.9, 0.999), fused=True)
    assert apply_gradients(sae, optimizer, gradients, clip=1.0, unit_decoder=True) == pytest.approx(norm, rel=1e-5)
    for name, parameter in reference.named_parameters():
        g = expected[name] / norm
        moved = parameter.detach() - 0.01 * g / (g.abs() + 1e-8)
        if name == "W_dec":
            moved = moved / moved.norm(dim=1, keepdim=True)
        torch.testing.assert_close(dict(sae.named_parameters())[name].double(), moved, rtol=1e-3, atol=1e-5)


def test_decoder_rows_keep_norm_one_and_may_be_left_free() -> None:
    source = Planted()
    tied, free = trainer(), trainer(unit_decoder=False)
    for step in range(5):
        for one in (tied, free):
            one.advance(source.draw(64, step))
    assert (tied.sae.W_dec.norm(dim=1) - 1).abs().max() < 1e-5
    assert (free.sae.W_dec.norm(dim=1) - 1).abs().max() > 1e-4


def test_dead_counters_count_tokens_and_revive() -> None:
    one = trainer(dead_after=128)
    results = [one.advance(Planted().draw(64, 0)) for _ in range(3)]
    never = ~(results[0].fired | results[1].fired | results[2].fired)
    assert bool(never.any())
    assert bool((one.since_fired[never] == 192).all())
    assert bool((one.since_fired[results[2].fired] == 0).all())
    assert torch.equal(one.dead(), one.since_fired >= 128)
    with torch.no_grad():
        dict(one.sae.named_parameters())["b_enc"][never] = 10.0
    one.advance(Planted().draw(64, 1))
    assert bool((one.since_fired[never] == 0).any())


def test_the_aux_term_starts_when_latents_are_dead() -> None:
    one = trainer(dead_after=100)
    terms = [one.advance(Planted().draw(64, step)).aux for step in range(4)]
    assert terms[:2] == [0.0, 0.0]
    assert terms[2] > 0


def test_the_running_threshold_is_corrected_for_its_start() -> None:
    one = trainer()
    smallest = [one.advance(Planted().draw(64, step)).smallest for step in range(3)]
    weights = [0.001 * 0.999 ** (2 - i) for i in range(3)]
    expected = sum(w * float(s or 0) for w, s in zip(weights, smallest, strict=True)) / sum(weights)
    assert one.threshold == pytest.approx(expected, rel=1e-9)


def test_a_loss_that_is_no_number_is_refused() -> None:
    one = trainer()
    with torch.no_grad():
        dict(one.sae.named_parameters())["b_dec"][0] = torch.nan
    with pytest.raises(NonFinite, match=r"step 0: the loss is nan .* lower lr or sparsity"):
        one.advance(Planted().draw(64, 0))


@pytest.mark.parametrize("name", ["batchtopk", "jumprelu", "standard", "topk"])
def test_state_and_load_give_the_same_next_bits(name: str) -> None:
    source, one = Planted(), trainer(architecture=name, dead_after=100)
    for step in range(4):
        one.advance(source.draw(64, step))
    other = trainer(architecture=name, dead_after=100, seed=0)
    other.load(one.state())
    for step in range(4, 8):
        assert one.advance(source.draw(64, step)).loss == other.advance(source.draw(64, step)).loss
    for mine, theirs in zip(one.sae.parameters(), other.sae.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    assert torch.equal(one.since_fired, other.since_fired)
    assert one.threshold == other.threshold
