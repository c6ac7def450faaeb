from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.sae.steps.test_parity import OBJECTIVE, batch, compare, make, mask, worst

from perimetry.config import build
from perimetry.errors import ConfigError
from perimetry.sae import MatryoshkaSAE
from perimetry.sae.matryoshka import MatryoshkaOptions, levels
from perimetry.sae.steps import products
from perimetry.sae.steps.auto import dense_step
from perimetry.sae.steps.sparse import sparse_step
from perimetry.sae.steps.stairs import Level

UNEVEN: dict[str, Any] = {"fractions": [0.2, 0.05, 0.75], "weights": [0.5, 0.0, 2.0]}


def nested(seed: int = 0, k: int = 5, n: int = 40, **options: object) -> MatryoshkaSAE:
    state = make("matryoshka", seed, k, n=n).state()
    return MatryoshkaSAE.restore(state._replace(settings=state.settings | options))


@pytest.mark.parametrize("above", [2.0, -1.0])
@pytest.mark.parametrize("options", [UNEVEN, {"fractions": [1.0]}, {"fractions": [0.5, 0.5], "weights": [1, 3]}])
@pytest.mark.parametrize("n_dead", [0, 12, 40])
def test_gradients_equal_dense_autograd(
    above: float, options: dict[str, Any], n_dead: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(products, "DENSE_ABOVE", above)
    acts = batch(50)
    acts[5:8] = 0
    compare(nested(**options), acts, mask(n_dead))


@settings(max_examples=40, deadline=None)
@given(
    tokens=st.integers(1, 25),
    n=st.integers(1, 60),
    k=st.integers(1, 60),
    cuts=st.lists(st.floats(0.01, 1), min_size=1, max_size=6),
    seed=st.integers(0, 999),
)
def test_gradients_in_any_shape(tokens: int, n: int, k: int, cuts: list[float], seed: int) -> None:
    fractions = [c / sum(cuts) for c in cuts]
    weights = [0.1 + i for i in range(len(cuts))]
    sae = nested(seed, min(k, n), n, fractions=fractions, weights=weights).double()
    assert sae.levels[0].start == 0
    assert sae.levels[-1].end == n
    assert all(a.end == b.start for a, b in zip(sae.levels, sae.levels[1:], strict=False))
    assert sum(level.weight for level in sae.levels) == pytest.approx(sum(weights))
    acts, dead = batch(tokens, seed).double(), mask(n // 3, n)
    assert worst(sparse_step(sae, acts, OBJECTIVE, dead), dense_step(sae, acts, OBJECTIVE, dead)) < 1e-9


def test_one_level_is_batchtopk() -> None:
    acts, dead = batch(40), mask(9)
    ours = sparse_step(nested(fractions=[1.0]), acts, OBJECTIVE, dead)
    theirs = sparse_step(make("batchtopk"), acts, OBJECTIVE, dead)
    assert ours.loss == pytest.approx(theirs.loss, rel=1e-6)
    for name, gradient in theirs.gradients.items():
        torch.testing.assert_close(ours.gradients[name], gradient, rtol=1e-4, atol=1e-6)


def test_the_loss_is_that_of_the_prefixes() -> None:
    sae, acts = nested(**UNEVEN), batch(30)
    found = sparse_step(sae, acts, OBJECTIVE)
    with torch.no_grad():
        pre = (acts - sae.b_dec) @ sae.W_enc.T + sae.b_enc
        cut = pre.flatten().topk(5 * 30).values[-1]
        codes = torch.where(pre >= cut, pre, 0).relu()
        by_prefix = [
            float((acts - codes[:, :end] @ sae.W_dec[:end] - sae.b_dec).square().sum(1).mean()) for end in (8, 10, 40)
        ]
    assert found.reconstruction == pytest.approx(0.5 * by_prefix[0] + 2 * by_prefix[2], rel=1e-5)
    assert found.fvu == pytest.approx(by_prefix[2] * 30 / float((acts - acts.mean(0)).square().sum()), rel=1e-5)


def test_levels_by_hand() -> None:
    assert levels(MatryoshkaOptions(), 64) == (
        Level(0, 2, 0.2),
        Level(2, 6, 0.2),
        Level(6, 14, 0.2),
        Level(14, 30, 0.2),
        Level(30, 64, 0.2),
    )
    narrow = levels(MatryoshkaOptions(), 2)
    assert [(level.start, level.end) for level in narrow] == [(0, 1), (1, 2)]
    assert [level.weight for level in narrow] == pytest.approx([0.8, 0.2])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"fractions": [0.5, 0.4]}, r"fractions \[0.5, 0.4\] sum to 0.9; give positive ones of sum 1"),
        ({"fractions": [1.5, -0.5]}, "give positive ones of sum 1"),
        ({"fractions": []}, "fractions"),
        ({"weights": [1.0]}, r"weights \[1.0\] for 5 levels; give one a level"),
        ({"weights": [0, 0, 0, 0, 0]}, "not all 0"),
        ({"fraction": [1.0]}, "unknown key 'fraction'; the nearest key is 'fractions'"),
    ],
)
def test_bad_levels_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(MatryoshkaOptions, values, "options")


def test_mutant_with_the_full_upstream_for_all_levels_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    sae, acts = nested(**UNEVEN).double(), batch(30).double()
    wanted = dense_step(sae, acts, OBJECTIVE)
    assert worst(sparse_step(sae, acts, OBJECTIVE), wanted) < 1e-9
    monkeypatch.setattr(sae, "levels", (Level(0, 40, 2.5),))
    assert worst(sparse_step(sae, acts, OBJECTIVE), wanted) > 1e-3
