"""`perimetry calibrate` with several SAEs, as a user calls it: what it refuses."""

from pathlib import Path

import pytest
from tests.worlds import World, run_main


@pytest.mark.parametrize(
    ("saes", "layers", "kind", "message"),
    [
        (2, (0,), "ConfigError", "2 SAEs and 1 layers were given; give --layer once for each --sae, or never"),
        (2, (), "ConfigError", "block 1 is tapped twice"),
        (1, (0, 1), "UsageError", "one SAE and 2 layers were given"),
        (2, (0, 1), "ModelMismatch", "the SAE was trained after block 1, block 0 was asked for"),
    ],
)
def test_refusals(world: World, tmp_path: Path, saes: int, layers: tuple[int, ...], kind: str, message: str) -> None:
    flags = [x for _ in range(saes) for x in ("--sae", world.sae)] + [x for n in layers for x in ("--layer", str(n))]
    paths = ["--text", world.prompts, "--out", tmp_path / "m", "--config", world.settings, "--model", world.model]
    found = run_main("calibrate", *flags, *paths, "--dtype", "float32", "--json").error()
    assert found[0] == kind
    assert message in found[1]
    assert not (tmp_path / "m").exists()
