"""The audit of the selection sees entries that were lost, and no rounding."""

import logging

import pytest
import torch
from tests.train.planted import D_MODEL, Planted, config

from perimetry.runtime import generator
from perimetry.sae.steps import audit, low
from perimetry.sae.steps.active import Active
from perimetry.sae.steps.audit import Audit, differing
from perimetry.sae.steps.by_norm import CutByNorm
from perimetry.sae.steps.native import build
from perimetry.sae.steps.select import AboveCut, Window
from perimetry.train.trainer import Trainer


def of(dense: torch.Tensor) -> Active:
    offsets = torch.nn.functional.pad((dense != 0).sum(1).cumsum(0), (1, 0))
    rows, columns = dense.nonzero(as_tuple=True)
    return Active(offsets, columns, dense[rows, columns], dense.shape[1])


def test_what_differs_is_counted_and_rounding_at_the_cut_is_not() -> None:
    wanted = torch.tensor([[3.0, 2.0, 0.0, 1.0], [0.0, 5.0, 4.0, 0.0]])
    assert differing(of(wanted), of(wanted)) == 0
    lost = wanted.clone()
    lost[0, 0] = 0
    assert differing(of(lost), of(wanted)) == 1
    swapped = torch.tensor([[3.0, 2.0, 1.000001, 0.0], [0.0, 5.0, 4.0, 0.0]])
    assert differing(of(swapped), of(wanted)) == 0
    wrong = torch.tensor([[3.0, 2.0, 0.5, 0.0], [0.0, 5.0, 4.0, 0.0]])
    assert differing(of(wrong), of(wanted)) == 1
    # A count over the whole batch has one cut for all rows: here 1.0, of the first, while the second ends at 4.0.
    moved = torch.tensor([[3.0, 2.0, 0.0, 0.0], [1.000001, 5.0, 4.0, 0.0]])
    assert differing(of(moved), of(wanted)) == 0
    above = torch.tensor([[3.0, 2.0, 0.0, 0.0], [1.1, 5.0, 4.0, 0.0]])
    assert differing(of(above), of(wanted)) == 1
    # Cuts of the latents excuse what lies at that of its own latent.
    assert differing(of(above), of(wanted), [torch.tensor([1.1000005, 9.0, 9.0, 9.0])]) == 0
    assert differing(of(above), of(wanted), [torch.tensor([9.0, 1.1, 1.1, torch.inf])]) == 1
    nothing = torch.tensor([[3.0, 2.0, 0.0, 1.0], [0.0, 0.0, 0.0, 0.0]])
    assert differing(of(wanted), of(nothing)) == 2


def test_collectors_say_at_which_values_an_entry_changes_sides() -> None:
    theta = torch.tensor([0.5, 2.0])
    assert [edge.tolist() for edge in AboveCut(theta).edges()] == [[0.5, 2.0]]
    assert [edge.tolist() for edge in Window(theta, 0.5).edges()] == [[0.25, 1.75], [0.75, 2.25]]
    [edge] = CutByNorm(AboveCut(theta), torch.tensor([2.0, 0.0])).edges()
    assert edge.tolist() == [0.25, torch.inf]


@pytest.mark.skipif(build.compiled() is None, reason="no C compiler here")
def test_training_audits_itself_warns_and_counts(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(low, "SMALLEST", 0)
    monkeypatch.setattr(low, "selection", lambda: "bf16")
    made = Trainer(config(architecture="topk", tokens=640), 0.05, torch.zeros(D_MODEL))
    made.advance(Planted().draw(64, 0))
    assert made.audited == Audit(64, 0)
    assert not caplog.records

    honest = low.low_collect
    monkeypatch.setattr(
        audit.low,
        "low_collect",
        lambda pre, wanted: [
            a._replace(values=a.values * (torch.rand(a.values.shape, generator=generator(0)) > 0.3))
            for a in honest(pre, wanted) or []
        ],
    )
    made.step = 0
    with caplog.at_level(logging.WARNING):
        made._look(Planted().draw(64, 1) * made.scale)
    assert made.audited.missed > 10
    assert made.audited.rows == 128
    assert "the selection by few bits differs from float32 in" in caplog.text
    again = Trainer(config(architecture="topk", tokens=640), 0.05, torch.zeros(D_MODEL))
    again.load(made.state())
    assert again.audited == made.audited
