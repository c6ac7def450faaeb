"""A meter marries only the model it was made with, and believes only a folder that is whole."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.worlds import World, save_model

from perimetry.activations.model import load_language_model, tiny_language_model
from perimetry.artifact import MANIFEST
from perimetry.errors import (
    AssetError,
    CorruptArtifact,
    DtypeMismatch,
    Incompatible,
    MissingFile,
    ModelMismatch,
    NonFinite,
    PerimetryError,
    PolicyMismatch,
    WidthMismatch,
)
from perimetry.runtime import Runtime
from perimetry.shift.loading import load_meter
from perimetry.shift.meter import Meter
from perimetry.storage import hash_file, hash_json

CPU = torch.device("cpu")
FILES = (
    "calibration.safetensors",
    "contexts.json",
    "detectors.safetensors",
    "manifest.json",
    "meter.json",
    "normal.safetensors",
    "sae.safetensors",
    "summaries.safetensors",
)


@pytest.fixture
def copy(world: World, tmp_path: Path) -> Path:
    return Path(shutil.copytree(world.meter, tmp_path / "meter"))


def reseal(folder: Path) -> None:
    """Make the manifest fit the files again, so that only the content can be refused."""
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["files"] = {name: hash_file(folder / name) for name in manifest["files"]}
    manifest["digest"] = hash_json(manifest["files"])
    (folder / MANIFEST).write_text(json.dumps(manifest))


def rewrite(folder: Path, name: str, change: Callable[[Any], Any]) -> None:
    """Change one file and the manifest with it."""
    file = folder / name
    if file.suffix == ".json":
        value = json.loads(file.read_text())
        change(value)
        file.write_text(json.dumps(value))
    else:
        tensors = load_file(file)
        change(tensors)
        save_file(tensors, file)
    reseal(folder)


def test_the_files_are_these(world: World) -> None:
    assert sorted(p.name for p in world.meter.iterdir()) == sorted(FILES)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("place", [0.0, 0.5, 0.999])
def test_one_changed_byte_is_noticed(copy: Path, name: str, place: float) -> None:
    file = copy / name
    data = bytearray(file.read_bytes())
    data[int(place * len(data))] ^= 0x01
    file.write_bytes(data)
    with pytest.raises((CorruptArtifact, Incompatible)):
        load_meter(copy)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_or_cut_file_is_noticed(copy: Path, name: str) -> None:
    data = (copy / name).read_bytes()
    (copy / name).write_bytes(data[: len(data) // 2])
    with pytest.raises(CorruptArtifact):
        load_meter(copy)
    (copy / name).unlink()
    with pytest.raises(CorruptArtifact):
        load_meter(copy)


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(MissingFile, match=r"no meter at .*nothing; give the folder that holds manifest.json"):
        load_meter(tmp_path / "nothing")


def test_an_sae_is_no_meter(world: World) -> None:
    with pytest.raises(Incompatible, match="is a 'sae', a 'meter' was wanted"):
        load_meter(world.sae / "sae")


def test_a_number_that_is_none(copy: Path) -> None:
    def poison(tensors: dict[str, torch.Tensor]) -> None:
        tensors["W_enc"][0, 0] = torch.nan

    rewrite(copy, "sae.safetensors", poison)
    with pytest.raises(NonFinite, match="holds NaN or infinity in 'W_enc'"):
        load_meter(copy)


def cut_width(tensors: dict[str, torch.Tensor]) -> None:
    for name in ("W_enc", "W_dec"):
        tensors[name] = tensors[name][:, :16].contiguous()
    tensors["b_dec"] = tensors["b_dec"][:16].contiguous()


def test_an_sae_of_another_width(copy: Path) -> None:
    rewrite(copy, "sae.safetensors", cut_width)
    with pytest.raises(WidthMismatch, match=r"the SAE reads width 16 but layers.1 of this model gives 32"):
        load_meter(copy)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("meter.json", lambda v: v.pop("revision")),
        ("meter.json", lambda v: v.pop("layer")),
        ("meter.json", lambda v: v.update(dtype="float64")),
        ("meter.json", lambda v: v.update(layer="middle")),
        ("meter.json", lambda v: v.update(layer=99)),
        ("meter.json", lambda v: v.update(main="loud")),
        ("meter.json", lambda v: v.update(policy={"prepend_boss": True})),
        ("meter.json", lambda v: v.update(policy=[])),
        ("meter.json", lambda v: v["policy"].update(max_norm=None)),
        ("meter.json", lambda v: v["info"].update(architecture="spade")),
        ("meter.json", lambda v: v["settings"].clear()),
        ("meter.json", lambda v: v["detectors"].append("loud")),
        ("meter.json", lambda v: v["detectors"].remove("surprise")),
        ("meter.json", lambda v: v["detectors"].append("surprise ")),
        ("sae.safetensors", lambda v: v.pop("b_enc")),
        ("detectors.safetensors", lambda v: v.pop("knn|bank", None) or v.pop(next(k for k in v if k[:3] == "knn"))),
        ("calibration.safetensors", lambda v: v.pop("edges")),
        (
            "calibration.safetensors",
            lambda v: v["scores|surprise|pooled"].copy_(torch.rand(60).flip(0).sort(0, True)[0]),
        ),
        ("normal.safetensors", lambda v: v.pop("clean_rate")),
        ("normal.safetensors", lambda v: v.pop("reference|surprise")),
    ],
)
def test_a_meter_that_contradicts_itself_is_refused(copy: Path, name: str, change: Callable[[Any], Any]) -> None:
    rewrite(copy, name, change)
    with pytest.raises(PerimetryError):
        load_meter(copy).score(["the cat sat"], detectors="all")


def test_another_model_is_refused(world: World, tmp_path: Path) -> None:
    other = tiny_language_model("llama", seed=1)
    with pytest.raises(ModelMismatch, match=r"has revision \w{12}, but the meter was made with .* of revision \w{12}"):
        load_meter(world.meter, lm=other)
    folder = save_model(other, tmp_path / "other")
    with pytest.raises(ModelMismatch, match="give that model, or calibrate a meter for this one"):
        load_meter(world.meter, model=str(folder))


def test_one_changed_weight_makes_another_model(world: World, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(world.model, tmp_path / "model"))
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"][0] += 1e-3
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelMismatch):
        load_meter(world.meter, model=str(folder))


def test_a_model_that_moved_is_found_by_its_new_place(world: World, meter: Meter, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(world.model, tmp_path / "moved"))
    moved = load_meter(world.meter, model=str(folder))
    assert moved.score(["the cat sat"])[0].score == meter.score(["the cat sat"])[0].score


def test_a_model_that_is_gone_says_where_it_was(world: World, copy: Path) -> None:
    rewrite(copy, "meter.json", lambda v: v.update(model="/nowhere/model"))
    with pytest.raises((MissingFile, AssetError), match="no folder /nowhere/model"):
        load_meter(copy)


def test_weights_that_are_no_numbers_are_refused(world: World, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(world.model, tmp_path / "model"))
    weights = load_file(folder / "model.safetensors")
    # In the queries: attention kernels hide it, so that the activations look healthy.
    weights["model.layers.1.self_attn.q_proj.weight"][0, 0] = torch.nan
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(NonFinite, match=r"holds NaN or infinity in 'model.layers.1.self_attn.q_proj.weight'"):
        load_meter(world.meter, model=str(folder))


def test_another_dtype_is_refused(world: World) -> None:
    with pytest.raises(DtypeMismatch, match="--dtype bfloat16 was asked for, but the meter was made with float32"):
        load_meter(world.meter, dtype="bfloat16")
    half = load_language_model(str(world.model), Runtime(CPU, torch.bfloat16))
    with pytest.raises(DtypeMismatch, match="the model computes in bfloat16, but the meter was made with float32"):
        load_meter(world.meter, lm=half)
    assert load_meter(world.meter, dtype="float32", runtime=Runtime(CPU, torch.bfloat16)).lm.dtype == torch.float32


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prepend_bos": False}, "prepend_bos is False, wanted True"),
        ({"exclude_special": False}, "exclude_special is False, wanted True"),
        ({"template": "chat"}, "template is 'chat', wanted 'none'"),
        ({"max_norm": 1.0}, r"max_norm is 1.0, wanted \d"),
    ],
)
def test_another_token_policy_is_refused(world: World, meter: Meter, change: dict[str, Any], message: str) -> None:
    assert load_meter(world.meter, policy=meter.policy).policy == meter.policy
    with pytest.raises(PolicyMismatch, match=message):
        load_meter(world.meter, policy=meter.policy.model_copy(update=change))
