import pytest
from tests.shift.multi_worlds import MultiWorld, make_multi_world
from tests.worlds import World


@pytest.fixture(scope="session")
def multi(world: World, tmp_path_factory: pytest.TempPathFactory) -> MultiWorld:
    """A meter over both blocks of the world's model, made once by the commands; read only."""
    return make_multi_world(world, tmp_path_factory.mktemp("multi"))
