from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor

from perimetry.activations.model import LanguageModel
from perimetry.activations.policy import TokenPolicy
from perimetry.errors import ConfigError, Incompatible, WidthMismatch
from perimetry.evals.sae import probing
from perimetry.evals.sae.base import Place, Subject
from perimetry.evals.sae.held_out import require_readable
from perimetry.evals.sae.probe_features import columns, encode_rows, judge, rank_latents, require_probed, sparse_task
from perimetry.evals.sae.probe_sets import ProbeData
from perimetry.evals.sae.probing import Probing
from perimetry.evals.sae.shelf import Shelf
from perimetry.evals.sae.units import Units, difference, interval
from perimetry.runtime import generator
from perimetry.sae import ARCHITECTURES
from perimetry.sae.base import AbstractSAE, Codes, Start
from perimetry.sae.topk import TopKSAE


def dictionary(seed: int = 0, width: int = 64, d_model: int = 32) -> TopKSAE:
    return TopKSAE.fresh(Start(torch.zeros(d_model), width, 8, seed)).requires_grad_(False).eval()


def subject(lm: LanguageModel, sae: AbstractSAE | None = None) -> Subject:
    return Subject("it", sae or dictionary(), Place(lm, 1, TokenPolicy()))


def permuted(sae: TopKSAE, seed: int) -> TopKSAE:
    """The same dictionary with its latents in another order."""
    order = torch.randperm(sae.d_sae, generator=generator(seed))
    state = sae.state()
    tensors = {k: v[order] if v.shape[:1] == (sae.d_sae,) else v for k, v in state.tensors.items()}
    return TopKSAE.restore(state._replace(tensors=tensors)).requires_grad_(False).eval()


def codes_of(dense: Tensor) -> Codes:
    """Sparse codes that hold every entry of a matrix."""
    return Codes(torch.arange(dense.shape[1]).expand(dense.shape[0], -1), dense, dense.shape[1])


def planted(n: int, width: int, good: Sequence[int], seed: int) -> tuple[Codes, Tensor]:
    """Latents that fire at random, save `good` ones, which fire on one class alone."""
    draw = generator(seed)
    labels = torch.rand(n, generator=draw) < 0.5
    dense = torch.rand(n, width, generator=draw) * (torch.rand(n, width, generator=draw) < 0.3)
    for latent in good:
        dense[:, latent] = labels * (1 + torch.rand(n, generator=draw))
    return codes_of(dense), labels


def by_cell(found: Sequence[Units]) -> dict[tuple[str, int], Units]:
    return {(units.cell.arm, units.cell.k): units for units in found}


# Ranking


def reference_order(dense: Tensor, labels: Tensor) -> Tensor:
    """Written again from the definition, dense: mean difference of values over (mean of those that are not 0)."""
    mean = dense.abs().sum(0) / ((dense != 0).sum(0) + 1e-6)
    normalised = dense / (mean + 1e-6)
    return (normalised[labels].mean(0) - normalised[~labels].mean(0)).abs()


@settings(max_examples=25, deadline=None)
@given(n=st.integers(6, 60), width=st.integers(2, 30), seed=st.integers(0, 9999))
def test_latents_are_ranked_by_normalised_mean_difference(n: int, width: int, seed: int) -> None:
    codes, labels = planted(n, width, [], seed)
    labels[0], labels[1] = True, False
    wanted = reference_order(codes.values.double(), labels)
    order = rank_latents(codes, labels, width)
    assert sorted(order.tolist()) == list(range(width))
    assert wanted[order].tolist() == pytest.approx(wanted.sort(descending=True).values.tolist(), abs=1e-9)
    assert rank_latents(codes, labels, 1).tolist() == order[:1].tolist()


def test_planted_latents_come_first_and_are_enough() -> None:
    codes, labels = planted(400, 40, [7, 23], 0)
    assert set(rank_latents(codes, labels, 2).tolist()) == {7, 23}
    rows, rest = torch.arange(300), torch.arange(300, 400)
    task = sparse_task(codes.select(rows), labels[rows], [(codes.select(rest), labels[rest])], 4)
    assert judge([task], "l1", 1) == [[1.0]]


def test_a_dictionary_that_knows_nothing_scores_one_half() -> None:
    codes, labels = planted(1400, 40, [], 1)
    rows, rest = torch.arange(400), torch.arange(400, 1400)
    task = sparse_task(codes.select(rows), labels[rows], [(codes.select(rest), labels[rest])], 16)
    assert judge([task], "l1", 16)[0][0] == pytest.approx(0.5, abs=0.05)
    silent = codes_of(torch.zeros(1400, 5))
    nothing = sparse_task(silent.select(rows), labels[rows], [(silent.select(rest), labels[rest])], 5)
    assert judge([nothing], "l1", 5) == [[0.5]]


