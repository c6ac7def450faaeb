"""What holds a decoder near its points, how it starts, and where the points come from."""

import copy
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from perimetry.errors import (
    ConfigError,
    CorruptArtifact,
    HashMismatch,
    MissingFile,
    NonFinite,
    TooFewSamples,
    WidthMismatch,
)
from perimetry.runtime import generator
from perimetry.sae.archetypal import ArchetypalOptions, ArchetypalSAE, start_mixture
from perimetry.sae.base import Start
from perimetry.sae.points import choose_points, read_points, seeded_points, write_points
from perimetry.sae.steps.auto import autograd_step, dense_step
from perimetry.sae.steps.base import Objective


def fresh(seed: int = 0, d_sae: int = 16, k: int = 3, **options: object) -> ArchetypalSAE:
    made = ArchetypalOptions.model_validate(options)
    return ArchetypalSAE.fresh(Start(torch.linspace(-1, 1, 6), d_sae, k, seed, options=made))


def test_decoder_worked_by_hand() -> None:
    sae = fresh(d_sae=2, k=1)
    sae.points.copy_(torch.eye(6)[:2])
    with torch.no_grad():
        sae.mixture.copy_(torch.tensor([[0.75, 0.25], [0.0, 1.0]]))
        sae.relaxation[1, 3] = 0.5
        sae.log_scale.fill_(torch.tensor(2.0).log())
    assert sae.W_dec.detach()[0].tolist() == pytest.approx([1.5, 0.5, 0, 0, 0, 0])
    assert sae.W_dec.detach()[1].tolist() == pytest.approx([0, 2, 0, 1, 0, 0])


def test_after_an_update_rows_are_mixtures_and_stay_near() -> None:
    sae = fresh(delta=0.5)
    source = generator(2)
    with torch.no_grad():
        sae.mixture.copy_(torch.randn(16, 16, generator=source))
        sae.mixture[3] = -1.0
        sae.mixture[3, 7] = -0.5
        sae.relaxation.copy_(torch.randn(16, 6, generator=source))
        sae.relaxation[0] = 0.01
    sae.after_update()
    mixture, relaxation = sae.mixture.detach(), sae.relaxation.detach()
    assert bool((mixture >= 0).all())
    torch.testing.assert_close(mixture.sum(1), torch.ones(16))
    assert mixture[3].tolist() == [float(i == 7) for i in range(16)]
    assert float(relaxation.norm(dim=1).max()) == pytest.approx(0.5)
    assert relaxation[0].tolist() == pytest.approx([0.01] * 6)
    before = copy.deepcopy(sae.state().tensors)
    sae.after_update()
    for name, tensor in sae.state().tensors.items():
        torch.testing.assert_close(tensor, before[name])


def test_a_common_start_is_told_apart_from_stability() -> None:
    one, other = fresh(0, points_seed=9), fresh(1, points_seed=9)
    assert torch.equal(one.W_dec, other.W_dec)
    assert not torch.equal(fresh(0).start_decoder(), fresh(1).start_decoder())
    random = [fresh(seed, points_seed=9, mixture="random") for seed in (0, 1)]
    assert torch.equal(random[0].points, random[1].points)
    assert not torch.equal(random[0].start_decoder(), random[1].start_decoder())
    assert one.settle(torch.zeros(4, 6), 3)["distance_from_start"] == pytest.approx(0, abs=1e-6)
    with torch.no_grad():
        one.mixture.copy_(one.mixture.roll(1, 1))
    rows = one.start_decoder()
    expected = 1 - float((rows * rows.roll(-1, 0)).sum(1).mean())
    assert one.distance_from_start() == pytest.approx(expected, abs=1e-5)
    one.fold_scale(0.1)
    assert one.distance_from_start() == pytest.approx(expected, abs=1e-5)
    assert torch.equal(type(one).restore(one.state()).start_decoder(), rows)


