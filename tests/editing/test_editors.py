"""Editors on small models of every family: the edited model gives the value at the key, and is whole again afterwards."""

import pytest
import torch
from torch import Tensor

from perimetry.activations.model import BLOCKS, LanguageModel, tiny_language_model
from perimetry.assets.documents import Document
from perimetry.editing.edit import Edit, edited
from perimetry.editing.editors import EditorConfig, Method, edited_layers, make_edit
from perimetry.editing.moments import KeyMoments, key_moments
from perimetry.editing.passes import answer_logs, block_values, read_keys
from perimetry.editing.places import PROJECTIONS, projection
from perimetry.editing.requests import EditRequest, keyed_row, prefix_rows
from perimetry.editing.values import ValueConfig
from perimetry.errors import ConfigError

from .conftest import PREFIXES, SMALL

# The subject stands last: a random model hardly reads what stands before.
REQUEST = EditRequest(prompt="the friend of {}", subject="the old king", target="of")
OTHER = EditRequest(prompt="the friend of {}", subject="her sister", target="in")
FAR = ValueConfig(most=20.0)


def state(lm: LanguageModel) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in lm.model.state_dict().items()}


def chance(lm: LanguageModel, request: EditRequest = REQUEST) -> float:
    row = keyed_row(lm, request.prompt, request.subject, answer=request.target)
    return float(answer_logs(lm, [row])[0].exp())


def test_every_family_has_its_projection() -> None:
    assert set(PROJECTIONS) == set(BLOCKS)


@pytest.mark.parametrize("family", sorted(BLOCKS))
def test_the_edited_model_gives_the_value_at_the_key(family: str, texts: list[Document]) -> None:
    lm = tiny_language_model(family)
    layer = 1
    moments = key_moments(lm, [layer], texts, SMALL)
    before, plain = state(lm), chance(lm)
    edit = make_edit(lm, [REQUEST], moments, PREFIXES, EditorConfig(method="p-rome", layer=layer, value=FAR))
    after = state(lm)
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items()), "the model was changed"
    row = keyed_row(lm, REQUEST.prompt, REQUEST.subject)
    old = read_keys(lm, [layer], [row])[layer]
    with edited(lm, edit):
        new = read_keys(lm, [layer], [row])[layer]
        assert chance(lm) > 2 * plain
    assert torch.equal(old.keys, new.keys)
    torch.testing.assert_close(new.values - old.values, old.keys @ edit.updates[layer].T, atol=1e-4, rtol=1e-3)
    assert float((new.values - old.values).norm()) > 0.1
    assert chance(lm) == plain


@pytest.mark.parametrize("method", ["rome", "r-rome", "p-rome", "memit", "alphaedit"])
def test_every_editor_raises_the_new_answer(method: Method, tiny_lm: LanguageModel, moments: KeyMoments) -> None:
    config = EditorConfig(method=method, layer=1, spread=2, free=0.3, value=FAR)
    before = chance(tiny_lm)
    edit = make_edit(tiny_lm, [REQUEST], moments, PREFIXES, config)
    assert list(edit.updates) == edited_layers(tiny_lm, config) == ([1] if "rome" in method else [0, 1])
    assert all(u.dtype == torch.float64 and u.shape == (32, 64) for u in edit.updates.values())
    with edited(tiny_lm, edit):
        assert chance(tiny_lm) > 2 * before
    assert chance(tiny_lm) == before


def test_the_keys_of_rome_are_those_of_its_names(tiny_lm: LanguageModel, moments: KeyMoments) -> None:
    """p-ROME reaches its value on the plain prompt, r-ROME on the mean over prefixes, and the values are the same one."""
    value = ValueConfig(steps=6)
    found = {
        m: make_edit(tiny_lm, [REQUEST], moments, PREFIXES, EditorConfig(method=m, layer=1, value=value)).updates[1]
        for m in ("rome", "r-rome", "p-rome")
    }
    plain = read_keys(tiny_lm, [1], [keyed_row(tiny_lm, REQUEST.prompt, REQUEST.subject)])[1].keys[0]
    mean = read_keys(tiny_lm, [1], prefix_rows(tiny_lm, REQUEST, PREFIXES, answer=False))[1].keys.mean(0)
    weight = projection(tiny_lm, 1).weight
    torch.testing.assert_close((weight + found["p-rome"]) @ plain, (weight + found["r-rome"]) @ mean)
    torch.testing.assert_close((weight + found["rome"]) @ plain, (weight + found["p-rome"]) @ plain)
    assert float((found["rome"] - found["p-rome"]).norm()) > 1e-3


def test_memit_writes_several_facts_and_spreads_them(tiny_lm: LanguageModel, moments: KeyMoments) -> None:
    config = EditorConfig(method="memit", layer=1, spread=2, hold=0.01, value=FAR)
    both = [REQUEST, OTHER]
    before = [chance(tiny_lm, r) for r in both]
    edit = make_edit(tiny_lm, both, moments, PREFIXES, config)
    assert all(float(u.norm()) > 0 for u in edit.updates.values())
    assert [k.shape for k in edit.keys.values()] == [(64, 2), (64, 2)]
    with edited(tiny_lm, edit):
        assert all(chance(tiny_lm, r) > 2 * b for r, b in zip(both, before, strict=True))
    rows = [keyed_row(tiny_lm, r.prompt, r.subject) for r in both]
    old = block_values(tiny_lm, 1, rows)
    with edited(tiny_lm, Edit({0: edit.updates[0]}, {}, "")):
        half = block_values(tiny_lm, 1, rows)
    with edited(tiny_lm, edit):
        whole = block_values(tiny_lm, 1, rows)
    moved, all_of_it = (half - old).norm(dim=1), (whole - old).norm(dim=1)
    assert bool((moved > 0.05 * all_of_it).all())
    assert bool((moved < 0.95 * all_of_it).all())


def test_alphaedit_leaves_earlier_keys_alone(tiny_lm: LanguageModel, moments: KeyMoments) -> None:
    config = EditorConfig(method="alphaedit", layer=1, spread=1, free=0.3)
    first = make_edit(tiny_lm, [REQUEST], moments, PREFIXES, config)
    weighty = first._replace(keys={i: 1e3 * k for i, k in first.keys.items()})
    plain = make_edit(tiny_lm, [OTHER], moments, PREFIXES, config)
    guarded = make_edit(tiny_lm, [OTHER], moments, PREFIXES, config, earlier=weighty)
    key = first.keys[1]
    assert float((guarded.updates[1] @ key).norm()) < 0.01 * float((plain.updates[1] @ key).norm())


def test_what_is_refused(tiny_lm: LanguageModel, moments: KeyMoments) -> None:
    with pytest.raises(ConfigError, match="takes one fact and 2"):
        make_edit(tiny_lm, [REQUEST, OTHER], moments, PREFIXES, EditorConfig(layer=1))
    with pytest.raises(ConfigError, match=r"\[2\] lack"):
        make_edit(tiny_lm, [REQUEST], moments, PREFIXES, EditorConfig(layer=2))
    with pytest.raises(ConfigError, match="no prefixes"):
        make_edit(tiny_lm, [REQUEST], moments, [], EditorConfig(layer=1))
