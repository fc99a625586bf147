"""Whether a live venue can be reached."""

import socket
import threading

import pytest
from websockets.sync.server import serve

from servers.local.reach import answers


def test_a_venue_that_accepts_a_subscription_answers():
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