def test_a_random_start_lies_between_two_points() -> None:
    mixture = start_mixture("random", 30, 7, seed=3)
    torch.testing.assert_close(mixture.sum(1), torch.ones(30))
    assert int((mixture > 0).sum(1).max()) <= 2
    with pytest.raises(ConfigError, match=r"3 points for 4 latents: with the mixture 'identity'.*mixture = 'random'"):
        start_mixture("identity", 4, 3, seed=0)


@pytest.mark.parametrize("gate", ["relu", "topk"])
@pytest.mark.parametrize("subtract", [True, False])
@pytest.mark.parametrize("n_dead", [0, 5])
def test_gradients_of_both_gates(gate: str, subtract: bool, n_dead: int) -> None:
    options = ArchetypalOptions.model_validate({"gate": gate, "points": 24})
    sae = ArchetypalSAE.fresh(Start(torch.linspace(-1, 1, 6), 16, 3, 0, subtract, options))
    with torch.no_grad():
        sae.relaxation.copy_(0.1 * torch.randn(16, 6, generator=generator(4)))
    acts, dead = torch.randn(70, 6, generator=generator(5)), torch.arange(16) < n_dead
    objective = Objective(sparsity=0.2, aux=0.5)
    found = autograd_step(sae, acts, objective, dead)
    wanted = dense_step(copy.deepcopy(sae).double(), acts.double(), objective, dead)
    assert (found.sparsity > 0) == (gate == "relu") == (sae.count_mode == "free")
    assert (found.aux > 0) == (n_dead > 0)
    for name, reference in wanted.gradients.items():
        error = float((found.gradients[name].double() - reference).abs().max())
        assert error <= 1e-5 * float(reference.abs().max()) + 1e-12, name
    assert found.loss == pytest.approx(wanted.loss, rel=1e-5)


def test_points_chosen_from_data_and_kept_in_a_file(tmp_path: Path) -> None:
    acts = torch.randn(50, 6, generator=generator(6)) + 3
    acts[4] = acts[[i for i in range(50) if i != 4]].mean(0)
    points = choose_points(acts, 20, seed=1)
    torch.testing.assert_close(points.norm(dim=1), torch.ones(20))
    centred = acts - acts.mean(0)
    unit = centred / centred.norm(dim=1, keepdim=True)
    nearest = (points @ unit.T).max(dim=1)
    torch.testing.assert_close(nearest.values, torch.ones(20))
    assert len(set(nearest.indices.tolist())) == 20
    digest = write_points(points, tmp_path / "points.safetensors")
    sae = fresh(points_file=str(tmp_path / "points.safetensors"), points_sha256=digest)
    torch.testing.assert_close(sae.W_dec.detach(), points[:16])
    with pytest.raises(TooFewSamples, match="50 activations that differ from their mean for 51 points"):
        choose_points(acts, 51, seed=1)


def test_files_that_hold_no_points_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "points.safetensors"
    with pytest.raises(MissingFile, match=r"no file of points at .*; make one with write_points"):
        read_points(path, 6)
    write_points(seeded_points(4, 6, 0), path)
    with pytest.raises(HashMismatch, match="has another SHA-256 than abc"):
        read_points(path, 6, "abc")
    with pytest.raises(WidthMismatch, match="have width 6 but 7 is wanted"):
        read_points(path, 7)
    write_points(torch.zeros(2, 6), path)
    with pytest.raises(NonFinite, match="holds points of norm 0, or not finite"):
        read_points(path, 6)
    save_file({"rows": torch.zeros(2, 6)}, path)
    with pytest.raises(CorruptArtifact, match="holds no matrix 'points'"):
        read_points(path, 6)
    path.write_bytes(b"nothing")
    with pytest.raises(CorruptArtifact, match="is not safetensors"):
        read_points(path, 6)


def test_k_beyond_the_width_is_refused() -> None:
    with pytest.raises(ConfigError, match="k = 3 for a dictionary of 2 latents; give a k between 1 and 2"):
        ArchetypalSAE.fresh(Start(torch.zeros(6), 2, 3, 0, options=ArchetypalOptions()))
