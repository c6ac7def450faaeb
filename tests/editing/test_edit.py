"""An edit is put on for a while: the very tensors come back, scale 0 does nothing, files are for one model."""

from pathlib import Path

import pytest
import torch

from perimetry.activations.model import LanguageModel, tiny_language_model
from perimetry.activations.tap import Tap
from perimetry.editing.edit import Edit, drawn_edit, edited, load_edit, relative_norm, save_edit, scaled
from perimetry.editing.places import projection
from perimetry.errors import ConfigError, CorruptArtifact, ModelMismatch, WidthMismatch
from perimetry.runtime import generator
from perimetry.storage import write_json


@pytest.fixture
def edit() -> Edit:
    draw = generator(0)
    updates = {i: torch.randn(32, 64, generator=draw, dtype=torch.float64) for i in (0, 2)}
    return Edit(updates, {0: torch.ones(64, 1, dtype=torch.float64)}, "two blocks")


def logits(lm: LanguageModel) -> torch.Tensor:
    ids = torch.arange(5, 17)[None]
    return Tap(lm, 2).read_with_logits(ids, torch.ones_like(ids)).logits()


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_the_very_tensors_come_back_after_an_error(family: str, edit: Edit) -> None:
    lm = tiny_language_model(family)
    if family == "gpt2":
        edit = Edit({i: torch.cat([u, u], 1) for i, u in edit.updates.items()}, {}, "wider")
    before = {name: (p, p.detach().clone()) for name, p in lm.model.named_parameters()}
    plain = logits(lm)

    def fail() -> None:
        with edited(lm, edit):
            assert not torch.equal(logits(lm), plain)
            raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        fail()
    for name, parameter in lm.model.named_parameters():
        assert parameter is before[name][0]
        assert torch.equal(parameter, before[name][1])
    assert torch.equal(logits(lm), plain)


def test_scale_zero_changes_nothing_and_scales_are_linear(tiny_lm: LanguageModel, edit: Edit) -> None:
    plain = logits(tiny_lm)
    with edited(tiny_lm, scaled(edit, 0.0)):
        assert torch.equal(logits(tiny_lm), plain)
    one, two = relative_norm(tiny_lm, edit), relative_norm(tiny_lm, scaled(edit, 2.0))
    assert two == pytest.approx(2 * one)
    own = sum(float(projection(tiny_lm, i).weight.square().sum()) for i in (0, 2)) ** 0.5
    assert one == pytest.approx((2 * 32 * 64) ** 0.5 / own, rel=0.05)


def test_edits_in_edits_come_off_in_order(tiny_lm: LanguageModel, edit: Edit) -> None:
    plain = logits(tiny_lm)
    with edited(tiny_lm, edit):
        inner = logits(tiny_lm)
        with edited(tiny_lm, edit):
            twice = logits(tiny_lm)
        assert torch.equal(logits(tiny_lm), inner)
    assert torch.equal(logits(tiny_lm), plain)
    with edited(tiny_lm, scaled(edit, 2.0)):
        torch.testing.assert_close(logits(tiny_lm), twice, atol=1e-3, rtol=1e-3)


def test_a_drawn_edit_has_the_norms_of_each_block(edit: Edit) -> None:
    found = drawn_edit(edit, 3)
    for i, update in edit.updates.items():
        assert float(found.updates[i].norm()) == pytest.approx(float(update.norm()))
        assert int(torch.linalg.matrix_rank(found.updates[i])) == 1
    assert not torch.equal(found.updates[0], drawn_edit(edit, 4).updates[0])
    assert not torch.equal(found.updates[0], found.updates[2])


def test_saved_and_loaded_for_its_model_only(tiny_lm: LanguageModel, edit: Edit, tmp_path: Path) -> None:
    save_edit(tmp_path / "e", tiny_lm, edit)
    found = load_edit(tmp_path / "e", tiny_lm)
    assert found.said == "two blocks"
    assert all(torch.equal(found.updates[i], u) for i, u in edit.updates.items())
    assert torch.equal(found.keys[0], edit.keys[0])
    with pytest.raises(ModelMismatch, match="make the edit again"):
        load_edit(tmp_path / "e", tiny_language_model("llama", seed=1))
    write_json(tmp_path / "e" / "edit.json", {})
    with pytest.raises(CorruptArtifact):
        load_edit(tmp_path / "e", tiny_lm)


def test_what_does_not_fit_is_refused(tiny_lm: LanguageModel, edit: Edit) -> None:
    turned = edit._replace(updates={0: edit.updates[0].T})
    with pytest.raises(WidthMismatch, match=r"\(64, 32\) \[value, key\]"), edited(tiny_lm, turned):
        pass
    with pytest.raises(ConfigError, match="block 3"), edited(tiny_lm, edit._replace(updates={3: edit.updates[0]})):
        pass
