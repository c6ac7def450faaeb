import math

import pytest
import torch
from tests.robust.conftest import LAYER, POLICY

from perimetry.activations.model import LanguageModel
from perimetry.activations.twins import TwinRows
from perimetry.robust.adapter import Tunable
from perimetry.robust.objectives import Objective, Place, backward
from perimetry.robust.passes import head, run
from perimetry.robust.recipe import TERMS, TuneConfig, Weights
from perimetry.robust.shifted import fit_shift
from perimetry.sae.batchtopk import BatchTopKSAE

PLACE = Place(LAYER, POLICY)


def moved(tunable: Tunable) -> None:
    """Low-rank matrices that do something, so that no term is 0."""
    with torch.no_grad():
        for number, parameter in enumerate(tunable.parameters().values()):
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number)))


def clean_acts(lm: LanguageModel, twins: list[TwinRows]) -> tuple[torch.Tensor, torch.Tensor]:
    with torch.no_grad():
        found = run(lm, [t.clean for t in twins], LAYER, POLICY, to_the_end=False)
    return found.residual[found.counts], found.counts.nonzero()[:, 0]


def gradients(tunable: Tunable) -> dict[str, torch.Tensor]:
    return {n: p.grad.clone() for n, p in tunable.parameters().items() if p.grad is not None}


def reference(tunable: Tunable, objective: Objective, twins: list[TwinRows]) -> torch.Tensor:
    """The whole loss as the formulas are, one text at a time, for plain autograd."""
    lm, weights = tunable.lm, objective.config.weights
    total = torch.zeros(())
    for twin in twins:
        clean, bad = (run(lm, [row], LAYER, POLICY, to_the_end=True) for row in (twin.clean, twin.corrupted))
        assert clean.hidden is not None
        assert bad.hidden is not None
        logs = [head(lm, found.hidden[0]) for found in (clean, bad)]
        sides = [row.ids for row in (twin.clean, twin.corrupted)]
        nll = [
            -torch.stack([log[i - 1, ids[i]] for i in range(1, len(ids))]).mean()
            for log, ids in zip(logs, sides, strict=True)
        ]
        total = total + weights.clean * nll[0] + weights.perturbed * nll[1]
        with tunable.base():
            before = run(lm, [twin.clean], LAYER, POLICY, to_the_end=False).residual[0]
        ends = list(zip(*twin.ends, strict=True))[twin.first :]
        kl = [(logs[0].detach()[a].exp() * (logs[0].detach()[a] - logs[1][b])).sum() for a, b in ends]
        gaps = [(bad.residual[0, b] - before[a]).square().sum() / before[a].square().sum() for a, b in ends]
        total = total + weights.consistency * torch.stack(kl).mean() + weights.alignment * torch.stack(gaps).mean()
        drift = (clean.residual[0] - before).square().sum(1) / before.square().sum(1)
        total = total + weights.retain * drift[clean.counts[0]].mean()
    return total / len(twins)


@pytest.mark.parametrize("name", [n for n in TERMS if n != "shift"])
def test_each_term_and_its_gradient_are_those_of_the_formula(
    tunable: Tunable, twins: list[TwinRows], name: str
) -> None:
    moved(tunable)
    weights = Weights.model_validate(dict.fromkeys(TERMS, 0.0) | {name: 0.7})
    objective = Objective(PLACE, TuneConfig(rank=2, weights=weights), None)
    reference(tunable, objective, twins).backward()
    wanted = gradients(tunable)
    for parameter in tunable.parameters().values():
        parameter.grad = None
    terms = backward(tunable, objective, twins, 1.0)
    assert 0.7 * terms[name] == pytest.approx(float(reference(tunable, objective, twins).detach()), rel=1e-4)
    found = gradients(tunable)
    assert found.keys() == wanted.keys()
    for key, gradient in wanted.items():
        torch.testing.assert_close(found[key], gradient, rtol=2e-3, atol=1e-6)


def test_parts_of_a_batch_add_up_to_the_whole(tunable: Tunable, twins: list[TwinRows]) -> None:
    moved(tunable)
    weights = Weights(consistency=0.5, alignment=0.5, retain=0.5)
    objective = Objective(PLACE, TuneConfig(rank=2, weights=weights), None)
    whole = backward(tunable, objective, twins, 1.0)
    wanted = gradients(tunable)
    for parameter in tunable.parameters().values():
        parameter.grad = None
    parts = [backward(tunable, objective, twins[:3], 3 / 8), backward(tunable, objective, twins[3:], 5 / 8)]
    for name, value in whole.items():
        assert sum(part[name] for part in parts) == pytest.approx(value, rel=1e-4)
    for key, gradient in gradients(tunable).items():
        torch.testing.assert_close(gradient, wanted[key], rtol=2e-3, atol=1e-6)


def test_before_tuning_nothing_is_retained_and_clean_text_has_shift_one(
    tunable: Tunable, twins: list[TwinRows], sae: BatchTopKSAE
) -> None:
    acts, prompt = clean_acts(tunable.lm, twins)
    same = [t._replace(corrupted=t.clean, ends=(t.ends[0], t.ends[0]), first=len(t.ends[0])) for t in twins]
    weights = Weights(clean=0, perturbed=0, shift=1, retain=1, alignment=1)
    for pull in ("energy", "concepts", "residual"):
        objective = Objective(PLACE, TuneConfig(rank=2, weights=weights), fit_shift(pull, sae, acts, prompt))
        terms = backward(tunable, objective, same, 1.0)
        assert terms["retain"] == pytest.approx(0, abs=1e-9)
        assert terms["shift"] == pytest.approx(1, rel=1e-4)
        assert "alignment" not in terms, "twins without a difference have nothing to align"


def test_without_a_next_token_term_no_block_above_the_tap_runs(
    tunable: Tunable, twins: list[TwinRows], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("ran")

    monkeypatch.setattr(tunable.lm.blocks[LAYER + 1], "forward", refuse)
    weights = Weights(clean=0, perturbed=0, alignment=1, retain=1)
    assert backward(tunable, Objective(PLACE, TuneConfig(rank=2, weights=weights), None), twins, 1.0)["alignment"] > 0
    with pytest.raises(AssertionError, match="ran"):
        backward(tunable, Objective(PLACE, TuneConfig(rank=2), None), twins, 1.0)


def test_loss_on_kept_words_leaves_the_corrupted_ones_out(tunable: Tunable, twins: list[TwinRows]) -> None:
    weights = Weights(clean=0, perturbed=1)
    found = {}
    for targets in ("all", "kept"):
        config = TuneConfig.model_validate({"rank": 2, "weights": weights, "targets": targets})
        found[targets] = backward(tunable, Objective(PLACE, config, None), twins, 1.0)["perturbed"]
    assert found["all"] != found["kept"]
    assert all(math.isfinite(value) for value in found.values())


def test_weights_that_ask_for_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="nothing to learn"):
        Weights(clean=0, perturbed=0)
