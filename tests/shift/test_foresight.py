"""What the last hidden state foretells is counted right, and whole prompts are kept aside."""

import pytest
import torch

from perimetry.errors import NonFinite, TooFewSamples, WidthMismatch
from perimetry.shift.base import Evidence, concatenate
from perimetry.shift.foresight import Foresight
from perimetry.shift.sketch import BottomK

from . import worlds

WIDTH = worlds.D_MODEL


def seen(*parts: Evidence) -> Foresight:
    out = Foresight.empty(WIDTH, worlds.D_SAE, 7)
    for part in parts:
        out.update(part)
    return out


def test_sums_equal_a_dense_computation() -> None:
    evidence = worlds.clean(3, 20)
    assert evidence.foresight is not None
    later = evidence.positions >= 2
    g = torch.cat([evidence.foresight, torch.ones(len(later), 1)], 1).double()[later]
    x, on = evidence.acts.double()[later], (evidence.codes.dense() > 0).double()[later]
    found = seen(evidence)
    assert found.tokens == int(later.sum()) == len(later) - 20
    for got, wanted in zip(found.sums, (g.T @ g, on.T @ g, x.T @ g, x.T @ x), strict=True):
        torch.testing.assert_close(got, wanted)


def test_a_pass_that_stopped_at_the_tap_tells_nothing() -> None:
    evidence = worlds.clean(3, 5)
    short = evidence._replace(logits=None, foresight=None)
    assert seen(short).tokens == 0
    both, one = seen(evidence, short), seen(evidence)
    assert all(torch.equal(a, b) for a, b in zip(both.state().values(), one.state().values(), strict=True))


def prompts_of(evidence: Evidence, hidden: torch.Tensor) -> list[int]:
    """The prompt of each row of bf16 last hidden states."""
    assert evidence.foresight is not None
    rows = evidence.foresight.bfloat16()
    return [int(evidence.prompt[int((rows == row).all(1).nonzero()[0])]) for row in hidden]


def test_whole_prompts_are_kept_aside() -> None:
    evidence = worlds.clean(4, 60)
    found = seen(evidence)
    held = found.held_out("x")
    assert held.hidden.shape[0] == found.tokens // 5
    owner = prompts_of(evidence, held.hidden)
    runs = [p for i, p in enumerate(owner) if not i or owner[i - 1] != p]
    assert len(runs) == len(set(runs)), "the tokens of a prompt stand together"
    sizes = evidence.lengths() - 1
    cut = [p for p in runs if owner.count(p) != int(sizes[p])]
    assert cut in ([], runs[-1:])
    assert 4 < len(runs) < 30


def test_what_is_kept_aside_and_what_is_not_are_everything() -> None:
    evidence = worlds.clean(4, 60)
    found = seen(evidence._replace(acts=evidence.acts.bfloat16().float(), foresight=half(evidence)))
    held = found.held_out("x")
    assert float(held.sums.gram[-1, -1]) == held.hidden.shape[0]
    for total, part, rest in zip(found.sums, held.sums, held.known, strict=True):
        torch.testing.assert_close(part + rest, total)
        assert float(part.abs().sum()) > 0
    # The activities of the rows kept aside are those of the tokens they came from.
    on = held.codes.dense().double()
    torch.testing.assert_close(held.sums.concepts[:, -1], on.sum(0))
    owner = prompts_of(evidence, held.hidden)
    first = [i for i, p in enumerate(owner) if p == owner[0]]
    dense = evidence.codes.dense()[(evidence.prompt == owner[0]) & (evidence.positions >= 2)]
    assert torch.equal(held.codes.dense()[first] > 0, dense[: len(first)] > 0)


def half(evidence: Evidence) -> torch.Tensor:
    assert evidence.foresight is not None
    return evidence.foresight.bfloat16().float()


def test_neither_order_nor_batches_nor_workers_change_what_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perimetry.shift.foresight._ROWS", 150)
    parts = [worlds.clean(seed, 15) for seed in range(4)]
    base = seen(*parts)
    assert base.sample.keys.numel() == 150
    single = [worlds.select_prompts(e, [row]) for e in reversed(parts) for row in range(15)]
    others = (
        seen(concatenate(parts[::-1])),
        seen(*single),
        seen(parts[3]).merge(seen(parts[1])).merge(seen(parts[0]).merge(seen(parts[2]))),
    )
    for other in others:
        assert torch.equal(other.sample.keys, base.sample.keys)
        for name, column in base.sample.columns.items():
            assert torch.equal(other.sample.columns[name], column), name
        for a, b in zip(base.sums, other.sums, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_state_round_trip_goes_on_counting() -> None:
    one, two = worlds.clean(1, 10), worlds.clean(2, 10)
    again = Foresight.from_state(seen(one).state(), 7)
    again.update(two)
    wanted = seen(one, two)
    assert all(torch.equal(v, wanted.state()[k]) for k, v in again.state().items())
    assert isinstance(again.sample, BottomK)


def test_too_little_and_wrong_evidence_is_refused() -> None:
    few = worlds.select_prompts(worlds.clean(1, 3), [0])
    few = few._replace(positions=torch.zeros_like(few.positions))
    with pytest.raises(
        TooFewSamples, match=r"x needs 10 clean tokens with the model's last hidden state and .* seen 0"
    ):
        seen(few).held_out("x")
    evidence = worlds.clean(1, 3)
    assert evidence.foresight is not None
    with pytest.raises(WidthMismatch, match="last hidden state has width 15, wanted 16"):
        seen(evidence._replace(foresight=evidence.foresight[:, 1:]))
    with pytest.raises(NonFinite, match="last hidden state holds NaN or infinity"):
        seen(evidence._replace(foresight=evidence.foresight * torch.nan))
