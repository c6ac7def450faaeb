"""A meter over several layers believes only a folder that is whole, and marries only the model it was made with."""

import shutil
from pathlib import Path

import pytest
import torch
from tests.shift.multi_worlds import MultiWorld
from tests.shift.test_loading import reseal, rewrite
from tests.worlds import World, run_main

from perimetry.activations.model import load_language_model, tiny_language_model
from perimetry.errors import (
    CorruptArtifact,
    DtypeMismatch,
    Incompatible,
    MissingFile,
    ModelMismatch,
    PerimetryError,
    PolicyMismatch,
)
from perimetry.runtime import Runtime
from perimetry.shift.loading import load_meter
from perimetry.shift.meter import Meter
from perimetry.shift.multi import MultiMeter
from perimetry.shift.multi_loading import is_multi, load_multi_meter, load_reader

FILES = (
    "manifest.json",
    "multi.json",
    "joint.safetensors",
    "taps/layer-00/sae.safetensors",
    "taps/layer-01/meter.json",
)


@pytest.fixture
def copy(multi: MultiWorld, tmp_path: Path) -> Path:
    return Path(shutil.copytree(multi.folder, tmp_path / "multi"))


def test_the_folder_says_what_lies_there(multi: MultiWorld, world: World, tmp_path: Path) -> None:
    assert is_multi(multi.folder)
    assert not is_multi(world.meter)
    assert not is_multi(tmp_path)
    (tmp_path / "manifest.json").write_text("{")
    assert not is_multi(tmp_path)
    assert isinstance(load_reader(multi.folder, lm=multi.meter.lm), MultiMeter)
    assert isinstance(load_reader(world.meter, lm=multi.meter.lm), Meter)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("place", [0.0, 0.5, 0.999])
def test_one_changed_byte_is_noticed(copy: Path, multi: MultiWorld, name: str, place: float) -> None:
    file = copy / name
    data = bytearray(file.read_bytes())
    data[int(place * len(data))] ^= 0x01
    file.write_bytes(data)
    with pytest.raises((CorruptArtifact, Incompatible)):
        load_reader(copy, lm=multi.meter.lm)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_noticed(copy: Path, multi: MultiWorld, name: str) -> None:
    (copy / name).unlink()
    with pytest.raises((CorruptArtifact, Incompatible)):
        load_reader(copy, lm=multi.meter.lm)


def test_a_tap_that_is_gone(copy: Path, multi: MultiWorld) -> None:
    shutil.rmtree(copy / "taps" / "layer-00")
    with pytest.raises(CorruptArtifact, match=r"lacks the tap 'layer-00', which its multi.json lists"):
        load_reader(copy, lm=multi.meter.lm)


def test_a_tap_that_is_whole_but_another_one(copy: Path, multi: MultiWorld) -> None:
    rewrite(copy / "taps" / "layer-00", "meter.json", lambda v: v["details"].update(text="other.jsonl"))
    with pytest.raises(CorruptArtifact, match="the tap was changed or exchanged; calibrate again"):
        load_reader(copy, lm=multi.meter.lm)


def test_a_joint_calibration_that_is_not_that_of_the_taps(copy: Path, multi: MultiWorld) -> None:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        tensors["scores"][0, 0] += 1

    rewrite(copy, "joint.safetensors", change)
    with pytest.raises(CorruptArtifact, match="other scores of the tap 'layer-00'"):
        load_reader(copy, lm=multi.meter.lm)


@pytest.mark.parametrize(
    "change",
    [
        lambda v: v.pop("taps"),
        lambda v: v.update(taps="layer-00"),
        lambda v: v["taps"][0].pop("digest"),
        lambda v: v["taps"][0].update(name="../../elsewhere"),
        lambda v: v["taps"][0].update(name=".."),
        lambda v: v["taps"].pop(),
        lambda v: v["taps"].clear(),
    ],
)
def test_a_meter_that_contradicts_itself_is_refused(copy: Path, multi: MultiWorld, change: object) -> None:
    assert callable(change)
    rewrite(copy, "multi.json", change)
    with pytest.raises(PerimetryError):
        load_reader(copy, lm=multi.meter.lm)


def test_resealing_alone_changes_nothing(copy: Path, multi: MultiWorld) -> None:
    """So that the refusals above are of the content."""
    reseal(copy)
    assert load_multi_meter(copy, lm=multi.meter.lm).digest == multi.meter.digest


def test_another_model_dtype_or_policy_is_refused(multi: MultiWorld, world: World) -> None:
    with pytest.raises(ModelMismatch, match="give that model, or calibrate a meter for this one"):
        load_reader(multi.folder, lm=tiny_language_model("llama", seed=1))
    with pytest.raises(DtypeMismatch, match="--dtype bfloat16 was asked for"):
        load_reader(multi.folder, dtype="bfloat16")
    half = load_language_model(str(world.model), Runtime(torch.device("cpu"), torch.bfloat16))
    with pytest.raises(DtypeMismatch, match="the model computes in bfloat16"):
        load_reader(multi.folder, lm=half)
    policy = multi.meter.policy
    assert load_reader(multi.folder, lm=multi.meter.lm, policy=policy).policy == policy
    with pytest.raises(PolicyMismatch, match="prepend_bos is False, wanted True"):
        load_reader(multi.folder, lm=multi.meter.lm, policy=policy.model_copy(update={"prepend_bos": False}))


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(MissingFile, match="no meter at"):
        load_reader(tmp_path / "nothing")
    with pytest.raises(MissingFile, match="no multi-meter at"):
        load_multi_meter(tmp_path / "nothing")


def test_where_one_layer_is_wanted_several_are_refused(multi: MultiWorld) -> None:
    with pytest.raises(
        Incompatible, match=r"is a meter over several layers, a meter of one was wanted; give .*layer-00"
    ):
        load_meter(multi.folder)
    kind, message = run_main("bench", "controls", multi.folder, "--json").error()
    assert kind == "Incompatible"
    assert "give the folder of one of its taps" in message
