"""Turns and ratios."""

from types import ModuleType

MODULE = "_common"


def test_ratios_are_taken_within_a_turn(module: ModuleType) -> None:
    calls: list[str] = []
    seconds = module.take_turns({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 3)
    assert calls == ["a", "b"] * 4
    assert {name: len(taken) for name, taken in seconds.items()} == {"a": 3, "b": 3}
    slow_start = {"a": [10.0, 2.0, 4.0], "b": [5.0, 1.0, 2.0]}
    assert module.ratio(slow_start, "a", "b") == (2.0, 2.0, 2.0, 3)
    assert module.spread([1.0, 2.0, 3.0, 4.0, 5.0]) == (3.0, 2.0, 4.0, 5)
    assert module.spread([7.0]) == (7.0, 7.0, 7.0, 1)
