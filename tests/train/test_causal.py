"""The causal loss by hand, by a second computation, and in a training on a model of one bent layer."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from tests.train.planted import D_MODEL, Planted, config
from torch import Tensor

from perimetry.errors import ConfigError, TooFewSamples
from perimetry.runtime import generator
from perimetry.sae import AffineSAE
from perimetry.sae.affine import tiny_weights
from perimetry.sae.steps.base import Objective
from perimetry.sae.topk import TopKSAE
from perimetry.train import Job, Rest, TrainResult, train_jobs
from perimetry.train import causal as core
from perimetry.train.causal import Heard, causal_pull, interpolated, missed, nearest_others, straight_way
from perimetry.train.checkpoint import latest_checkpoint
from perimetry.train.log import read_log
from perimetry.train.trainer import Trainer

OUTPUTS = 7


class Bent:
    """The rest of a model in one line: logits are a product of the bent activations of tokens drawn by the turn."""

    def __init__(self, tokens: int = 24, width: int = D_MODEL) -> None:
        source = generator(4)
        self.inner = torch.randn(width, width, generator=source) / width**0.5
        self.weights = torch.randn(width, OUTPUTS, generator=source)
        self.tokens, self.width = tokens, width
        self.turns: list[int] = []

    def acts(self, turn: int) -> Tensor:
        if self.width != D_MODEL:
            return torch.randn(self.tokens, self.width, generator=generator(turn))
        return Planted().draw(self.tokens, 90_000 + turn)

    def __call__(self, turn: int, replace: Callable[[Tensor], Tensor]) -> Heard:
        self.turns.append(turn)
        last = (replace(self.acts(turn)) @ self.inner).tanh()
        return Heard(last, lambda hidden: hidden @ self.weights, OUTPUTS)


def by_hand(sae: AffineSAE, rest: Bent, scale: float, share: float, target: str) -> Tensor:
    """The formula, token by token, in float64."""
    x = rest.acts(0).double() * scale
    codes = sae.dense_codes((x - sae.b_dec) @ sae.W_enc.T + sae.b_enc, Objective())
    total = torch.zeros((), dtype=torch.float64)

    def says(z: Tensor) -> Tensor:
        back = (z @ sae.W_dec + sae.b_dec) / scale
        return (back @ rest.inner.double()).tanh() @ rest.weights.double()

    for i in range(len(x)):
        away = [(float((codes[i] - codes[j]).detach().norm()), j) for j in range(len(x)) if j != i]
        other = codes[min(away)[1]]
        between = (1 - share) * says(codes[i]) + share * says(other)
        moved = says(codes[i] + share * (other - codes[i]))
        if target == "logits":
            total = total + (moved - between).square().mean()
        else:
            wanted = between.softmax(0)
            total = total + (wanted * (wanted.log() - moved.softmax(0).log())).sum()
    return total / len(x)


@pytest.mark.parametrize("target", ["logits", "kl"])
@pytest.mark.parametrize("chunk", [4, 2**27])
def test_loss_and_gradient_by_a_second_computation(target: str, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core, "CHUNK_BYTES", chunk)
    sae, rest = TopKSAE(tiny_weights(), k=4), Bent(width=8)
    pull = causal_pull(
        sae,
        torch.tensor(0.5),
        lambda replace: rest(0, replace),
        Objective(),
        share=0.2,
        target="kl" if target == "kl" else "logits",
    )
    exact = TopKSAE(tiny_weights(), k=4).double()
    error = by_hand(exact, rest, 0.5, 0.2, target)
    assert float(error.detach()) > 1e-4
    assert float(pull.interpolation.error) == pytest.approx(float(error.detach()), rel=1e-4)
    names, parameters = zip(*exact.named_parameters(), strict=True)
    expected = dict(zip(names, torch.autograd.grad(error, parameters), strict=True))
    assert pull.gradients.keys() == expected.keys() == {"W_enc", "W_dec", "b_enc", "b_dec"}
    for name, gradient in expected.items():
        torch.testing.assert_close(pull.gradients[name].double(), gradient, rtol=1e-3, atol=1e-6)
    assert all(parameter.grad is None for parameter in sae.parameters())


def test_nearest_others_are_others() -> None:
    points = torch.tensor([[0.0, 0.0], [0.1, 0.0], [5.0, 5.0], [5.0, 5.2]])
    assert nearest_others(points).tolist() == [1, 0, 3, 2]
    assert nearest_others(points, chunk=3).tolist() == [1, 0, 3, 2]
    assert all(i != j for i, j in enumerate(nearest_others(torch.zeros(3, 2)).tolist()))
    assert nearest_others(points[:1]).tolist() == [0]
    with pytest.raises(TooFewSamples, match="no token of a sequence counts"):
        nearest_others(points[:0])


def test_a_straight_model_misses_nothing_and_a_bent_one_does() -> None:
    latents = torch.randn(40, 6, generator=generator(0), requires_grad=True)
    weights = torch.randn(6, 3, generator=generator(1))
    straight = interpolated(latents, lambda z: z @ weights, 0.2)
    assert straight.relative < 1e-9
    assert float(straight.size) > 1e-3
    bent = interpolated(latents, lambda z: (z @ weights).square(), 0.2)
    assert bent.relative > 0.01
    bent.error.backward()
    assert latents.grad is not None
    assert float(latents.grad.abs().max()) > 0
    still = interpolated(torch.ones(4, 2), torch.square, 0.2)
    assert (float(still.error), still.relative) == (0.0, 0.0)


def test_the_divergence_is_of_what_lies_between() -> None:
    here, there = torch.tensor([[0.0, 0.0]]), torch.tensor([[4.0, 0.0]])
    between = torch.tensor([[1.0, 0.0]])
    assert float(missed(torch.stack([here, there, between]), 0.25, "kl").error) == pytest.approx(0, abs=1e-7)
    # Of logits 1 and 0, where 0 and 0 are said: the sum of p ln 2p.
    p = torch.tensor([1.0, 0.0]).softmax(0)
    wanted = float((p * (2 * p).log()).sum())
    found = missed(torch.stack([here, there, here]), 0.25, "kl")
    assert float(found.error) == pytest.approx(wanted, rel=1e-5)
    assert found.relative == pytest.approx(1)


def test_the_gradient_is_the_same_where_rows_are_picked_by_a_product() -> None:
    """On a GPU rows are picked by a product with zeros and ones, whose gradient has a fixed order."""
    latents = torch.randn(9, 5, generator=generator(3), requires_grad=True)
    other = straight_way(latents, 0.5)[1]
    places = nearest_others(latents)
    picks = torch.nn.functional.one_hot(places, 9).float()
    assert torch.equal(picks @ latents, other)
    slope = torch.randn(9, 5, generator=generator(5))
    (found,) = torch.autograd.grad(other, latents, slope)
    torch.testing.assert_close(found, picks.T @ slope)


def causal_config(**changes: object) -> dict[str, object]:
    return {"architecture": "topk", "tokens": 64 * 30, "causal": 1.0, **changes}


def run(out: Path, source: Planted | None = None, rest: Rest | None = None, **changes: object) -> TrainResult:
    made = config(**causal_config(**changes))
    return train_jobs([Job(made, out, rest=rest or Bent())], source or Planted())[0]


class Dies(Planted):
    def __init__(self, at: int) -> None:
        super().__init__()
        self.at = at

    def batches(self, batch: int, seed: int = 0, start_step: int = 0) -> Iterator[Tensor]:
        for step, acts in enumerate(super().batches(batch, seed, start_step), start_step):
            if step == self.at:
                raise KeyboardInterrupt
            yield acts


def test_the_loss_falls_where_it_is_learned_and_is_in_the_log(tmp_path: Path) -> None:
    # A weight of almost nothing measures the loss and leaves the training as it is.
    without, with_it = (
        (run(tmp_path / name, causal=weight, tokens=64 * 150, lr=1e-2), read_log(tmp_path / name / "log.jsonl"))
        for name, weight in (("without", 1e-12), ("with", 30.0))
    )
    last = [sum(row["causal_relative"] for row in rows[-5:]) / 5 for _, rows in (without, with_it)]
    assert last[1] < 0.6 * last[0]
    assert with_it[0].fvu > without[0].fvu
    row = with_it[1][0]
    assert row["further"] == pytest.approx(30 * row["causal"], rel=1e-6)
    assert with_it[0].info.train["causal"] == 30.0
    assert with_it[0].info.details["held_unseen"] is None


@pytest.mark.parametrize("name", ["batchtopk", "gated", "hierarchical", "jumprelu", "matryoshka", "standard", "topk"])
def test_every_affine_architecture_resumes_to_the_same_bytes(name: str, tmp_path: Path) -> None:
    changes = {"architecture": name, "causal_every": 4, "causal_share": "uniform", "causal_ramp": 0.5}
    whole = run(tmp_path / "whole", **changes)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", Dies(17), **changes)
    held = latest_checkpoint(tmp_path / "cut" / "checkpoints")
    assert held is not None
    assert held.step == 14
    rest = Bent()
    assert run(tmp_path / "cut", rest=rest, **changes).digest == whole.digest
    assert rest.turns == [4, 5, 6, 7], "steps 16, 20, 24 and 28"
    logs = [read_log(tmp_path / name / "log.jsonl") for name in ("whole", "cut")]
    assert [row["causal"] for row in logs[0]] == [row["causal"] for row in logs[1]]


@pytest.mark.parametrize("changes", [{"aligned": True}, {"frozen": "decoder"}, {"ortho": 0.1}, {"step": "dense"}])
def test_it_goes_with_constraints_and_with_the_reference(changes: dict[str, object], tmp_path: Path) -> None:
    one = Trainer(config(**causal_config(**changes)), 0.05, torch.zeros(D_MODEL), Bent())
    two = Trainer(config(**causal_config(**changes, causal=0.0)), 0.05, torch.zeros(D_MODEL))
    first = one.sae.W_dec.detach().clone()
    for step in range(3):
        results = [made.advance(Planted().draw(64, step)) for made in (one, two)]
        assert results[0].further > results[1].further
    assert torch.equal(one.sae.W_dec, first) == (changes.get("frozen") == "decoder")
    assert not torch.equal(dict(one.sae.named_parameters())["W_enc"], dict(two.sae.named_parameters())["W_enc"])


def test_a_weight_of_zero_leaves_every_bit(tmp_path: Path) -> None:
    plain = config(**causal_config(causal=0.0))
    told = config(**causal_config(causal=0.0, causal_every=3, causal_share="uniform"))
    assert not [key for key in told.model_dump() if key.startswith("causal")]
    assert told.fingerprint() == plain.fingerprint()
    outs = [tmp_path / "plain", tmp_path / "told"]
    rest = Bent()
    results = [train_jobs([Job(c, o, rest=rest)], Planted())[0] for c, o in zip((plain, told), outs, strict=True)]
    assert results[0].digest == results[1].digest
    assert rest.turns == []
    assert "causal" not in read_log(outs[0] / "log.jsonl")[0]


def test_a_training_of_activations_alone_is_refused(tmp_path: Path) -> None:
    made = config(**causal_config())
    with pytest.raises(
        ConfigError, match=r"causal = 1 runs the model .* was given activations alone; .* or set causal"
    ):
        train_jobs([Job(made, tmp_path)], Planted())
    with pytest.raises(ConfigError, match="activations alone"):
        Trainer(made, 1.0, torch.zeros(D_MODEL))


@pytest.mark.parametrize("name", ["spade", "transcoder", "crosscoder", "temporal"])
def test_architectures_that_cannot_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"causal = 1 moves codes of an affine encoder .*; {name} is none, or gives"):
        config(**causal_config(architecture=name))


def test_shares_are_drawn_anew_each_time() -> None:
    made = config(**causal_config(causal_share="uniform"))
    drawn = [made.causal_share_at(turn, seed=0) for turn in range(200)]
    assert drawn == [made.causal_share_at(turn, seed=0) for turn in range(200)]
    assert 0.4 < sum(drawn) / 200 < 0.6
    assert made.causal_share_at(0, seed=1) != drawn[0]
    with pytest.raises(ValueError, match="causal_share"):
        config(**causal_config(causal_share=1.5))
