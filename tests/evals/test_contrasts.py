"""Which cases are compared with which."""

from evals.samples import dial, matched
from perimetry.evals.contrasts import contrasts, dose_ladders


def test_a_dial_gives_one_contrast_a_dose_and_all_kinds_together() -> None:
    suite = dial(4, (0.1, 0.5), ("upper", "random"))
    found = {(c.family, c.dose, c.negatives): c for c in contrasts(suite)}
    families = ("upper", "random", "all")
    assert set(found) == {(f, d, "all") for f in families for d in (0.1, 0.5)}
    assert all(len(c.clean) == 4 for c in found.values())
    assert len(found["all", 0.5, "all"].shifted) == 8
    assert all(suite.cases[i].dose == 0.5 for i in found["all", 0.5, "all"].shifted)


def test_attacks_meet_only_negatives_of_their_own_pairs() -> None:
    suite = matched(12)
    found = {(c.family, c.negatives): c for c in contrasts(suite)}
    assert set(found) == {("dan", "all"), ("tap", "all"), ("all", "all"), ("all", "passage"), ("all", "prompt")}
    for contrast in found.values():
        pairs = [{suite.cases[i].pair for i in side} for side in (contrast.clean, contrast.shifted)]
        assert pairs[0] == pairs[1]
    assert len(found["all", "prompt"].shifted) == 8
    assert len(found["all", "passage"].shifted) == 12
    assert len(found["dan", "all"].clean) == 6 + 4


def test_ladders_hold_the_twins_of_each_pair_in_order() -> None:
    suite = dial(3, (0.1, 0.5))
    (ladder,) = dose_ladders(suite)
    assert ladder.doses == (0.0, 0.1, 0.5)
    for row in ladder.cases:
        assert [suite.cases[i].dose for i in row] == [0.0, 0.1, 0.5]
        assert len({suite.cases[i].pair for i in row}) == 1
    assert dose_ladders(matched(6)) == []
