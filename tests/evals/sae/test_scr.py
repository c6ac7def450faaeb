"""A biased probe is mended by the latents of the spurious label, and not by a dictionary that has none."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.evals.sae.dictionaries import constant, in_order, random_sae, subject_of
from tests.worlds import write_jsonl

from perimetry.activations.model import LanguageModel
from perimetry.errors import ConfigError, Incompatible, TooFewSamples, WidthMismatch
from perimetry.evals.sae import scr
from perimetry.evals.sae.probe_sets import SETS
from perimetry.evals.sae.scr import PAIRS, SpuriousCorrelationRemoval
from perimetry.evals.sae.shelf import Shelf
from perimetry.evals.sae.units import Units
from perimetry.runtime import generator
from perimetry.sae import ARCHITECTURES
from perimetry.sae.controls import identity


def labels_of(text: str) -> tuple[int, int]:
    *_, first, second = text.split()
    return int(first), int(second)


def write_pair(folder: Path, counts: Mapping[tuple[int, int], int]) -> tuple[str, str]:
    texts = [f"item {i} {a} {b}" for (a, b), n in counts.items() for i in range(n)]
    files = [
        write_jsonl(
            folder / f"{name}.jsonl", [{"id": i, "text": t, "label": labels_of(t)[side]} for i, t in enumerate(texts)]
        )
        for side, name in enumerate(("one", "two"))
    ]
    return str(files[0]), str(files[1])


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    return write_pair(tmp_path_factory.mktemp("scr"), {(a, b): 60 + 20 * (a == b) for a in (0, 1) for b in (0, 1)})


def planted(groups: Mapping[str, Sequence[str]], *_: Any, **__: Any) -> dict[str, torch.Tensor]:
    """Coordinate 0 tells the first label, with noise; coordinate 1 the second, plainly."""
    found = {}
    for name, texts in groups.items():
        signs = 2 * torch.tensor([labels_of(text) for text in texts]).float() - 1
        acts = 0.1 * torch.randn(len(texts), 32, generator=generator(3))
        acts[:, 0] = signs[:, 0] + 0.5 * torch.randn(len(texts), generator=generator(4))
        acts[:, 1] += 3 * signs[:, 1]
        found[name] = acts
    return found


def units_of(found: list[Units], metric: str, k: int = 0, arm: str = "sae") -> Units:
    (one,) = [units for units in found if (units.cell.metric, units.cell.k, units.cell.arm) == (metric, k, arm)]
    return one


def test_the_latents_of_the_spurious_label_mend_the_probe(
    pair: tuple[str, str], tiny_lm: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scr, "last_tokens", planted)
    evaluation = SpuriousCorrelationRemoval(pairs=(pair,), ablate=(2, 4), draws=2)
    found = evaluation.measure(subject_of(identity(32), tiny_lm), Shelf())
    assert units_of(found, "scr", 2).names == ("one < two", "two < one")
    biased, clean = units_of(found, "accuracy", arm="biased").over, units_of(found, "accuracy", arm="clean").over
    assert float(biased[0]) < 0.75 < 0.9 < float(clean[0])
    assert float(units_of(found, "accuracy", 2).over[0]) == pytest.approx(float(clean[0]), abs=0.03)
    assert units_of(found, "scr", 2).estimate() > 0.9
    silent = evaluation.measure(subject_of(constant(torch.zeros(32)), tiny_lm), Shelf())
    assert units_of(silent, "scr", 2).estimate() == 0
    order = torch.randperm(64, generator=generator(1))
    mixed = evaluation.measure(subject_of(in_order(identity(32), order), tiny_lm), Shelf())
    assert units_of(mixed, "scr", 2).estimate() == pytest.approx(units_of(found, "scr", 2).estimate())


def test_draws_are_balanced_and_apart(pair: tuple[str, str]) -> None:
    shared = SpuriousCorrelationRemoval(pairs=(pair,))._shared(*pair)
    draw = scr._draw(shared, 0)
    assert set(draw.test.tolist()).isdisjoint([*draw.biased.tolist(), *draw.clean.tolist()])
    assert torch.equal(shared.first[draw.biased], shared.second[draw.biased])
    assert float(shared.first[draw.biased].double().mean()) == 0.5
    for rows in (draw.test, draw.clean):
        cells = 2 * shared.first[rows].long() + shared.second[rows].long()
        assert torch.bincount(cells, minlength=4).unique().numel() == 1
    assert not torch.equal(draw.test, scr._draw(shared, 1).test)


def test_it_reads_the_model(pair: tuple[str, str], tiny_lm: LanguageModel, tmp_path: Path) -> None:
    evaluation = SpuriousCorrelationRemoval(pairs=(pair,), ablate=(8,), draws=1, context=32)
    subject = subject_of(random_sae(), tiny_lm)
    found = evaluation.measure(subject, Shelf(tmp_path))
    assert {units.cell.metric for units in found} == set(SpuriousCorrelationRemoval.metrics)
    assert units_of(found, "accuracy", arm="clean").estimate() > units_of(found, "accuracy", arm="biased").estimate()
    again = evaluation.measure(subject, Shelf(tmp_path))
    assert [units.to_json() for units in again] == [units.to_json() for units in found]


def test_it_says_that_it_is_not_to_be_relied_on() -> None:
    assert not SpuriousCorrelationRemoval.reliable
    assert "2605.18229" in SpuriousCorrelationRemoval.caveat


def test_the_pairs_are_sets_that_are_there() -> None:
    assert {name for names in PAIRS for name in names} <= set(SETS)
    assert SpuriousCorrelationRemoval.tiny().pairs[0] in PAIRS


def test_what_cannot_be_judged_is_refused(
    pair: tuple[str, str], tiny_lm: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = subject_of(random_sae(), tiny_lm)
    rare = write_pair(tmp_path, {(0, 0): 60, (1, 1): 60, (0, 1): 60, (1, 0): 5})
    with pytest.raises(
        TooFewSamples, match="one and two share 185 prompts, and the rarest combination of labels has 5; wanted 8"
    ):
        SpuriousCorrelationRemoval(pairs=(rare,)).measure(subject, Shelf())
    with pytest.raises(ConfigError, match="ablate = "):
        SpuriousCorrelationRemoval(pairs=(pair,), ablate=()).measure(subject, Shelf())
    with pytest.raises(WidthMismatch, match="reads width 8"):
        SpuriousCorrelationRemoval(pairs=(pair,)).measure(subject_of(ARCHITECTURES["topk"].tiny(), tiny_lm), Shelf())
    monkeypatch.setattr(
        scr, "last_tokens", lambda groups, *_, **__: {n: torch.zeros(len(t), 32) for n, t in groups.items()}
    )
    with pytest.raises(Incompatible, match=r"biased rows reach 0.500 .* clean ones 0.500: no correlation was learned"):
        SpuriousCorrelationRemoval(pairs=(pair,)).measure(subject, Shelf())
