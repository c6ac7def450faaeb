"""A dictionary with a latent for each class takes out that class alone; a silent one takes out nothing."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.evals.sae.dictionaries import constant, in_order, random_sae, subject_of
from tests.worlds import write_jsonl

from perimetry.activations.model import LanguageModel
from perimetry.errors import ConfigError, Incompatible, TooFewSamples, UnknownName
from perimetry.evals.sae import tpp
from perimetry.evals.sae.probe_ablation import (
    LinearProbe,
    Rows,
    attribution,
    balanced_accuracy,
    fit_probe,
    strongest,
    without,
)
from perimetry.evals.sae.probe_sets import SETS
from perimetry.evals.sae.shelf import Shelf
from perimetry.evals.sae.tpp import GROUPS, TargetedProbePerturbation
from perimetry.evals.sae.units import Units
from perimetry.runtime import generator
from perimetry.sae import ARCHITECTURES
from perimetry.sae.controls import identity

KINDS = 3


def kind_of(text: str) -> int:
    return int(text[-1])


@pytest.fixture(scope="module")
def group(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """One set a kind, each with the items of all kinds."""
    folder = tmp_path_factory.mktemp("tpp")
    texts = [f"item {i} of kind {i % KINDS}" for i in range(120)]
    files = []
    for kind in range(KINDS):
        rows = [{"id": i, "text": t, "label": int(kind_of(t) == kind)} for i, t in enumerate(texts)]
        files.append(str(write_jsonl(folder / f"kind{kind}.jsonl", rows)))
    return tuple(files)


def planted(groups: Mapping[str, Sequence[str]], *_: Any, **__: Any) -> dict[str, torch.Tensor]:
    """Activations in which coordinate i stands for kind i."""
    found = {}
    for name, texts in groups.items():
        kinds = torch.tensor([kind_of(text) for text in texts])
        noise = 0.1 * torch.randn(len(texts), 32, generator=generator(7))
        found[name] = 4 * torch.eye(32)[kinds] + noise.abs()
    return found


def value(found: list[Units], metric: str, k: int = 0) -> float:
    (one,) = [units for units in found if (units.cell.metric, units.cell.k) == (metric, k)]
    return one.estimate()


def test_a_latent_for_each_class_takes_out_that_class_alone(
    group: tuple[str, ...], tiny_lm: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tpp, "last_tokens", planted)
    evaluation = TargetedProbePerturbation(groups=(group,), ablate=(1, 2), rows=120)
    found = evaluation.measure(subject_of(identity(32), tiny_lm), Shelf())
    assert value(found, "accuracy") == pytest.approx(1)
    assert value(found, "intended", 1) == pytest.approx(0.5, abs=0.1)
    assert abs(value(found, "unintended", 1)) < 0.1
    assert value(found, "tpp", 1) > 0.3
    silent = evaluation.measure(subject_of(constant(torch.zeros(32)), tiny_lm), Shelf())
    assert [value(silent, metric, 1) for metric in ("tpp", "intended", "unintended")] == [0, 0, 0]
    order = torch.randperm(64, generator=generator(1))
    mixed = evaluation.measure(subject_of(in_order(identity(32), order), tiny_lm), Shelf())
    for metric in ("tpp", "intended", "unintended"):
        assert value(mixed, metric, 2) == pytest.approx(value(found, metric, 2))


def test_it_reads_the_model(group: tuple[str, ...], tiny_lm: LanguageModel, tmp_path: Path) -> None:
    evaluation = TargetedProbePerturbation(groups=(group[:2],), ablate=(4, 24), rows=120, context=32)
    subject = subject_of(identity(32), tiny_lm)
    found = evaluation.measure(subject, Shelf(tmp_path))
    assert {units.cell.metric for units in found} == set(TargetedProbePerturbation.metrics)
    assert value(found, "accuracy") > 0.8
    assert value(found, "intended", 24) > 0.1
    assert all(units.names == ("kind0", "kind1") for units in found)
    assert value(found, "tpp", 4) == pytest.approx(value(found, "intended", 4) - value(found, "unintended", 4))
    again = evaluation.measure(subject, Shelf(tmp_path))
    assert [units.to_json() for units in again] == [units.to_json() for units in found]


def test_it_says_that_it_is_not_to_be_relied_on() -> None:
    assert not TargetedProbePerturbation.reliable
    assert "2605.18229" in TargetedProbePerturbation.caveat


def test_the_groups_are_sets_that_are_there() -> None:
    assert {name for names in GROUPS for name in names} <= set(SETS)
    assert TargetedProbePerturbation.tiny().groups[0] in GROUPS


def test_what_cannot_be_judged_is_refused(group: tuple[str, ...], tiny_lm: LanguageModel) -> None:
    subject = subject_of(random_sae(), tiny_lm)
    with pytest.raises(ConfigError, match="wanted groups of two sets or more, each set once"):
        TargetedProbePerturbation(groups=(group[:1],)).measure(subject, Shelf())
    with pytest.raises(ConfigError, match="each set once"):
        TargetedProbePerturbation(groups=(group[:2], group[1:])).measure(subject, Shelf())
    with pytest.raises(ConfigError, match=r"ablate = \[65\] for a dictionary of 64 latents"):
        TargetedProbePerturbation(groups=(group,), ablate=(65,)).measure(subject, Shelf())
    with pytest.raises(UnknownName, match="162_agnews_1"):
        TargetedProbePerturbation(groups=(("162_agnews1", group[0]),)).measure(subject, Shelf())
    with pytest.raises(Incompatible, match="reads several places"):
        TargetedProbePerturbation(groups=(group,)).measure(
            subject_of(ARCHITECTURES["crosscoder"].tiny(), tiny_lm), Shelf()
        )


def test_a_probe_finds_the_direction_and_refuses_one_class() -> None:
    x = torch.randn(400, 6, generator=generator(0))
    x[:, 5] = 2.0
    labels = x[:, 0] - 2 * x[:, 1] > 0.3
    probe = fit_probe(Rows(100 * x + 7, labels), 10.0)
    assert balanced_accuracy(probe, 100 * x + 7, labels) > 0.98
    assert float(probe.weight[0] / probe.weight[1]) == pytest.approx(-0.5, abs=0.1)
    assert float(probe.weight[5]) == 0
    with pytest.raises(TooFewSamples, match="all 400 rows are of one class"):
        fit_probe(Rows(x, torch.ones(400).bool()), 1.0)


def test_attribution_is_the_formula_and_ablation_takes_the_contribution() -> None:
    sae, acts = random_sae(8, 16), torch.randn(50, 8, generator=generator(1))
    labels = torch.arange(50) % 3 == 0
    probe = LinearProbe(torch.randn(8, generator=generator(2)).double(), 0.1)
    dense = sae.encode(acts).dense().double()
    change = dense[labels].mean(0) - dense[~labels].mean(0)
    formula = change * (sae.W_dec.double() @ probe.weight)
    torch.testing.assert_close(attribution(sae, Rows(acts, labels), probe, "both"), formula.abs())
    positive = attribution(sae, Rows(acts, labels), probe, "positive")
    torch.testing.assert_close(positive, torch.where(change > 0, formula, 0))
    some = torch.tensor([1, 4])
    torch.testing.assert_close(without(sae, acts, some), acts - dense[:, some].float() @ sae.W_dec[some])
    torch.testing.assert_close(without(sae, acts, torch.tensor([], dtype=torch.long)), acts)
    assert strongest(torch.tensor([0.0, 3.0, -1.0, 5.0]), 3).tolist() == [3, 1]
