"""Gradients made in the memory of an average that Adam does not read."""

import pytest
import torch
from tests.train.planted import D_MODEL, Planted, config

from perimetry.sae.steps import products
from perimetry.sae.steps.room import zeros
from perimetry.train.trainer import Trainer


@pytest.mark.parametrize("name", ["jumprelu", "gated"])
def test_training_with_lent_memory_changes_no_bit(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "DENSE_ABOVE", -1.0)
    made = config(architecture=name, clip=1e-2)
    one, two = (Trainer(made, 0.05, torch.zeros(D_MODEL)) for _ in range(2))
    monkeypatch.setattr(two, "_spare", dict)
    for step in range(5):
        batch = Planted().draw(64, step)
        if step:
            assert one._spare()["W_dec"] is one.optimizer.state[one.sae.W_dec]["exp_avg"]
        one.advance(batch)
        two.advance(batch)
    ours, theirs = one.state().tensors, two.state().tensors
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    assert float(ours["adam.exp_avg.W_dec"].abs().max()) > 0


def test_nothing_is_lent_where_the_average_is_read() -> None:
    made = Trainer(config(architecture="standard", beta1=0.9), 0.05, torch.zeros(D_MODEL))
    made.advance(Planted().draw(64, 0))
    assert made._spare() == {}
    like = torch.ones(3)
    assert zeros("W_dec", like) is not like
