import math

import pytest
import torch
from tests.train.planted import D_MODEL, Planted, config

from perimetry.errors import ConfigError
from perimetry.sae import AffineSAE
from perimetry.sae.steps.base import Smooth
from perimetry.sae.terms.ortho import chunks_of, ortho_term
from perimetry.train import TrainConfig
from perimetry.train.constraints import Constraints
from perimetry.train.trainer import Trainer


def trainer(**changes: object) -> Trainer:
    return Trainer(config(**changes), 0.05, torch.zeros(D_MODEL))


def sae_of(one: Trainer) -> AffineSAE:
    assert isinstance(one.sae, AffineSAE)
    return one.sae


def run(one: Trainer, steps: int = 8) -> Trainer:
    for step in range(steps):
        one.advance(Planted().draw(64, step))
    return one


def test_nothing_is_asked_by_default() -> None:
    one = trainer()
    assert one.constraints is None
    assert one.objective().k is None
    assert one.objective().smooth is None


@pytest.mark.parametrize(
    ("frozen", "still"), [("decoder", {"W_dec"}), ("encoder", {"W_enc", "b_enc"}), ("soft_decoder", set())]
)
@pytest.mark.parametrize("name", ["batchtopk", "gated", "jumprelu"])
def test_frozen_parts_keep_every_bit(frozen: str, still: set[str], name: str) -> None:
    one = trainer(architecture=name, frozen=frozen, lr=3e-2)
    first = {n: p.detach().clone() for n, p in one.sae.named_parameters()}
    run(one)
    moved = {n for n, p in one.sae.named_parameters() if not torch.equal(p, first[n])}
    assert not moved & still
    assert {"W_enc", "W_dec", "b_dec"} - still <= moved


def test_a_soft_frozen_decoder_reaches_the_rim_of_its_cone_and_no_further() -> None:
    one = trainer(frozen="soft_decoder", soft_cosine=0.95, lr=0.1)
    first = one.sae.W_dec.detach().clone()
    cosines = (run(one).sae.W_dec.detach() * first).sum(1)
    assert float(cosines.min()) == pytest.approx(0.95, abs=1e-5)
    free = trainer(lr=0.1)
    assert float((run(free).sae.W_dec.detach() * first).sum(1).min()) < 0.9


def test_aligned_rows_have_product_one_after_every_step() -> None:
    one = trainer(aligned=True, lr=3e-2)
    for step in range(8):
        one.advance(Planted().draw(64, step))
        products = (sae_of(one).W_enc * one.sae.W_dec).sum(1).detach()
        assert float((products - 1).abs().max()) < 1e-5
    plain = sae_of(run(trainer(lr=3e-2)))
    assert float(((plain.W_enc * plain.W_dec).sum(1) - 1).detach().abs().max()) > 1e-2


def test_ortho_adds_its_term_of_this_step_to_the_loss_and_the_gradient() -> None:
    one = trainer(ortho=0.5, ortho_chunk=48)
    for step in range(3):
        chunks = chunks_of(128, 48, one.config.seed, step)
        wanted = ortho_term(one.sae.W_dec.detach(), 0.5, chunks)
        assert one.advance(Planted().draw(64, step)).further == pytest.approx(wanted.loss)
    constraints = Constraints.of(one.config, one.sae)
    assert constraints is not None
    gradients = {name: torch.zeros_like(p) for name, p in one.sae.named_parameters()}
    chunks = chunks_of(128, 48, one.config.seed, 9)
    constraints.on_gradients(one.sae, gradients, 9)
    assert torch.equal(gradients["W_dec"], ortho_term(one.sae.W_dec.detach(), 0.5, chunks).gradient)


def test_ortho_lowers_the_cosines() -> None:
    def nearest(one: Trainer) -> float:
        return ortho_term(run(one, 40).sae.W_dec.detach(), 1.0, (torch.arange(128),)).loss

    assert nearest(trainer(ortho=3.0)) < 0.8 * nearest(trainer())


