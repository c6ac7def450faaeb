"""How draws of both sides are set beside one another; the run itself needs the package's environment."""

from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest
import torch

from perimetry.evals.sae.probe_sets import ProbeData, last_tokens, read_sets
from perimetry.evals.sae.probing import Probing
from perimetry.evals.sae.shelf import Shelf
from perimetry.runtime import Runtime

MODULE = "probing_agreement"


def test_a_difference_within_the_noise_agrees_and_one_beyond_it_does_not(module: ModuleType) -> None:
    noisy = [0.70, 0.72, 0.68, 0.71, 0.69]
    rows = module.differences(
        {("a", 1): noisy, ("b", 1): [x + 0.1 for x in noisy]}, {("a", 1): noisy[::-1], ("b", 1): noisy}
    )
    found = {row["set"]: row for row in rows}
    assert found["a"]["estimate"] == pytest.approx(0)
    assert found["a"]["agree"]
    assert found["b"]["estimate"] == pytest.approx(0.1)
    assert not found["b"]["agree"]
    assert found["b"]["low"] > 0.05
    assert found["b"]["reseed"] == pytest.approx(torch.tensor(noisy).double().std().item())
    assert found["all"]["estimate"] == pytest.approx(0.05)
    assert (found["all"]["ours"], found["all"]["theirs"]) == pytest.approx((0.75, 0.7))
    half, alone = (found[name]["high"] - found[name]["estimate"] for name in ("all", "a"))
    assert half < alone, "the mean of two sets moves less than one"


def test_our_side_is_the_evaluation(module: ModuleType) -> None:
    subject = import_module("_probes").subject_of(Path(), Runtime(torch.device("cpu"), torch.float32), tiny=True)
    data = ProbeData(sets=("toy_animals", "toy_moods"), leaks=True)
    acts = last_tokens({one.name: one.texts for one in read_sets(data)}, subject.place, Shelf(), data)
    probing = Probing(data=data, seeds=2, ks=(1, 4))
    areas = module.areas_of(subject, acts, probing)
    units = {u.cell.k: u for u in probing.measure(subject, Shelf()) if u.cell.arm == "sae"}
    for k in (1, 4):
        mean = sum(sum(areas[name, k]) / 2 for name in ("toy_animals", "toy_moods")) / 2
        assert mean == pytest.approx(units[k].estimate())


def test_activations_lie_where_the_package_looks(module: ModuleType, tmp_path: Path) -> None:
    module.write_activations({"one": torch.ones(3, 2, dtype=torch.bfloat16)}, tmp_path, "tiny")
    found = torch.load(tmp_path / "model_activations_tiny" / "one_resid_post.pt", weights_only=True)
    assert (found.dtype, found.shape) == (torch.float32, (3, 2))
