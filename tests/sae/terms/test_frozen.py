import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from perimetry.runtime import generator
from perimetry.sae.terms.frozen import Frozen, freeze, hold_near


def unit(n: int, d: int, seed: int) -> torch.Tensor:
    rows = torch.randn(n, d, generator=generator(seed), dtype=torch.float64)
    return rows / rows.norm(dim=1, keepdim=True)


@settings(max_examples=40, deadline=None)
@given(n=st.integers(1, 20), d=st.integers(2, 9), seed=st.integers(0, 99), cosine=st.floats(0.05, 0.99))
def test_rows_stay_in_the_cone_and_on_the_sphere(n: int, d: int, seed: int, cosine: float) -> None:
    initial, decoder = unit(n, d, seed), unit(n, d, seed + 100)
    before = (initial * decoder).sum(1)
    held = decoder.clone()
    hold_near(held, initial, cosine)
    after = (initial * held).sum(1)
    assert bool((after >= cosine - 1e-9).all())
    torch.testing.assert_close(held.norm(dim=1), torch.ones(n, dtype=torch.float64))
    inside = before >= cosine
    assert torch.equal(held[inside], decoder[inside])
    # Those outside come to the rim at the point nearest to where they were: in the plane of both directions.
    torch.testing.assert_close(after[~inside], torch.full_like(after[~inside], cosine))
    plane = torch.stack([initial, decoder, held], 1)[~inside]
    assert bool((torch.linalg.matrix_rank(plane, tol=1e-6) <= 2).all())


def test_the_opposite_direction_goes_home() -> None:
    initial = torch.tensor([[1.0, 0.0]])
    held = -initial
    hold_near(held, initial, 0.8)
    assert torch.equal(held, initial)


def test_freezing_takes_the_gradients_away() -> None:
    names = ("W_enc", "W_dec", "b_enc", "b_dec")
    wanted: dict[Frozen, set[str]] = {"none": set(), "decoder": {"W_dec"}, "encoder": {"W_enc", "b_enc"}}
    for frozen, still in wanted.items():
        gradients = {name: torch.ones(2) for name in names}
        freeze(gradients, frozen)
        assert {name for name in names if not gradients[name].any()} == still
