import pytest

from tests.support.lake_world import LakeWorld
from tests.support.writer_world import PumpWorld


@pytest.fixture
def lake(tmp_path):
    world = LakeWorld(tmp_path)
    yield world
    world.close()


@pytest.fixture
def world(tmp_path):
    world = PumpWorld(tmp_path)
    yield world
    world.close()
