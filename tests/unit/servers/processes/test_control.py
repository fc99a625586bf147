"""The control process's own small parts; the whole is in tests/integration/servers."""

import http.server
import json
import socket
import threading

import pytest

from k2.settings import load
from servers.processes.control import answers_http, answers_tcp, source_of


def test_what_listens_answers():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = f"127.0.0.1:{listening.getsockname()[1]}"
        assert answers_tcp(address)
        assert answers_tcp(f"{address},127.0.0.1:1")
    assert not answers_tcp(address)
    assert not answers_tcp("nowhere")


class Registry(http.server.BaseHTTPRequestHandler):
    status = 200

    def do_GET(self):
        self.send_response(self.status if self.path == "/v7/subjects" else 500)
        self.end_headers()

    def log_message(self, *_):
        pass


def test_a_registry_answers_when_it_is_well():
    server = http.server.HTTPServer(("127.0.0.1", 0), Registry)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    url = f"http://127.0.0.1:{server.server_port}"
    try:
        assert answers_http(f"{url}/v7")
        assert not answers_http(f"{url}/other")
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert not answers_http(f"{url}/v7")
    assert not answers_http("http://127.0.0.1:x")


@pytest.mark.parametrize("content", [None, "", "[]", "{}", "no json"])
def test_without_a_readable_stamp_the_setting_says_what_rows_are(tmp_path, content):
    if content is not None:
        (tmp_path / "stamp.json").write_text(content)
    assert source_of(load(data_dir=tmp_path, feed={"source": "simulated"})) == "simulated"


def test_the_stamp_says_what_rows_are(tmp_path):
    (tmp_path / "stamp.json").write_text(json.dumps({"source": "recorded"}))
    assert source_of(load(data_dir=tmp_path)) == "recorded"
