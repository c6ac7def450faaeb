"""What is known of a dictionary comes out as its fidelity."""

from pathlib import Path

import pytest
import torch
from tests.evals.sae.dictionaries import constant, corpus, in_order, place_of, random_sae, subject_of, taught
from torch.nn.functional import cross_entropy, kl_div

from perimetry.activations.model import LanguageModel, tiny_language_model
from perimetry.activations.prompts import collate
from perimetry.activations.tap import Tap
from perimetry.errors import ConfigError, Incompatible, TooFewSamples, WidthMismatch
from perimetry.evals.sae import held_out
from perimetry.evals.sae.base import Subject
from perimetry.evals.sae.fidelity import Fidelity
from perimetry.evals.sae.shelf import Shelf
from perimetry.evals.sae.units import Cell, Units, difference, interval
from perimetry.measures.reconstruction import explained_variance, shrinkage
from perimetry.pipeline.bench_suites import TEST_SPLIT
from perimetry.runtime import generator
from perimetry.sae import ARCHITECTURES
from perimetry.sae.base import AbstractSAE, Start
from perimetry.sae.controls import identity


@pytest.fixture(scope="module")
def lm() -> LanguageModel:
    return taught()


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    return corpus(tmp_path_factory.mktemp("fidelity"))


@pytest.fixture(scope="module")
def whole(text: str) -> Fidelity:
    return Fidelity(text=text, rows=8, context=48, batch=3)


def measured(evaluation: Fidelity, subject: Subject, shelf: Shelf | None = None) -> dict[Cell, Units]:
    return {units.cell: units for units in evaluation.measure(subject, shelf or Shelf())}


def numbers(found: dict[Cell, Units]) -> dict[tuple[str, str], float]:
    return {(cell.metric, cell.arm): units.estimate() for cell, units in found.items()}


def value(found: dict[Cell, Units], metric: str, arm: str = "sae") -> float:
    return found[Cell(metric, arm=arm)].estimate()


def test_the_coordinates_explain_and_recover_everything(whole: Fidelity, lm: LanguageModel) -> None:
    found = measured(whole, subject_of(identity(32), lm))
    for metric in ("explained_variance", "loss_recovered", "kl_recovered", "norm_ratio", "gamma", "cosine"):
        assert value(found, metric) == pytest.approx(1, abs=1e-6), metric
    for metric in ("loss_recovered_over_mean", "kl_recovered_over_mean"):
        assert value(found, metric) == pytest.approx(1, abs=1e-6), metric
    assert value(found, "kl") == pytest.approx(0, abs=1e-9)
    assert value(found, "cross_entropy") == value(found, "cross_entropy", "raw")
    assert value(found, "l0") == pytest.approx(32, abs=0.1)
    assert value(found, "dead") == 0
    assert value(found, "dense") > 0.9
    assert {cell.metric for cell in found} == set(Fidelity.metrics)


def test_a_constant_predictor_explains_nothing(whole: Fidelity, lm: LanguageModel) -> None:
    place = place_of(lm)
    mean = whole.counted_acts(place, whole.held_rows(place))["acts"].double().mean(0)
    found = measured(whole, subject_of(constant(mean), lm))
    assert value(found, "explained_variance") == pytest.approx(0, abs=1e-6)
    assert value(found, "loss_recovered_over_mean") == pytest.approx(0, abs=1e-5)
    assert value(found, "kl_recovered_over_mean") == pytest.approx(0, abs=1e-5)
    assert (value(found, "l0"), value(found, "dead"), value(found, "dense")) == (0, 1, 0)
    away = measured(whole, subject_of(constant(mean + 1), lm))
    assert value(away, "explained_variance") < 0


def test_nothing_at_all_has_no_length(whole: Fidelity, lm: LanguageModel) -> None:
    found = measured(whole, subject_of(constant(torch.zeros(32)), lm))
    assert Cell("gamma") not in found
    assert (value(found, "norm_ratio"), value(found, "cosine")) == (0, 0)


