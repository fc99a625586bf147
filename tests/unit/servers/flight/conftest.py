import pytest

from tests.support.query_stack import QueryStack
from tests.unit.servers.flight.test_flight_server import Wire


@pytest.fixture
def stack(tmp_path):
    with QueryStack(tmp_path) as stack:
        yield stack


@pytest.fixture
def wire(stack):
    wire = Wire(stack).ready()
    yield wire
    wire.close()