def test_columns_take_values_by_latent() -> None:
    codes = Codes(torch.tensor([[3, 1, 0], [2, 0, 0]]), torch.tensor([[2.0, 1.0, 0.0], [5.0, 4.0, 0.0]]), 8)
    assert columns(codes, torch.tensor([0, 3, 2])).tolist() == [[0.0, 2.0, 0.0], [4.0, 0.0, 5.0]]


def test_rows_are_encoded_in_parts_as_they_are_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    sae, acts = dictionary(), torch.randn(30, 32, generator=generator(0))
    whole = encode_rows(sae, acts)
    monkeypatch.setattr("perimetry.evals.sae.probe_features.CHUNK", 7)
    assert torch.allclose(encode_rows(sae, acts).dense(), whole.dense(), atol=1e-6)
    assert encode_rows(sae, acts.bfloat16()).values.dtype == torch.float32


# The evaluation


@pytest.fixture(scope="module")
def measured(tiny_lm: LanguageModel) -> dict[tuple[str, int], Units]:
    return by_cell(Probing.tiny().measure(subject(tiny_lm), Shelf()))


def test_every_arm_has_a_number_for_every_set(measured: dict[tuple[str, int], Units]) -> None:
    assert set(measured) == {("sae", 1), ("sae", 4), ("raw", 0)}
    for units in measured.values():
        assert units.cell.metric == "auroc"
        assert units.names == ("toy_animals", "toy_moods")
        assert 0.4 < units.estimate() <= 1
        assert interval(units).n == 2
    # Four latents see what one sees, and more; the whole activation of these plain sentences is separable.
    assert measured["raw", 0].estimate() > 0.6
    assert difference(measured["sae", 1], measured["raw", 0]).n == 2


def test_neither_order_nor_batch_nor_group_changes_a_number(
    tiny_lm: LanguageModel, measured: dict[tuple[str, int], Units], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probing, "GROUP", 1)
    data = ProbeData(sets=("toy_animals", "toy_moods"), batch_tokens=60)
    settings = Probing(data=data, seeds=2, ks=(1, 4))
    again = by_cell(settings.measure(subject(tiny_lm, permuted(dictionary(), 5)), Shelf()))
    for cell, units in measured.items():
        assert again[cell].over.tolist() == pytest.approx(units.over.tolist(), abs=2e-3)


def test_raw_probes_are_kept_for_the_next_dictionary(tiny_lm: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf = Shelf()
    first = by_cell(Probing.tiny().measure(subject(tiny_lm), shelf))

    def never(*arguments: object) -> dict[str, Tensor]:
        raise AssertionError("raw probes were fitted again")

    monkeypatch.setattr(Probing, "_fit_raw", never)
    other = by_cell(Probing.tiny().measure(subject(tiny_lm, dictionary(9)), shelf))
    assert other["raw", 0].over.tolist() == first["raw", 0].over.tolist()
    assert other["sae", 4].over.tolist() != first["sae", 4].over.tolist()
    with pytest.raises(AssertionError, match="fitted again"):
        Probing.tiny().model_copy(update={"seeds": 3}).measure(subject(tiny_lm), shelf)


def test_settings_are_checked() -> None:
    for wrong in ({"seeds": 0}, {"ks": ()}, {"ks": (0,)}):
        with pytest.raises(ValidationError):
            Probing.model_validate(wrong)
    assert Probing().ks == (1, 2, 5, 16, 128)
    assert Probing().seeds == 5


def test_refuses_dictionaries_that_cannot_be_probed(tiny_lm: LanguageModel) -> None:
    with pytest.raises(ConfigError, match="k = 128 latents of a dictionary of 64; wanted at most 64; lower `ks`"):
        require_probed(dictionary(), tiny_lm, (1, 128))
    with pytest.raises(WidthMismatch, match="the SAE reads width 8 but the residual stream of 'tiny-llama' gives 32"):
        Probing.tiny().measure(subject(tiny_lm, dictionary(d_model=8)), Shelf())
    pair = next(cls for _, cls in sorted(ARCHITECTURES.items()) if cls.reads == "pair").tiny()
    with pytest.raises(
        Incompatible, match=r"reads and gives pair places; wanted a dictionary of one place; leave it out"
    ):
        require_probed(pair, tiny_lm, (1,))
    ordered = ARCHITECTURES["temporal"].tiny()
    with pytest.raises(Incompatible, match="a temporal dictionary reads consecutive tokens"):
        require_probed(ordered, tiny_lm, (1,))
    with pytest.raises(Incompatible, match="a temporal dictionary reads consecutive tokens"):
        require_readable(Subject("it", ordered, Place(tiny_lm, 1, TokenPolicy())))
