"""HTTP as a venue speaks it, over a real socket."""

import contextlib
import socket
import threading

import pytest

from k2 import limits
from k2.clock import ManualClock, SystemClock
from k2.errors import Reason, Unavailable
from k2.feed.venues.history import HttpFetch
from tests.support.proxies import set_proxies


@contextlib.contextmanager
def answering(*parts, pace=lambda: None):
    """A server that sends these bytes to whoever asks, then closes; the requests it read."""
    listener = socket.create_server(("127.0.0.1", 0))
    asked = []

    def serve():
        with contextlib.suppress(OSError):
            connection, _ = listener.accept()
            with connection:
                asked.append(connection.recv(65536).decode())
                for part in parts:
                    connection.sendall(part)
                    pace()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/x?a=1", asked
    finally:
        listener.close()
        thread.join(5)


def test_status_headers_and_body_come_back():
    with answering(b"HTTP/1.1 200 OK\r\nX-Used: 5\r\nContent-Length: 2\r\n\r\n[]") as (url, asked):
        reply = HttpFetch(SystemClock())(url, {"X-Unit": "MICRO"})
    assert (reply.status, reply.headers["x-used"], reply.body) == (200, "5", b"[]")
    assert asked[0].startswith("GET /x?a=1 HTTP/1.1")
    assert "X-Unit: MICRO" in asked[0]


def test_a_refusal_is_an_answer_too():
    answer = b"HTTP/1.1 429 Slow\r\nRetry-After: 7\r\nContent-Length: 3\r\n\r\nwhy"
    with answering(answer) as (url, _):
        reply = HttpFetch(SystemClock())(url, {})
    assert (reply.status, reply.headers["retry-after"], reply.body) == (429, "7", b"why")


@pytest.mark.parametrize(
    "answer", [b"", b"rubbish", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort"]
)
def test_a_broken_answer_is_none(answer):
    with answering(answer) as (url, _):
        if b"short" in answer:  # the length lies: whoever reads the content will see it is no JSON
            assert HttpFetch(SystemClock())(url, {}).body in (b"short",)
            return
        with pytest.raises(Unavailable) as caught:
            HttpFetch(SystemClock())(url, {})
    assert caught.value.reason is Reason.VENUE_UNAVAILABLE


def test_an_answer_is_read_up_to_its_bound_and_one():
    head = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"
    body = b"x" * (limits.FEED_REST_BYTES_MAX + 100_000)
    with answering(head, body) as (url, _):
        reply = HttpFetch(SystemClock())(url, {})
    assert len(reply.body) == limits.FEED_REST_BYTES_MAX + 1


def test_an_answer_that_never_ends_is_given_up():
    clock = ManualClock()
    head = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"
    drops = [head, *[b"x"] * 50]
    server = answering(*drops, pace=lambda: clock.advance(1))
    with server as (url, _), pytest.raises(Unavailable) as caught:
        HttpFetch(clock)(url, {})
    assert "does not end" in caught.value.message


def test_nobody_there():
    with pytest.raises(Unavailable):
        HttpFetch(SystemClock())("http://127.0.0.1:1/", {})


def test_no_proxy_stands_before_a_venue_on_this_machine(monkeypatch):
    set_proxies(monkeypatch)
    with answering(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]") as (url, _):
        assert HttpFetch(SystemClock())(url, {}).status == 200
