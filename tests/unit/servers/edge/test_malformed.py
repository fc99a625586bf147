"""What no application sees is refused as a problem; HEAD over a socket ends with its headers."""

import http.client
import json
import socket

import pytest

from k2 import limits
from k2.clock import SystemClock
from servers.edge.app import make_app
from servers.edge.malformed import ProblemProtocol
from servers.http_server import HttpServer


@pytest.fixture(scope="module")
def address(parts):
    made = HttpServer("127.0.0.1:0", make_app(parts), SystemClock(), protocol=ProblemProtocol)
    made.start()
    yield made.address
    made.drain()


def answer_to(address, request):
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(request)
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        return answer.status, answer.headers["Content-Type"], json.loads(answer.read())


def test_what_is_no_request_is_refused_as_a_problem(address):
    status, kind, problem = answer_to(address, b"nothing of HTTP\r\n\r\n")
    assert (status, kind, problem["reason"]) == (400, "application/problem+json", "BAD_REQUEST")


def test_a_request_that_is_too_large_is_refused_as_a_problem(address):
    line = b"GET /v1/trades?symbol=" + b"X" * limits.EDGE_REQUEST_BYTES_MAX
    status, kind, problem = answer_to(address, line)
    assert (status, kind) == (431, "application/problem+json")
    assert (problem["status"], problem["reason"]) == (431, "REQUEST_TOO_LARGE")


def test_a_connection_lives_after_head_of_a_stream(address, market):
    connection = http.client.HTTPConnection(address, timeout=10)
    for path in ("/v1/trades?symbol=BTCUSDT&format=csv", "/v1/trades/stream?symbol=BTCUSDT"):
        connection.request("HEAD", path)
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (200, b"")
    connection.request("GET", "/health")
    assert connection.getresponse().read()
    connection.close()
