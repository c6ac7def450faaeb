"""Classes of heat."""

from hypothesis import given
from hypothesis import strategies as st

from perimetry.monitor.web.heat import CLASSES, heat_of

NUMBERS = st.floats(-1e6, 1e6)


@given(st.lists(NUMBERS, min_size=1), NUMBERS, st.floats(1e-6, 1e3))
def test_classes_rise_with_scores(scores: list[float], mean: float, sd: float) -> None:
    for heat in (heat_of({}, scores), heat_of({"mean": mean, "sd": sd}, scores)):
        levels = [heat.level(score) for score in sorted(scores)]
        assert levels == sorted(levels)
        assert all(0 <= level < CLASSES for level in levels)
        assert list(heat.edges) == sorted(heat.edges)
        assert len(heat.edges) == CLASSES - 1


def test_a_clean_token_is_cold_and_one_far_out_is_hot() -> None:
    heat = heat_of({"mean": 2.0, "sd": 0.5}, [])
    assert (heat.level(2.0), heat.level(2.26), heat.level(5.1)) == (0, 1, 8)
    assert "2 ± 0.5" in heat.why


def test_without_clean_tokens_the_text_is_its_own_measure() -> None:
    heat = heat_of({"mean": "2", "sd": 1.0}, [1.0, 10.0])
    assert (heat.level(1.0), heat.level(5.6), heat.level(10.0)) == (0, 4, 8)
    assert heat_of({}, [3.0, 3.0]).level(3.0) == 0
    assert "of this text" in heat_of({}, []).why
