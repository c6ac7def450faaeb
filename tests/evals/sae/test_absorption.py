"""The whole evaluation of absorption on a tiny model, whose numbers mean nothing."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from perimetry.activations import tiny
from perimetry.activations.model import LanguageModel, tiny_language_model
from perimetry.activations.policy import TokenPolicy
from perimetry.errors import ConfigError, Incompatible, TooFewSamples, WidthMismatch
from perimetry.evals.sae import absorption
from perimetry.evals.sae.absorption import METRICS, Absorption
from perimetry.evals.sae.base import Place, Subject
from perimetry.evals.sae.letters import WordReads
from perimetry.evals.sae.shelf import Shelf
from perimetry.evals.sae.units import Units, interval
from perimetry.sae import ARCHITECTURES
from perimetry.sae.base import AbstractSAE, Start


def dictionary(seed: int = 0, d_model: int = 32) -> AbstractSAE:
    return ARCHITECTURES["topk"].fresh(Start(torch.zeros(d_model), 64, 6, seed))


def subject_of(lm: LanguageModel, sae: AbstractSAE | None = None) -> Subject:
    return Subject("tiny", sae or dictionary(), Place(lm, 1, TokenPolicy()))


def close(one: Sequence[Units], two: Sequence[Units]) -> None:
    assert [u.cell for u in one] == [u.cell for u in two]
    for a, b in zip(one, two, strict=True):
        assert a.names == b.names
        torch.testing.assert_close(a.over, b.over, atol=1e-4, rtol=0)


def test_the_whole_evaluation_on_a_tiny_model(
    tiny_lm: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf, evaluation = Shelf(tmp_path), Absorption.tiny()
    found = evaluation.measure(subject_of(tiny_lm), shelf)
    by_name = {units.cell.metric: units for units in found}
    assert sorted(by_name) == sorted(METRICS)
    names = by_name["full_absorption"].names
    assert set(names) <= set("bdfkpt")
    assert len(names) >= 2
    assert by_name["letters"].estimate() == len(names)
    for metric in ("full_absorption", "absorption_fraction", "splitting", "main_f1", "probe_f1"):
        assert by_name[metric].names == names
        assert interval(by_name[metric]).n == len(names)
    for metric in ("full_absorption", "absorption_fraction", "main_f1", "probe_f1"):
        assert bool(((by_name[metric].over >= 0) & (by_name[metric].over <= 1)).all())
    assert bool((by_name["probe_f1"].over > 0).all())
    assert bool((by_name["splitting"].over >= 1).all())

    # Another dictionary reads what lies on the shelf, and is judged on the same letters.
    def never(*_: Any, **__: Any) -> WordReads:
        raise AssertionError("the model was read again")

    with monkeypatch.context() as patch:
        patch.setattr(absorption, "read_words", never)
        close(found, evaluation.measure(subject_of(tiny_lm), Shelf(tmp_path)))
        other = evaluation.measure(subject_of(tiny_lm, dictionary(7)), shelf)
        with pytest.raises(AssertionError, match="read again"):
            evaluation.model_copy(update={"seed": 1}).measure(subject_of(tiny_lm), shelf)
    assert {u.names for u in other[:4]} == {names}
    assert other[3].over.tolist() != found[3].over.tolist()


def test_the_batch_changes_nothing(tiny_lm: LanguageModel) -> None:
    one, many = (
        Absorption.tiny().model_copy(update={"batch": batch}).measure(subject_of(tiny_lm), Shelf()) for batch in (7, 50)
    )
    close(one, many)


def test_a_run_that_was_stopped_reads_only_what_is_left(
    tiny_lm: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(absorption, "PART", 50)
    read, calls = absorption.read_words, []

    def counted(place: Place, prompts: Sequence[str], *rest: Any, **more: Any) -> WordReads:
        if len(calls) == 2:
            calls.append(0)
            raise KeyboardInterrupt
        calls.append(len(prompts))
        return read(place, prompts, *rest, **more)

    monkeypatch.setattr(absorption, "read_words", counted)
    with pytest.raises(KeyboardInterrupt):
        Absorption.tiny().measure(subject_of(tiny_lm), Shelf(tmp_path))
    resumed = Absorption.tiny().measure(subject_of(tiny_lm), Shelf(tmp_path))
    assert calls == [50, 50, 0, 20]
    monkeypatch.undo()
    close(resumed, Absorption.tiny().measure(subject_of(tiny_lm), Shelf()))


def test_a_vocabulary_of_words_is_read_word_by_word(monkeypatch: pytest.MonkeyPatch) -> None:
    words = Absorption.tiny().given
    parts = sorted({"Ġ" + word[:n] for word in words for n in (1, 2, 3)}, key=lambda p: (len(p), p))
    monkeypatch.setattr(tiny, "MERGES", tuple((p[:-1], p[-1]) for p in parts))
    lm = tiny_language_model("llama")
    evaluation = Absorption.tiny().model_copy(update={"given": (), "words": 30})
    shelf = Shelf()
    found = evaluation.measure(subject_of(lm), shelf)
    # Of six letters 20 words of three letters and the four pairs that they begin with, of one token each.
    assert sum(len(held["acts"]) for held in shelf._held.values() if "acts" in held) == 6 * 24
    assert found[0].names == tuple(sorted(found[0].names))
    assert len(found[0].names) >= 2


def test_what_cannot_be_judged_is_refused(tiny_lm: LanguageModel) -> None:
    subject = subject_of(tiny_lm)
    with pytest.raises(TooFewSamples, match="4 training words came for 10 examples a prompt"):
        Absorption().measure(subject, Shelf())
    with pytest.raises(
        TooFewSamples, match=r"0 letters have 5 words .* wanted 15 letters; give more words, or use a model with"
    ):
        Absorption(examples=1).measure(subject, Shelf())
    with pytest.raises(WidthMismatch, match=r"the SAE reads width 8 but layer 1 of 'tiny-llama' gives 32"):
        Absorption.tiny().measure(subject_of(tiny_lm, dictionary(d_model=8)), Shelf())
    with pytest.raises(Incompatible, match="transcoder, which reads two places"):
        Absorption.tiny().measure(subject_of(tiny_lm, ARCHITECTURES["transcoder"].tiny()), Shelf())
    with pytest.raises(ConfigError, match="layer 9 is not in 'tiny-llama'"):
        Absorption.tiny().measure(subject._replace(place=Place(tiny_lm, 9, TokenPolicy())), Shelf())


def test_settings_that_leave_nothing_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"training 0.7 and held_out 0.3 leave no words to measure absorption on"):
        Absorption(training=0.7, held_out=0.3)
    with pytest.raises(ValidationError, match="should match pattern"):
        Absorption(given=("Bad",))


def test_what_stands_beside_the_numbers() -> None:
    assert "1 B parameters" in Absorption.caveat
    assert "16 k latents" in Absorption.caveat
    assert METRICS["full_absorption"].higher is METRICS["absorption_fraction"].higher is False
    assert Absorption.reliable