@pytest.mark.parametrize("share", [1.0, 0.4])
def test_it_is_what_the_formulas_say(whole: Fidelity, lm: LanguageModel, share: float) -> None:
    """Another way to the same numbers, where a share of the positions counts and the others keep their own activation: all
    logits at once, the measures of whole tensors."""
    sae, place = random_sae(), place_of(lm)
    held = whole.held_rows(place)
    batch = collate(held.rows, lm.pad_id)
    tap = Tap(lm, 1)
    residual = tap.read(batch.ids, batch.attention)
    cut = float(residual[batch.countable].norm(dim=1).quantile(share))
    where = batch.countable & (residual.norm(dim=2) <= cut)
    found = measured(whole, Subject("it", sae, place_of(lm, max_norm=cut)))
    acts = residual[where]
    assert len(acts) == pytest.approx(share * int(batch.countable.sum()), abs=1)
    made = sae(acts).reconstruction
    assert value(found, "explained_variance") == pytest.approx(explained_variance(acts, made), abs=1e-6)
    assert value(found, "norm_ratio") == pytest.approx(shrinkage(acts, made).norm_ratio, abs=1e-6)
    assert value(found, "gamma") == pytest.approx(shrinkage(acts, made).gamma, abs=1e-6)
    assert value(found, "l0") == pytest.approx(float(sae(acts).codes.count().mean()), abs=1e-6)

    def stand_in(residual: torch.Tensor) -> torch.Tensor:
        out = residual.clone()
        out[where] = sae(residual[where]).reconstruction
        return out

    raw = tap.run_replaced(batch.ids, batch.attention, None).logits()
    with_sae = tap.replace(batch.ids, batch.attention, stand_in)
    zero = tap.replace(batch.ids, batch.attention, torch.zeros_like)
    follows = where[:, :-1] & batch.attention[:, 1:].bool()

    def loss(logits: torch.Tensor) -> float:
        return float(cross_entropy(logits[:, :-1][follows], batch.ids[:, 1:][follows]))

    def divergence(logits: torch.Tensor) -> float:
        new, old = logits[where].log_softmax(1), raw[where].softmax(1)
        return float(kl_div(new, old, reduction="batchmean"))

    assert value(found, "cross_entropy") == pytest.approx(loss(with_sae), abs=1e-5)
    assert value(found, "cross_entropy", "zero") == pytest.approx(loss(zero), abs=1e-5)
    recovered = (loss(zero) - loss(with_sae)) / (loss(zero) - loss(raw))
    assert value(found, "loss_recovered") == pytest.approx(recovered, abs=1e-4)
    assert value(found, "kl_recovered") == pytest.approx(1 - divergence(with_sae) / divergence(zero), abs=1e-4)
    assert 0 < value(found, "loss_recovered") < 1


@pytest.mark.parametrize("batch", [1, 5, 64])
def test_the_batch_changes_nothing(whole: Fidelity, lm: LanguageModel, batch: int) -> None:
    subject = subject_of(random_sae(), lm)
    first = numbers(measured(whole, subject))
    other = numbers(measured(whole.model_copy(update={"batch": batch}), subject))
    assert first == pytest.approx(other, abs=1e-5)


def test_the_order_of_latents_changes_nothing(whole: Fidelity, lm: LanguageModel) -> None:
    sae = random_sae()
    order = torch.randperm(64, generator=generator(3))
    shelf = Shelf()
    first = numbers(measured(whole, subject_of(sae, lm), shelf))
    assert first == pytest.approx(numbers(measured(whole, subject_of(in_order(sae, order), lm), shelf)), abs=1e-5)


def test_a_shelf_on_disk_gives_the_same_and_is_read(whole: Fidelity, lm: LanguageModel, tmp_path: Path) -> None:
    subject = subject_of(random_sae(), lm)
    plain = numbers(measured(whole, subject))
    first = numbers(measured(whole, subject, Shelf(tmp_path)))
    (file,) = tmp_path.glob("*.safetensors")
    made = file.stat().st_mtime_ns
    assert first == plain == numbers(measured(whole, subject, Shelf(tmp_path)))
    assert file.stat().st_mtime_ns == made


def test_two_dictionaries_are_compared_on_the_same_rows(whole: Fidelity, lm: LanguageModel) -> None:
    shelf, cell = Shelf(), Cell("explained_variance")
    good = measured(whole, subject_of(identity(32), lm), shelf)[cell]
    bad = measured(whole, subject_of(random_sae(), lm), shelf)[cell]
    gap = difference(good, bad)
    assert gap.low > 0
    assert gap.n == 8 == interval(good).n
    narrow = measured(whole, subject_of(random_sae(d_sae=48), lm), shelf)[Cell("dead")]
    with pytest.raises(TooFewSamples, match="0 units were measured for both"):
        difference(narrow, measured(whole, subject_of(random_sae(), lm), shelf)[Cell("dead")])


