"""Nothing learned does worse, nothing shifted gives one half: controls on a small world and on a small model."""

import pytest
import torch

from evals.samples import dial
from perimetry.activations.model import LanguageModel
from perimetry.errors import TooFewSamples, UnknownName
from perimetry.evals.controls import CONTROL_PAIRS, control_contrast, untrained_model
from perimetry.evals.rows import Kind
from perimetry.evals.scores import ScoreTable
from perimetry.evals.shift import BenchConfig
from perimetry.measures.ranking import auroc, auroc_interval
from perimetry.shift import DETECTORS
from perimetry.shift.base import AbstractDetector, Evidence
from perimetry.shift.tables import score_table
from shift import worlds
from shift.golden import mild

PAIRS = 80
SUITE = dial(PAIRS, (0.2,))
CONFIG = BenchConfig(resamples=400)
KINDS: dict[str, Kind] = {n: "baseline" if cls.baseline else "concept" for n, cls in DETECTORS.items()}


@pytest.fixture(scope="module")
def fitted() -> dict[str, AbstractDetector]:
    profile = worlds.profile_of(*(worlds.clean(seed) for seed in range(8)))
    return {name: cls.fit(profile) for name, cls in DETECTORS.items()}


def scored(fitted: dict[str, AbstractDetector], *sides: Evidence) -> ScoreTable:
    """Clean prompts, then shifted ones: the order of the suite."""
    tables = [score_table(side, list(fitted), fitted, {}) for side in sides]
    return ScoreTable({name: torch.cat([table[name] for table in tables]) for name in fitted}, KINDS)


@pytest.fixture(scope="module")
def table(fitted: dict[str, AbstractDetector]) -> ScoreTable:
    return scored(fitted, worlds.clean(700, PAIRS), mild(701, PAIRS))


def test_a_dictionary_that_learned_nothing_loses(table: ScoreTable) -> None:
    rows = control_contrast(table, table, SUITE, CONTROL_PAIRS, config=CONFIG)
    assert [(r.detector, r.against) for r in rows] == list(CONTROL_PAIRS)
    for row in rows:
        assert row.low > 0, row
        assert (row.metric, row.selection, row.n_pairs, row.dose) == ("auroc_difference", "control", PAIRS, 0.2)
        clean, shifted = ({n: v[s] for n, v in table.scores.items()} for s in (slice(PAIRS), slice(PAIRS, None)))
        areas = [auroc(clean[name], shifted[name]) for name in (row.detector, row.against)]
        assert row.estimate == pytest.approx(areas[0] - areas[1])


def test_a_score_against_itself_is_no_difference(table: ScoreTable) -> None:
    (row,) = control_contrast(table, table, SUITE, [("surprise", "surprise")], label="again", config=CONFIG)
    assert (row.estimate, row.low, row.high, row.against) == (0.0, 0.0, 0.0, "surprise, again")


def test_a_control_that_wins_is_said_to_win(table: ScoreTable) -> None:
    turned = [(other, name) for name, other in CONTROL_PAIRS]
    assert all(row.high < 0 for row in control_contrast(table, table, SUITE, turned, config=CONFIG))


def test_refusals(table: ScoreTable) -> None:
    with pytest.raises(UnknownName, match="unknown detector 'surprize'; the nearest name is 'surprise'"):
        control_contrast(table, table, SUITE, [("l0", "surprize")])
    few = ScoreTable({n: v[:6] for n, v in table.scores.items()}, KINDS)
    with pytest.raises(TooFewSamples, match="no contrast of suite 'dial' has 8 pairs"):
        control_contrast(few, few, dial(3, (0.2,)), CONTROL_PAIRS)


@pytest.mark.parametrize("name", sorted(DETECTORS))
def test_clean_against_clean_is_one_half(name: str, fitted: dict[str, AbstractDetector]) -> None:
    """All detectors together hold with 95 % confidence (Bonferroni)."""
    one, two = (score_table(worlds.clean(seed, 150), [name], fitted, {})[name] for seed in (800, 801))
    box = auroc_interval(one, two, pairs=False, confidence=1 - 0.05 / len(DETECTORS))
    assert box.low <= 0.5 <= box.high
    assert box.high - box.low < 0.25


@pytest.mark.parametrize("name", sorted(DETECTORS))
def test_shuffled_labels_are_one_half(name: str, table: ScoreTable) -> None:
    """Which of two twins is called shifted is drawn by a coin."""
    sides = table.scores[name].view(2, PAIRS)
    coin = torch.rand(PAIRS, generator=torch.Generator().manual_seed(5)) < 0.5
    one, two = torch.where(coin, sides[0], sides[1]), torch.where(coin, sides[1], sides[0])
    box = auroc_interval(one, two, pairs=True, confidence=1 - 0.05 / len(DETECTORS))
    assert box.low <= 0.5 <= box.high


def test_an_untrained_model_has_the_shape_and_none_of_the_weights(tiny_lm: LanguageModel) -> None:
    before = torch.get_rng_state()
    one, again, other = untrained_model(tiny_lm, 1), untrained_model(tiny_lm, 1), untrained_model(tiny_lm, 2)
    assert torch.equal(torch.get_rng_state(), before)
    assert (one.d_model, one.n_layers, one.dtype, one.family) == (32, 3, tiny_lm.dtype, "llama")
    assert one.tokenizer_hash == tiny_lm.tokenizer_hash
    assert one.revision == again.revision
    assert len({one.revision, other.revision, tiny_lm.revision}) == 3
