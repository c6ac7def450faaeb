import random

import pytest
import torch
from tests.worlds import text_of

from perimetry.activations.model import LanguageModel, tiny_language_model
from perimetry.activations.policy import TokenPolicy
from perimetry.activations.twins import Twin, TwinRows, encode_twin
from perimetry.errors import Incompatible
from perimetry.evals.robustness import METRICS, NextTokens, next_tokens, robustness_units
from perimetry.perturb import Typos


def pairs(lm: LanguageModel, dose: float) -> list[TwinRows]:
    found = []
    for number in range(6):
        text = text_of(f"judged:{number}", 12 + number)
        bad = Typos().apply(text, dose, random.Random(number)) if dose else text
        found.append(encode_twin(lm, Twin(f"p{number}", text, bad), TokenPolicy()))
    return found


def read(lm: LanguageModel, twins: list[TwinRows]) -> NextTokens:
    return next_tokens(lm, {"typos": twins})["typos"]


@torch.no_grad()
def logits(lm: LanguageModel, ids: list[int]) -> torch.Tensor:
    return lm.model(input_ids=torch.tensor([ids])).logits[0].double().log_softmax(1)


def test_sums_are_those_of_one_text_at_a_time(tiny_lm: LanguageModel) -> None:
    cases = {"much": pairs(tiny_lm, 0.4), "little": pairs(tiny_lm, 0.1)}
    found = next_tokens(tiny_lm, cases, batch_tokens=150)
    assert found.keys() == cases.keys()
    for name, twins in cases.items():
        are_those_of_one_text_at_a_time(tiny_lm, twins, found[name])
    assert found["much"].ids == ("p0", "p1", "p2", "p3", "p4", "p5")


def are_those_of_one_text_at_a_time(tiny_lm: LanguageModel, twins: list[TwinRows], found: NextTokens) -> None:
    for row, twin in enumerate(twins):
        clean, bad = (logits(tiny_lm, side.ids) for side in (twin.clean, twin.corrupted))
        nll = [
            -sum(log[i - 1, ids[i]] for i in range(1, len(ids)))
            for log, ids in ((clean, twin.clean.ids), (bad, twin.corrupted.ids))
        ]
        assert float(found.clean[row]) == pytest.approx(float(nll[0]), rel=1e-5)
        assert float(found.corrupted[row]) == pytest.approx(float(nll[1]), rel=1e-5)
        kept = -sum(bad[b - 1, twin.corrupted.ids[b]] for b in twin.kept[1])
        assert float(found.kept[row]) == pytest.approx(float(kept), rel=1e-5)
        words = [(a, b) for a, b in zip(*twin.ends, strict=True)][twin.first :]
        assert int(found.agree[row]) == sum(int(clean[a].argmax()) == int(bad[b].argmax()) for a, b in words)
        assert int(found.ends[row]) == len(words)


def test_the_untuned_model_recovers_nothing(tiny_lm: LanguageModel) -> None:
    base = read(tiny_lm, pairs(tiny_lm, 0.4))
    units = {u.cell.metric: u.estimate() for u in robustness_units(base, base, "typos", "base")}
    assert units.keys() == METRICS.keys()
    assert [units[name] for name in ("recovered", "gap_closed", "recovered_all", "clean_rise")] == [0, 0, 0, 0]
    assert units["gap"] == pytest.approx(units["loss"] - float(base.kept_clean.sum() / base.kept_tokens.sum()))


def halved(base: NextTokens) -> NextTokens:
    """A model whose loss after corrupted text lies half way to that after clean text."""
    return base._replace(kept=(base.kept + base.kept_clean) / 2)


def adapted(base: NextTokens) -> NextTokens:
    """A model that has only become better at the kind of text, corrupted or not."""
    return base._replace(kept=base.kept * 0.9, kept_clean=base.kept_clean * 0.9, clean=base.clean * 0.9)


def test_recovery_and_adaptation_are_told_apart(tiny_lm: LanguageModel) -> None:
    base = read(tiny_lm, pairs(tiny_lm, 0.4))
    robust, fitter = (
        {u.cell.metric: u.estimate() for u in robustness_units(found, base, "typos", "tuned")}
        for found in (halved(base), adapted(base))
    )
    assert (robust["recovered"], robust["gap_closed"]) == (pytest.approx(0.5), pytest.approx(0.5))
    assert robust["clean_rise"] == 0
    assert fitter["gap_closed"] == pytest.approx(0.1)
    assert abs(fitter["recovered"]) > 0.5, "most of that is adaptation to the text"
    assert fitter["clean_rise"] == pytest.approx(-0.1)


def test_other_pairs_are_refused(tiny_lm: LanguageModel) -> None:
    base = read(tiny_lm, pairs(tiny_lm, 0.4))
    with pytest.raises(Incompatible, match="different pairs"):
        robustness_units(base, base._replace(ids=("x",) * 6), "typos", "tuned")


def test_cases_of_other_texts_are_refused(tiny_lm: LanguageModel) -> None:
    twins = pairs(tiny_lm, 0.4)
    with pytest.raises(Incompatible, match="different clean texts"):
        next_tokens(tiny_lm, {"typos": twins, "fewer": twins[:3]})


def test_another_model_gives_other_numbers(tiny_lm: LanguageModel) -> None:
    twins = pairs(tiny_lm, 0.4)
    other = read(tiny_language_model("llama", seed=1), twins)
    assert not torch.allclose(other.clean, read(tiny_lm, twins).clean)