def test_reconstruction_alone_is_the_same_without_the_losses(whole: Fidelity, lm: LanguageModel) -> None:
    subject = subject_of(random_sae(), lm)
    both = numbers(measured(whole, subject))
    alone = numbers(measured(whole.model_copy(update={"losses": False}), subject))
    assert alone == pytest.approx({key: both[key] for key in alone}, abs=1e-6)
    assert {metric for metric, _ in alone} & {"kl", "cross_entropy", "loss_recovered"} == set()


def test_rows_share_no_document_unless_that_is_asked_for(whole: Fidelity, lm: LanguageModel) -> None:
    place = place_of(lm)
    apart = whole.held_rows(place)
    documents = [name for row in apart.rows for name in row.document_ids]
    assert len(set(documents)) == len(documents)
    together = whole.model_copy(update={"apart": False}).held_rows(place)
    documents = [name for row in together.rows for name in row.document_ids]
    assert len(set(documents)) < len(documents)
    assert whole.model_copy(update={"seed": 1}).held_rows(place).key() != apart.key()


def test_an_asset_is_read_at_its_test_split() -> None:
    assert Fidelity().split == TEST_SPLIT


def test_too_little_text_is_refused(lm: LanguageModel, tmp_path: Path) -> None:
    file = tmp_path / "one.txt"
    file.write_text("the cat sat on the mat at night. " * 20)
    evaluation = Fidelity(text=str(file), context=32, rows=8)
    with pytest.raises(
        TooFewSamples, match=r"gives 1 rows of 32 tokens from 1 documents, at least 2 are wanted that share"
    ):
        evaluation.held_rows(place_of(lm))
    assert len(evaluation.model_copy(update={"apart": False}).held_rows(place_of(lm)).rows) == 8
    with pytest.raises(ConfigError, match="rows of 4096 tokens were asked for"):
        evaluation.model_copy(update={"context": 4096}).held_rows(place_of(lm))


@pytest.mark.parametrize(("name", "places"), [("transcoder", "two"), ("crosscoder", "several")])
def test_a_dictionary_of_several_places_is_refused(whole: Fidelity, lm: LanguageModel, name: str, places: str) -> None:
    with pytest.raises(Incompatible, match=f"'it' is a {name}, which reads {places} places"):
        whole.measure(subject_of(ARCHITECTURES[name].tiny(), lm), Shelf())


def test_another_width_is_refused(whole: Fidelity, lm: LanguageModel) -> None:
    sae: AbstractSAE = ARCHITECTURES["topk"].tiny()
    with pytest.raises(WidthMismatch, match="the SAE reads width 8 but layer 1 of 'taught' gives 32"):
        whole.measure(subject_of(sae, lm), Shelf())


def test_a_model_that_predicts_nothing_has_nothing_to_lose(whole: Fidelity) -> None:
    with pytest.raises(
        Incompatible, match=r"zeros at layer 1 of 'tiny-llama' give a cross-entropy of .* no loss to recover"
    ):
        whole.measure(subject_of(random_sae(), tiny_language_model("llama")), Shelf())


@pytest.mark.parametrize("name", ["batchtopk", "gated", "jumprelu", "matching_pursuit", "matryoshka", "spade", "topk"])
def test_architectures_are_measured(name: str, text: str, tiny_lm: LanguageModel) -> None:
    cls = ARCHITECTURES[name]
    sae = cls.fresh(Start(torch.zeros(32), 64, 6, 0, options=cls.options_type()))
    found = measured(Fidelity.tiny().model_copy(update={"text": text}), subject_of(sae, tiny_lm))
    assert all(units.over.isfinite().all() for units in found.values())
    assert value(found, "explained_variance") <= 1


def test_text_is_read_once_for_all_dictionaries_of_a_shelf(
    tiny_lm: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluation, shelf, place = Fidelity(text=corpus(tmp_path), context=40, rows=7), Shelf(), place_of(tiny_lm)
    first = evaluation.rows_once(place, shelf)
    monkeypatch.setattr(held_out, "read_texts", lambda *_, **__: pytest.fail("read again"))
    assert evaluation.rows_once(place, shelf) is first
    assert evaluation.model_copy(update={"batch": 3}).rows_once(place, shelf) is first, "a batch is no other text"
    monkeypatch.undo()
    assert evaluation.model_copy(update={"seed": 1}).rows_once(place, shelf).key() != first.key()
