"""Whether a live venue can be reached."""

import socket
import threading

import pytest
from websockets.sync.server import serve

from k2.errors import Reason
from servers.local.venue_probe import answers, refusal
from tests.support.proxies import set_proxies


def test_a_venue_that_accepts_a_subscription_answers(monkeypatch):
    set_proxies(monkeypatch)  # none stands before a venue on this machine
    asked = []

    def handler(connection):
        asked.append(connection.request.path)

    with serve(handler, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            assert answers(f"ws://127.0.0.1:{server.socket.getsockname()[1]}")
        finally:
            server.shutdown()
            thread.join()
    assert asked == ["/stream?streams=btcusdt@trade"]


@pytest.mark.parametrize("url", ["ws://127.0.0.1:9", "nonsense", "http://127.0.0.1:9", ""])
def test_what_is_not_there_does_not_answer(url):
    assert not answers(url)


def test_what_keeps_silent_does_not_answer():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert not answers(f"ws://127.0.0.1:{silent.getsockname()[1]}", timeout_s=0.2)


def test_a_proxy_that_is_not_spoken_is_named(monkeypatch):
    set_proxies(monkeypatch, "socks5h://127.0.0.1:9")
    found = refusal("wss://venue.invalid:9443")
    assert found.reason is Reason.VENUE_UNAVAILABLE
    assert "wss://venue.invalid:9443 cannot be reached: the proxy" in found.message
