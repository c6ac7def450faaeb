"""What is made of readings, against hand-made ones."""

from pathlib import Path

import pytest

from perimetry.editing.rings import Shattering
from perimetry.labs.base import Measured
from perimetry.labs.knowledge_editing.algebra import run_algebra
from perimetry.labs.knowledge_editing.calibration import HARMFUL, HARMLESS, calibrated
from perimetry.labs.knowledge_editing.measures import Reading
from perimetry.labs.knowledge_editing.real import RealSizes, numbers_of_check, run_real
from perimetry.labs.knowledge_editing.summary import Row, curves_of, numbers_of
from perimetry.labs.knowledge_editing.world import KINDS, ORDERS
from perimetry.labs.points import BASELINES, CONCEPTS


def _row(fact: int, r: float, lost: float, *, editor: str = "ROME", drawn: bool = False, scale: float = 1.0) -> Row:
    ring = Shattering(r, r / 10, 1 + r)
    read = Reading(
        dict.fromkeys((*ORDERS, "entity"), ring),
        0.5,
        {(order, kind): lost for order in ORDERS for kind in KINDS},
        lost,
        lost,
        0.9,
        lost,
    )
    shift = dict.fromkeys((*CONCEPTS, *BASELINES), r) | {"l0": float(fact % 2)}
    return Row(fact, 1 + fact % 4, editor, scale, drawn, r, read, shift)


ROWS = [
    *(_row(i, 0.01 * (i + 1), 0.001 * (i + 1)) for i in range(8)),
    *(_row(i, 0.02 * (i + 1), 0.0, drawn=True) for i in range(8)),
    *(_row(i, 0.8 + 0.01 * i, 0.5 + 0.01 * i, editor="ROME, C of few keys") for i in range(8)),
    *(_row(i, 0.5, 0.2, editor="ROME, C of few keys", drawn=True) for i in range(8)),
]


def _found(measured: list[Measured]) -> dict[tuple[str, str], float]:
    return {(m.metric, m.case): m.value for m in measured}


def test_numbers_of_an_editor_by_hand() -> None:
    found = _found(numbers_of(ROWS))
    assert found["R of I", "ROME"] == pytest.approx(0.045)
    assert found["R of I", "ROME, d 1"] == pytest.approx(0.03), "facts 0 and 4"
    assert found["X of I", "ROME"] == pytest.approx(0.5)
    assert found["largest R of all orders and distances", "ROME"] == pytest.approx(0.06)
    assert found["R over that of ROME", "ROME, C of few keys"] == pytest.approx(0.835 / 0.045)
    assert found["flag: none", "ROME"] == 1.0
    assert found["flag: norm blow-up", "ROME, C of few keys"] == 1.0, "large, and of the same shape"
    assert found["r2 of R and the direct accuracy lost", "ROME"] == pytest.approx(1.0)
    assert found["rank correlation of R a norm and d", "drawn"] == 0.0
    assert curves_of(ROWS)["R of I, ROME"].xs == [1.0, 2.0, 3.0, 4.0]


def test_the_check_is_held_against_what_was_lost() -> None:
    rows = calibrated(ROWS, 0)
    found = _found(rows)
    case = "R, direct, every edit"
    assert found["rank correlation with the accuracy lost", case] == pytest.approx(1.0)
    box = next(m for m in rows if m.metric == "rank correlation with the accuracy lost" and m.case == case)
    assert box.low is not None
    assert box.low > 0.99
    assert box.n == 8, "facts are what is resampled, not edits"
    assert abs(found["rank correlation with the accuracy lost", "mean l0, direct, every edit"]) < 0.3
    assert found["AUROC of harm", "R, every edit"] == 1.0
    assert found["edits", "harmful, every edit"] == found["edits", "harmless, every edit"] == 8.0
    assert found["AUROC of harm", "R, ROME"] == 0.5, "nothing to tell apart where every edit is harmless"
    assert HARMLESS < HARMFUL
    assert found["r2 with R", "bernoulli"] == pytest.approx(1.0)
    assert found["r2 with R, beyond the baselines", "bernoulli"] == pytest.approx(0.0, abs=1e-6)


def test_algebra_keeps_its_promises_whatever_is_drawn() -> None:
    outcome = run_algebra(7)
    found = _found(outcome.measured)
    assert max(found["error of the edited value", name] for name in ("ROME", "r-ROME")) < 1e-10
    assert found["other exact updates disturb more", ""] == found["other updates are worse for MEMIT", ""] == 1.0
    assert found["AlphaEdit's change of what is in use", ""] < 1e-8
    assert found["directions that AlphaEdit may change", ""] > 1
    ys = outcome.curves["mixed keys"].ys
    assert ys == sorted(ys)
    assert ys[-1] > 5 * ys[0], "the less a key has of the others' direction, the larger the update by mixed keys"


def test_a_check_of_the_real_model_by_hand_and_without_weights(tmp_path: Path) -> None:
    about = {"family": "months", "metric": "ring_r", "probe": "months"}
    rows = [
        {"edit": "one", "arm": "edit", "estimate": 0.2, **about},
        {"edit": "two", "arm": "edit", "estimate": 0.4, **about},
        {"edit": "all", "arm": "edit", "estimate": 9.0, **about},
        {"edit": "one", "arm": "drawn", "estimate": 0.03, **about},
    ]
    found = _found(numbers_of_check(rows))
    assert found["ring_r", "months, edit, months"] == pytest.approx(0.3)
    assert found["R over that of drawn updates", "months, months"] == pytest.approx(10)
    absent = run_real(RealSizes(str(tmp_path / "nowhere"), 1, 1), 0, tmp_path)
    assert absent.measured == [Measured("weights at hand", 0.0)]
