import pytest

from k2 import limits
from tests.support.lake_world import LakeWorld
from tests.support.writer_world import PumpWorld


@pytest.fixture(autouse=True)
def _brief_reads(monkeypatch):
    """A tape that has nothing is a fake's: no time need pass for it to say so."""
    monkeypatch.setattr(limits, "WRITER_READ_TIMEOUT_S", 0.002)


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
