"""What no application sees is refused as a problem."""

import http.client
import json
import socket

from k2 import limits


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
