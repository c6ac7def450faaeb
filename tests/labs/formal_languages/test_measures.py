"""What is left of a model's behaviour, where nothing, all and little is taken away; brackets for the meter."""

import random

import torch

from perimetry.labs.formal_languages.attachment import DOSES, _crossed, _exchanged, _means, _middling, _nested
from perimetry.labs.formal_languages.dictionaries import SAESizes, dictionary
from perimetry.labs.formal_languages.grammars import FIRST, LANGUAGES, Dyck
from perimetry.labs.formal_languages.measures import bench_of, of_dictionary, of_splice
from perimetry.labs.formal_languages.models import LanguageArm, train_language


def test_nothing_changed_loses_nothing_and_all_taken_loses_much() -> None:
    arm = LanguageArm(language="dyck", steps=150, longest=16, strings=400, width=24)
    bench = bench_of(arm, train_language(arm, 0, arm.steps), 80, 40, 0)
    same = {m.metric: m.value for m in of_splice(bench, lambda states: states, "same")}
    assert same["nats lost"] == 0
    assert same["unexplained"] == 0
    assert same["validity less that of the model"] == 0
    assert same["lengths against the model's"] == 0
    nothing = {m.metric: m.value for m in of_splice(bench, torch.zeros_like, "zero")}
    assert nothing["nats lost"] > 0.05
    assert nothing["unexplained"] > 0.9
    model = of_splice(bench, None, "model")
    assert {m.metric for m in model} == {
        "validity",
        "deep validity",
        "tokens written",
        "validity less that of the model",
        "lengths against the model's",
    }
    assert all((m.low or 0) <= m.value <= (m.high or m.value) for m in model)
    made = dictionary(bench.states, SAESizes(20, 30, 64), 0, k=3).sae
    counts, dead = of_dictionary(bench, made, "k3")
    assert 1 <= counts.value <= 3
    assert 0 <= dead.value < 1


def test_exchanged_tokens_are_as_many_as_were_asked_for() -> None:
    source = random.Random(1)
    dyck = Dyck()
    strings = _middling(dyck, 60, source)
    assert all(10 <= len(one) <= 24 for one in strings)
    for dose in DOSES:
        for before, after in zip(strings, _exchanged(strings, dose, source), strict=True):
            assert sum(a != b for a, b in zip(before, after, strict=True)) == dose
            assert all(FIRST <= token < FIRST + 4 for token in after)
    # One token exchanged is never legal.
    assert not any(dyck.valid(one) for one in _exchanged(strings, 1, source))


def test_nested_is_legal_and_deep_and_crossed_is_another_grammar() -> None:
    source = random.Random(2)
    dyck = LANGUAGES["dyck"]
    nested = _nested(40, source)
    assert all(dyck.valid(one) and max(row[0] for row in dyck.truth(one)) >= 8 for one in nested)
    strings = _middling(dyck, 60, source)
    crossed = _crossed(strings, source)
    assert sum(dyck.valid(one) for one in crossed) < 40
    for before, after in zip(strings, crossed, strict=True):
        assert sorted(before) == sorted(after)
        for kind in range(2):
            mine = [1 if token < FIRST + 2 else -1 for token in after if (token - FIRST) % 2 == kind]
            assert all(sum(mine[:end]) >= 0 for end in range(len(mine)))
            assert sum(mine) == 0


def test_means_are_over_the_tokens_of_a_string() -> None:
    where = torch.tensor([[True, True, False], [False, False, True]])
    assert _means(torch.tensor([1.0, 3.0, 7.0]), where).tolist() == [2.0, 7.0]
