from itertools import permutations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from perimetry.errors import Incompatible, NonFinite, WidthMismatch
from perimetry.evals.sae.matching import Entries, assign, best, cosines, joint, scores, tally

SEEDS = st.integers(0, 10_000)


def entries(mask: torch.Tensor) -> Entries:
    tokens, columns = mask.nonzero(as_tuple=True)
    return Entries(tokens, columns, mask.shape[1])


def rows(seed: int, count: int, width: int = 6) -> torch.Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=20, deadline=None)
@given(SEEDS)
def test_the_matching_is_the_best_of_all(seed: int) -> None:
    similarity = cosines(rows(seed, 4), rows(seed + 1, 5))
    found = assign(similarity)
    assert sorted(set(found.features.tolist())) == sorted(found.features.tolist())
    sums = [sum(float(similarity[i, f]) for i, f in enumerate(chosen)) for chosen in permutations(range(5), 4)]
    assert float(found.cosines.sum()) == pytest.approx(max(sums))


@settings(max_examples=20, deadline=None)
@given(SEEDS)
def test_counts_are_those_of_dense_masks_in_any_order_and_batch(seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    active, fired = torch.rand(40, 7, generator=draw) < 0.3, torch.rand(40, 9, generator=draw) < 0.2
    nearest = best(cosines(rows(seed, 7), rows(seed + 1, 9)))
    found = tally(entries(active), entries(fired), nearest)
    assert found.by_latent.tolist() == (active & fired[:, nearest.feature]).sum(0).tolist()
    assert found.by_feature.tolist() == (fired & active[:, nearest.latent]).sum(0).tolist()
    assert found.latent.tolist() == active.sum(0).tolist()
    assert found.feature.tolist() == fired.sum(0).tolist()
    parts = [tally(entries(active[part]), entries(fired[part]), nearest) for part in (slice(0, 13), slice(13, 40))]
    assert all(torch.equal(a, b) for a, b in zip(parts[0].add(parts[1]), found, strict=True))
    order = torch.randperm(7, generator=draw)
    moved = tally(entries(active[:, order]), entries(fired), best(cosines(rows(seed, 7)[order], rows(seed + 1, 9))))
    assert torch.equal(moved.by_feature, found.by_feature)
    assert torch.equal(moved.by_latent, found.by_latent[order])


@settings(max_examples=20, deadline=None)
@given(SEEDS)
def test_permuted_latents_and_signs_change_no_cosine(seed: int) -> None:
    decoder, directions = rows(seed, 5), rows(seed + 1, 8)
    order = torch.randperm(5, generator=torch.Generator().manual_seed(seed))
    one, two = cosines(decoder, directions), cosines(-3 * decoder[order], directions)
    torch.testing.assert_close(two, one[order])
    assert float(assign(one).cosines.mean()) == pytest.approx(float(assign(two).cosines.mean()))


def test_the_features_themselves_match_perfectly() -> None:
    directions = rows(0, 6)
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    similarity = cosines(directions[order], directions)
    assert assign(similarity).features.tolist() == order.tolist()
    assert best(similarity).feature.tolist() == order.tolist()
    torch.testing.assert_close(assign(similarity).cosines, torch.ones(6, dtype=torch.float64))


def test_a_row_of_no_length_is_near_nothing() -> None:
    assert cosines(torch.zeros(1, 3), torch.eye(3)).tolist() == [[0.0, 0.0, 0.0]]


def test_nobody_there_gives_counts_of_zero() -> None:
    empty = Entries(torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64), 2)
    one = Entries(torch.tensor([0]), torch.tensor([1]), 2)
    assert joint(one, torch.tensor([0, 0]), empty).tolist() == [0, 0]
    assert joint(empty, torch.tensor([0, 0]), one).tolist() == [0, 0]


def test_scores_by_hand() -> None:
    found = scores(torch.tensor([3, 0, 0]), torch.tensor([4, 0, 5]), torch.tensor([6, 7, 0]))
    assert found.precision.tolist() == [0.75, 0, 0]
    assert found.recall.tolist() == [0.5, 0, 0]
    assert found.f1.tolist() == pytest.approx([2 * 0.75 * 0.5 / 1.25, 0, 0])


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(WidthMismatch, match="writes width 4 and the features are of width 3; judge a dictionary"):
        cosines(torch.ones(2, 4), torch.ones(2, 3))
    with pytest.raises(NonFinite, match="NaN or infinite; give a dictionary of finite weights"):
        cosines(torch.full((2, 3), torch.nan), torch.ones(2, 3))
    one = Entries(torch.tensor([0]), torch.tensor([1]), 2)
    with pytest.raises(Incompatible, match="2 latents and 2 features are counted, the nearest ones are of 3 and 2"):
        tally(one, one, best(cosines(rows(0, 3), rows(1, 2))))
