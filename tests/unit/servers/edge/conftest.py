"""An edge over the in-memory K2, as a browser on this machine sees it."""

import pyarrow as pa
import pytest
from starlette.testclient import TestClient

from k2.clock import SystemClock
from servers.edge.app import make_app
from servers.edge.malformed import ProblemProtocol
from servers.edge.parts import EdgeParts
from servers.http_server import HttpServer
from tests.fakes.k2_server import K2Server, trade_rows

PEER = ("127.0.0.1", 4711)
COUNT = 23


@pytest.fixture(scope="module")
def k2():
    """The K2 that the edge asks."""
    with K2Server() as server:
        yield server


@pytest.fixture(scope="module")
def parts(k2):
    made = EdgeParts.of(k2.address, SystemClock())
    yield made
    made.close()


@pytest.fixture(scope="module")
def http(parts):
    """A client of the edge on this machine."""
    with TestClient(
        make_app(parts),
        base_url="http://localhost:8000",
        client=PEER,
        raise_server_exceptions=False,
        follow_redirects=False,
    ) as client:
        yield client


@pytest.fixture
def market(k2):
    """Trades of two symbols, several at the same time."""
    rows = trade_rows(COUNT).to_pylist()
    for number, row in enumerate(rows):
        row["event_time"] = rows[number - number % 4]["event_time"]
    k2.rows = pa.Table.from_pylist(rows, trade_rows(1).schema)
    k2.requests.clear()
    k2.headers.clear()
    yield
    k2.missing, k2.fail_calls, k2.fail_rows = [], [], []


@pytest.fixture(scope="module")
def address(parts):
    """Where the edge listens in truth."""
    made = HttpServer("127.0.0.1:0", make_app(parts), SystemClock(), protocol=ProblemProtocol)
    made.start()
    yield made.address
    made.drain()
