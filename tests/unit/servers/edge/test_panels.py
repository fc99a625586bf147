import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest

from k2client.errors import NotFound, Unavailable
from servers.edge import panels

SERIES = [{"metric": {"process": "query"}, "values": [[1.0, "2"]]}]


@pytest.fixture
def prometheus():
    """The address of a Prometheus that notes what it is asked."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(parse_qs(urlsplit(self.path).query))
            content = json.dumps({"status": "success", "data": {"result": SERIES}}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()


def test_a_query_is_one_of_the_board():
    query = panels.query_of(0, 0)
    assert query == panels.panels()[0]["targets"][0]["expr"]
    assert all("$__" not in panels.query_of(at, 0) for at in range(len(panels.panels())))
    for place in ((999, 0), (0, 99)):
        with pytest.raises(NotFound):
            panels.query_of(*place)


def test_a_range_ends_at_the_time_given(prometheus):
    url, asked = prometheus
    assert panels.ranged(url, "up", 1000.0, 900, 15) == SERIES
    assert asked == [{"query": ["up"], "start": ["100.0"], "end": ["1000.0"], "step": ["15"]}]


def test_a_prometheus_that_is_away_is_said_to_be():
    with pytest.raises(Unavailable) as refused:
        panels.ranged("http://127.0.0.1:1", "up", 1000.0, 900, 15)
    assert refused.value.reason == "PEER_UNAVAILABLE"


def test_without_a_prometheus_the_board_has_titles_alone(http):
    board = http.get("/v1/panels").json()["data"]
    assert board["prometheus"] is False
    assert "Platform level" in board["titles"]
    assert http.get("/v1/panels/0/0").status_code == 404
