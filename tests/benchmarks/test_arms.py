"""What is compared with what."""

import json
from pathlib import Path
from types import ModuleType

MODULE = "_arms"


def test_the_headline_size_is_the_one_that_is_named(module: ModuleType) -> None:
    assert module.HEADLINE == (4096, 576, 16_384, 32)
    assert module.SIZES[0] == module.HEADLINE
    assert {s.d_model for s in module.SIZES} == {576, 768, 2304}
    assert {min(s.width for s in module.SIZES), max(s.width for s in module.SIZES)} == {4096, 65_536}
    assert {min(s.k for s in module.SIZES), max(s.k for s in module.SIZES)} == {16, 128}
    assert {min(s.batch for s in module.SIZES), max(s.batch for s in module.SIZES)} == {1024, 16_384}


def test_every_arm_has_a_library_and_every_peer_an_environment(module: ModuleType) -> None:
    from peers.environments import ENVIRONMENTS  # pyright: ignore[reportMissingImports]

    for arm in module.ARMS.values():
        assert (module_path(module) / f"arm_{arm.library}.py").is_file()
        assert arm.environment == (arm.library if arm.library in ENVIRONMENTS else "")
    assert set(module.PACKAGES) == {arm.environment for arm in module.ARMS.values()} - {""}
    assert set(module.MAIN) <= set(module.ARMS)


def module_path(module: ModuleType) -> Path:

    return Path(str(module.__file__)).parent / "peers"


def test_what_fits_together_is_together(module: ModuleType) -> None:
    names = [name for name in module.ARMS if name != "perimetry_dense"]
    together, skipped = module.groups(names, module.HEADLINE, 2**50)
    assert skipped == {}
    assert len(together) == 1
    assert set(together[0]) == set(names)


def test_what_does_not_fit_is_split_or_left_out_with_a_reason(module: ModuleType) -> None:
    size = module.Size(1024, 2304, 65_536, 128)
    room = 24 * 2**30
    together, skipped = module.groups(module.MAIN, size, room)
    assert skipped == {}
    assert len(together) > 1
    assert all(group[:3] == ["perimetry", *module.LIMITS] for group in together)
    peers = [name for group in together for name in group[3:]]
    assert peers == list(module.MAIN)
    _, none = module.groups(module.MAIN, size, 2**30)
    assert set(none) == set(module.MAIN)
    assert "1 GiB are free" in none["saelens"]


def test_a_job_survives_the_pipe(module: ModuleType) -> None:

    from peers.jobs import Job  # pyright: ignore[reportMissingImports]

    job = module.ARMS["saelens_autocast_fused"].job(module.TINY, Path("a.npy"), Path("b.npy"), steps=7, seed=3)
    assert job.variant == ("autocast", "fused")
    assert (job.batch, job.d_model, job.width, job.k) == module.TINY
    assert Job.of_json(json.loads(json.dumps(job.to_json()))) == job
    assert Job.of_json(job.to_json() | {"width": 4 * 2**14}).rate == 1e-4
    assert Job.of_json(job.to_json() | {"lr": 0.5}).rate == 0.5
