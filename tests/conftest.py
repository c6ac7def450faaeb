import pytest
import torch
from tests.worlds import World, make_world

from perimetry.activations.model import LanguageModel, tiny_language_model
from perimetry.shift.loading import load_meter
from perimetry.shift.meter import Meter

# Tests fork children; a child of a process that has started OpenMP threads can hang for ever.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_lm() -> LanguageModel:
    return tiny_language_model("llama")


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A model folder, texts, an SAE and a meter, made once by the commands; read only."""
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="session")
def meter(world: World) -> Meter:
    """The meter of the world, loaded; read only."""
    return load_meter(world.meter)
