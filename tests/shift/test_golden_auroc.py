"""No number of a detector changes silently: AUROCs in two small fixed worlds against a committed file."""

import pytest

from perimetry.shift import DETECTORS
from perimetry.storage import read_json

from .golden import FILE, measure

RENEW = "run `python -m tests.shift.golden`, look at the difference, and say in the commit why it moved"
WORLDS = ("model", "world")
BY_PROCESSOR = {("fallacious_f2", "model"), ("random_dictionary", "model")}
"""They count what lies above a cut in the activations of a float32 model; on a processor that rounds these otherwise a few of the
3,600 pairs of prompts change places: .003 and .002 between one with AMX and one without."""


@pytest.fixture(scope="module")
def found() -> dict[str, dict[str, float]]:
    return measure()


@pytest.fixture(scope="module")
def golden() -> dict[str, dict[str, float]]:
    return read_json(FILE)


@pytest.mark.parametrize("where", WORLDS)
@pytest.mark.parametrize("name", sorted(DETECTORS))
def test_the_auroc_is_what_it_was(
    name: str, where: str, found: dict[str, dict[str, float]], golden: dict[str, dict[str, float]]
) -> None:
    assert name in golden[where], f"{name} has no golden AUROC; {RENEW}"
    within = 5e-3 if (name, where) in BY_PROCESSOR else 1e-3
    assert found[where][name] == pytest.approx(golden[where][name], abs=within), RENEW


@pytest.mark.parametrize("where", WORLDS)
def test_the_guard_would_see_a_change(where: str, golden: dict[str, dict[str, float]]) -> None:
    """A score at its ceiling hides what happens to it; nearly all must lie between, and few may be alike."""
    values = golden[where].values()
    between = [a for a in values if 0.005 < a < 0.995]
    assert len(between) >= 0.9 * len(values)
    assert len(set(values)) > len(values) / 2
