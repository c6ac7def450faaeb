import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.sae.formats.families.doctor import change_json, change_tensors, copy
from tests.sae.formats.families.evaluate import GOLDEN, evaluate, vectors, worst

from perimetry.errors import CorruptArtifact, Incompatible, UnknownName
from perimetry.sae.formats.families import gemma_scope, gemma_scope_2

pytestmark = pytest.mark.usefixtures("here")
Weights = dict[str, NDArray[np.float32]]
RES = "gemma-scope-2b-pt-res/layer_12/width_16k/average_l0_82"
POST = "gemma-scope-2-1b-pt/resid_post/layer_12_width_16k_l0_small"


def weights() -> Weights:
    with np.load(GOLDEN / "gemma_scope" / "res" / RES / "params.npz") as file:
        return dict(file)


def put(folder: Path, arrays: Weights) -> Path:
    folder.mkdir(parents=True)
    np.savez(folder / "params.npz", **arrays)  # pyright: ignore[reportArgumentType]
    return folder


def test_policy_and_count_are_declared() -> None:
    record = gemma_scope.read(GOLDEN / "gemma_scope" / "res" / RES, {})
    assert record.policy == {"prepend_bos": True, "exclude_special": True}
    assert record.how["policy"] == "family"
    assert record.declared.l0 == 82
    assert not record.subtract_b_dec


def test_a_path_that_says_nothing_is_not_guessed(tmp_path: Path) -> None:
    folder = put(tmp_path / "mine", weights())
    assert gemma_scope.recognises(folder)
    assert gemma_scope.recognises(folder / "params.npz")
    with pytest.raises(CorruptArtifact, match=r"site is not given.*--set site="):
        gemma_scope.read(folder, {})
    with pytest.raises(CorruptArtifact, match="layer is not given"):
        gemma_scope.read(folder, {"site": "res"})
    with pytest.raises(UnknownName, match="unknown site of Gemma Scope 'resid'"):
        gemma_scope.read(folder, {"site": "resid"})
    record = gemma_scope.read(folder, {"site": "mlp", "layer": 4})
    assert record.hook.name == "blocks.4.hook_mlp_out"
    assert record.how["hook"] == "path"
    assert record.how["layer"] == "user"
    assert record.model is None


def test_names_and_arrays(tmp_path: Path) -> None:
    arrays = weights()
    twice = put(tmp_path / "twice" / RES, arrays | {"w_enc": arrays["W_enc"]})
    with pytest.raises(CorruptArtifact, match="the same name twice"):
        gemma_scope.read(twice, {})
    ones = put(tmp_path / "ones" / RES, arrays | {"scaling_factor": np.ones(48, np.float32)})
    assert "a scaling_factor of ones was dropped" in gemma_scope.read(ones, {}).notes
    other = put(tmp_path / "other" / RES, arrays | {"scaling_factor": np.full(48, 2, np.float32)})
    with pytest.raises(Incompatible, match="scaling_factor that is not 1 everywhere"):
        gemma_scope.read(other, {})
    less = put(tmp_path / "less" / RES, {k: v for k, v in arrays.items() if k != "threshold"})
    with pytest.raises(CorruptArtifact, match=r"missing \['threshold'\]"):
        gemma_scope.read(less, {})
    turned = put(tmp_path / "turned" / RES, arrays | {"W_enc": arrays["W_enc"].T.copy()})
    with pytest.raises(CorruptArtifact, match=r"a threshold of shape \(48,\) for 16 latents"):
        gemma_scope.read(turned, {})


def test_the_embedding_is_folded_whole(tmp_path: Path) -> None:
    arrays = weights()
    folder = put(tmp_path / "gemma-scope-2b-pt-res" / "embedding" / "width_4k" / "average_l0_6", arrays)
    record = gemma_scope.read(folder, {})
    x = vectors("gemma_scope/res").x
    wide = {k: v.astype(np.float64) for k, v in arrays.items()}
    codes = x / 4 @ wide["W_enc"] + wide["b_enc"]
    codes = np.where(codes > wide["threshold"], codes, 0)
    found = evaluate(record, x)
    assert worst(found.codes, codes) <= 1e-5
    assert worst(found.reconstruction, 4 * (codes @ wide["W_dec"] + wide["b_dec"])) <= 1e-5
    assert any("SAELens leaves it" in note for note in record.notes)
    theirs = gemma_scope.read(folder, {"scale_b_dec": False})
    assert worst(evaluate(theirs, x).reconstruction, 4 * codes @ wide["W_dec"] + wide["b_dec"]) <= 1e-5


@pytest.fixture
def second(tmp_path: Path) -> Path:
    return copy("gemma_scope_2/resid_post", tmp_path) / POST


def test_path_and_configuration_must_speak_of_one_block(second: Path) -> None:
    change_json(second / "config.json", lambda c: c.update(hf_hook_point_in="model.layers.11.output"))
    with pytest.raises(
        CorruptArtifact, match=r"layer 12, hook 'blocks.12.*'model.layers.11' speak of different blocks"
    ):
        gemma_scope_2.read(second, {})


def test_configuration_and_weights_must_agree_on_the_skip(tmp_path: Path) -> None:
    folder = copy("gemma_scope_2/transcoder_affine", tmp_path) / "gemma-scope-2-1b-pt" / "transcoder"
    folder = folder / "layer_8_width_16k_l0_small_affine"
    change_tensors(folder / "params.safetensors", lambda t: t.pop("affine_skip_connection"))
    with pytest.raises(CorruptArtifact, match=r"has no affine_skip_connection, path or config.json say True"):
        gemma_scope_2.read(folder, {})


def test_other_kinds_of_the_second_release(second: Path, tmp_path: Path) -> None:
    change_json(second / "config.json", lambda c: c.update(architecture="topk"))
    with pytest.raises(Incompatible, match="architecture 'topk', 'jump_relu' is read"):
        gemma_scope_2.read(second, {})
    crosscoder = tmp_path / "gemma-scope-2-1b-pt" / "crosscoder" / "layer_1_2"
    crosscoder.mkdir(parents=True)
    shutil.copy(second / "params.safetensors", crosscoder)
    with pytest.raises(Incompatible, match="layout of the crosscoders is not confirmed"):
        gemma_scope_2.read(crosscoder, {})


def test_a_cross_layer_transcoder_only_encodes(second: Path, tmp_path: Path) -> None:
    folder = tmp_path / "gemma-scope-2-270m-pt" / "clt" / "width_262k_l0_big"
    folder.mkdir(parents=True)
    file = shutil.copy(second / "params.safetensors", folder / "params_layer_10.safetensors")
    change_tensors(Path(file), lambda t: t.update(w_dec=t["w_dec"][:, None].repeat(1, 3, 1)))
    assert gemma_scope_2.recognises(Path(file))
    record = gemma_scope_2.read(Path(file), {})
    assert (record.hook.layer, record.model, record.reconstructs) == (10, "google/gemma-3-270m", False)
    assert record.hook.hf_name == "model.layers.10.pre_feedforward_layernorm"
    wanted = vectors("gemma_scope_2/resid_post")
    assert worst(evaluate(record, wanted.x).codes, wanted.codes) <= 1e-5
