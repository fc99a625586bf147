"""What has no heartbeat is asked whether it answers."""

import http.server
import socket
import threading

from servers.probes import answers_http, answers_ok, answers_tcp


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
        assert answers_ok(server.server_port, "/v7/subjects")
        assert not answers_ok(server.server_port, "/other")
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert not answers_http(f"{url}/v7")
    assert not answers_ok(server.server_port, "/v7/subjects")
    assert not answers_http("http://127.0.0.1:x")
