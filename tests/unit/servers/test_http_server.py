import urllib.request

import pytest
from starlette.responses import PlainTextResponse

from k2.clock import SystemClock
from k2.errors import Reason, Unavailable
from servers.http_server import HttpServer


def test_it_answers_from_its_start_to_its_drain():
    server = HttpServer("127.0.0.1:0", PlainTextResponse("fine"), SystemClock())
    server.start()
    with urllib.request.urlopen(f"http://{server.address}/", timeout=10) as answer:
        assert answer.read() == b"fine"
    with pytest.raises(Unavailable) as refused:
        HttpServer(server.address, PlainTextResponse("other"), SystemClock())
    assert refused.value.reason is Reason.PORT_IN_USE
    server.drain()
    assert not server.alive
