"""Two dictionaries that are one, that share a part, and that have nothing in common."""

from pathlib import Path

import pytest
import torch
from tests.evals.sae.dictionaries import constant, corpus, in_order, random_sae, subject_of

from perimetry.activations.model import LanguageModel, tiny_language_model
from perimetry.errors import Incompatible, PolicyMismatch, TooFewSamples, WidthMismatch
from perimetry.evals.sae.shelf import Shelf
from perimetry.evals.sae.stability import Stability
from perimetry.evals.sae.units import Units
from perimetry.runtime import generator
from perimetry.sae import ARCHITECTURES


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Stability:
    return Stability.tiny().model_copy(update={"text": corpus(tmp_path_factory.mktemp("stability"))})


def numbers(found: list[Units]) -> dict[tuple[str, str, str], float]:
    made = {(units.cell.metric, units.cell.case, units.cell.arm): units.estimate() for units in found}
    assert len(made) == len(found)
    return made


ORDER = torch.randperm(64, generator=generator(1))


def test_a_permuted_copy_has_every_latent(whole: Stability, tiny_lm: LanguageModel) -> None:
    first, second = subject_of(random_sae(), tiny_lm, "a"), subject_of(in_order(random_sae(), ORDER), tiny_lm, "b")
    found = numbers(whole.compare(first, second, Shelf()))
    for metric in Stability.metrics:
        assert found[metric, "", "sae"] == pytest.approx(1), metric
        assert found[metric, "", "chance"] < 0.9, metric
    assert found["cosine", "back", "sae"] == pytest.approx(1) == found["correlation", "back", "sae"]
    assert {metric for metric, _, _ in found} == set(Stability.metrics)


def test_the_diff_of_a_permuted_copy_is_empty(whole: Stability, tiny_lm: LanguageModel) -> None:
    first, second = subject_of(random_sae(), tiny_lm, "a"), subject_of(in_order(random_sae(), ORDER), tiny_lm, "b")
    found = whole.diff(first, second, Shelf())
    assert found.of("only first", "only second", "near") == []
    shared = found.of("shared")
    assert len(shared) == 64
    assert max(abs(row.change) for row in shared) < 1e-9
    assert max(row.first_rate for row in shared) > 0.1
    assert {(row.first, row.second) for row in shared} == {(f"a/{i}", f"b/{j}") for j, i in enumerate(ORDER.tolist())}


def test_planted_latents_are_found(whole: Stability, tiny_lm: LanguageModel) -> None:
    every = random_sae()
    less = in_order(every, ORDER[:60])
    first, second = subject_of(less, tiny_lm, "less"), subject_of(every, tiny_lm, "more")
    found = whole.diff(first, second, Shelf())
    assert {row.second for row in found.of("only second")} == {f"more/{i}" for i in ORDER[60:].tolist()}
    assert found.of("only first") == []
    measured = numbers(whole.compare(first, second, Shelf()))
    assert measured["twins_90", "", "sae"] == pytest.approx(1)
    assert measured["twins_90", "back", "sae"] == pytest.approx(60 / 64)
    assert measured["firing_twins_90", "", "sae"] == pytest.approx(1)


def test_strangers_are_at_the_chance_level(whole: Stability, tiny_lm: LanguageModel) -> None:
    shelf = Shelf()
    first, second = subject_of(random_sae(), tiny_lm, "a"), subject_of(random_sae(seed=7), tiny_lm, "b")
    found = numbers(whole.compare(first, second, shelf))
    assert found["cosine", "", "sae"] == pytest.approx(found["cosine", "", "chance"], abs=0.05)
    assert found["twins_90", "", "sae"] == 0
    alone = numbers(whole.measure(first, shelf))
    assert alone == {
        key: value for key, value in found.items() if key[2] == "chance" and key[0] in {k for k, _, _ in alone}
    }
    assert {arm for _, _, arm in alone} == {"chance"}


def test_the_batch_and_the_shelf_change_nothing(whole: Stability, tiny_lm: LanguageModel, tmp_path: Path) -> None:
    first, second = subject_of(random_sae(), tiny_lm, "a"), subject_of(random_sae(seed=7), tiny_lm, "b")
    plain = numbers(whole.compare(first, second, Shelf()))
    assert numbers(whole.model_copy(update={"batch": 1}).compare(first, second, Shelf(tmp_path))) == pytest.approx(
        plain
    )
    assert numbers(whole.compare(first, second, Shelf(tmp_path))) == pytest.approx(plain)
    assert len(list(tmp_path.glob("*.safetensors"))) == 1


def test_what_is_left_out_when_it_is_asked(whole: Stability, tiny_lm: LanguageModel) -> None:
    first, second = subject_of(random_sae(), tiny_lm, "a"), subject_of(random_sae(seed=7), tiny_lm, "b")
    quick = whole.model_copy(update={"firing": False, "assign": 63, "text": "no such text"})
    metrics = {units.cell.metric for units in quick.compare(first, second, Shelf())}
    assert metrics == {"cosine", "twins_70", "twins_90"}


def test_two_places_are_refused(whole: Stability, tiny_lm: LanguageModel) -> None:
    first = subject_of(random_sae(), tiny_lm, "a")
    with pytest.raises(Incompatible, match=r"'a' and 'b' read two places: layer is 0, wanted 1"):
        whole.compare(first, subject_of(random_sae(), tiny_lm, "b", layer=0), Shelf())
    with pytest.raises(Incompatible, match="read two places: model is"):
        whole.diff(first, subject_of(random_sae(), tiny_language_model("llama", 1), "b"), Shelf())
    with pytest.raises(PolicyMismatch, match="policy of 'b'"):
        whole.compare(first, subject_of(random_sae(), tiny_lm, "b", prepend_bos=False), Shelf())
    with pytest.raises(WidthMismatch, match="reads width 8"):
        whole.compare(first, subject_of(ARCHITECTURES["topk"].tiny(), tiny_lm), Shelf())


def test_dictionaries_that_never_fire_are_refused(whole: Stability, tiny_lm: LanguageModel) -> None:
    silent = subject_of(constant(torch.zeros(32)), tiny_lm)
    with pytest.raises(
        TooFewSamples, match=r"no latent fires at 2 or more of \d+ tokens without firing at all of them"
    ):
        whole.compare(silent, silent, Shelf())
