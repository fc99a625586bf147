import pytest

from tests.lake_world import LakeWorld


@pytest.fixture
def lake(tmp_path):
    world = LakeWorld(tmp_path)
    yield world
    world.close()
