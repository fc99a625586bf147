import pytest

from tests.sim.runs import Runs


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    with Runs(tmp_path_factory.mktemp("sim")) as made:
        yield made