@pytest.mark.parametrize(
    "changes",
    [
        {"ortho": 0.5},
        {"aligned": True},
        {"frozen": "soft_decoder"},
        {"smooth": 0.1, "architecture": "matryoshka"},
        {"k_start": 9, "k_anneal": 0.5},
        {"architecture": "jumprelu", "options": {"mode": "tanh"}},
        {"architecture": "batchtopk", "options": {"select_by_norm": True}, "unit_decoder": False},
        {"architecture": "gated"},
        {"architecture": "hierarchical"},
    ],
)
def test_state_and_load_give_the_same_next_bits(changes: dict[str, object]) -> None:
    source, one = Planted(), run(trainer(**changes), 4)
    other = trainer(**changes)
    other.load(one.state())
    for step in range(4, 8):
        assert one.advance(source.draw(64, step)).loss == other.advance(source.draw(64, step)).loss
    for mine, theirs in zip(one.sae.parameters(), other.sae.parameters(), strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize("changes", [{"ortho": 0.5}, {"aligned": True}, {"smooth": 0.1}, {"k_start": 6}])
def test_the_dense_step_trains_to_the_same_weights(changes: dict[str, object]) -> None:
    sparse, dense = (run(trainer(step=step, lr=1e-3, **changes), 3) for step in ("sparse", "dense"))
    for mine, theirs in zip(sparse.sae.parameters(), dense.sae.parameters(), strict=True):
        assert float((mine - theirs).detach().abs().median()) < 1e-5


def test_the_count_is_annealed() -> None:
    one = trainer(k_start=9, k_anneal=0.1)
    counts = [one.advance(Planted().draw(64, step)).l0 for step in range(8)]
    assert counts == [9, 8, 7, 6, 5, 4, 3, 3]
    jump = trainer(architecture="jumprelu", k_start=9, k_anneal=0.1)
    assert jump.objective().target_l0 == 9.0


def test_what_the_recipe_makes_of_the_options() -> None:
    tanh = config(architecture="jumprelu", options={"mode": "tanh"})
    assert (tanh.window, tanh.peak_sparsity, tanh.scale_rule, tanh.unit_rows) == (2.0, 5.0, "sqrt_d", False)
    assert tanh.sparsity_at(tanh.steps // 2) == pytest.approx(2.5, rel=0.05)
    token = config(architecture="jumprelu", l0_loss="token")
    assert (token.window, token.peak_sparsity) == (0.03, 1e-2)
    step = config(architecture="jumprelu", options={"mode": "step"}, sparsity=0.5)
    assert (step.window, step.peak_sparsity) == (1e-3, 0.5)
    assert config(normalise="none").scale_rule == "none"
    assert config(smooth=0.3).contrast == Smooth(0.3, 0.1, 0.2)
    assert math.isclose(config(architecture="gated").peak_sparsity, 0.024)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": "spade", "ortho": 1.0}, "ortho acts on an encoder and a decoder matrix, spade has others"),
        ({"architecture": "spade", "frozen": "decoder"}, "frozen acts on an encoder and a decoder matrix"),
        ({"architecture": "standard", "k_start": 9}, "k_start = 9 for standard of width 128"),
        ({"k_start": 129}, "k_start = 129 for batchtopk of width 128"),
        ({"smooth": 1.0, "batch": 63}, "smooth wants pairs of tokens, batch = 63 is odd; give an even one"),
        ({"aligned": True, "frozen": "encoder"}, "leave one out"),
        ({"aligned": True, "unit_decoder": False}, "want decoder rows of norm 1; set unit_decoder = true"),
        ({"frozen": "everything"}, "frozen"),
        ({"options": {"mode": "tanh"}}, "unknown key 'mode'"),
    ],
)
def test_what_does_not_fit_together_is_refused(changes: dict[str, object], message: str) -> None:
    from perimetry.config import build

    values = config().model_dump() | changes
    with pytest.raises(ConfigError, match=message):
        build(TrainConfig, values, "configuration [train]")
