"""Two dictionaries of two blocks of the tiny model, fitted together."""

from pathlib import Path
from typing import NamedTuple

from tests.worlds import World, run_main

from perimetry.shift.multi import MultiMeter
from perimetry.shift.multi_loading import load_multi_meter

__all__ = ["MultiWorld", "make_multi_world"]


class MultiWorld(NamedTuple):
    """Where everything lies."""

    saes: tuple[Path, Path]
    """SAEs of the blocks 0 and 1."""
    folder: Path
    """The meter over both."""
    meter: MultiMeter
    """It, loaded."""
    out: str
    """What the command said."""


def make_multi_world(world: World, root: Path) -> MultiWorld:
    """Train an SAE on block 0 and calibrate it together with that of the world, by the commands."""
    numbers = {"--layer": 0, "--width": 48, "--k": 6, "--tokens": 2048, "--batch": 128, "--context": 64}
    flat = [str(x) for pair in numbers.items() for x in pair]
    trained = run_main(
        "train", "--model", world.model, "--text", world.corpus, "--out", root / "sae", *flat, "--dtype", "float32"
    )
    assert trained.code == 0, trained.err
    # The deeper one first: the order on the command line says nothing.
    paths = ["--sae", world.sae, "--sae", root / "sae", "--text", world.prompts, "--out", root / "multi"]
    settings = ["--config", world.settings, "--model", world.model, "--dtype", "float32"]
    made = run_main("calibrate", *paths, *settings, "--json")
    assert made.code == 0, made.err
    return MultiWorld((root / "sae", world.sae), root / "multi", load_multi_meter(root / "multi"), made.out)
