"""How the registry is configured and asked; the real one is in tests/integration."""

import http.server
import json
import threading

import pytest

from k2.errors import Internal
from servers.local.registry import RegistryPorts, answers, prepare, url
from tests.support.proxies import set_proxies


class Api(http.server.BaseHTTPRequestHandler):
    level, status = "NONE", 200

    def do_GET(self):
        self.answer({"compatibilityLevel": type(self).level})

    def do_PUT(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        type(self).level = body["compatibility"]
        self.answer(body)

    def answer(self, body):
        self.send_response(type(self).status)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, *_):
        pass


@pytest.fixture
def api():
    kind = type("OneApi", (Api,), {})
    server = http.server.HTTPServer(("127.0.0.1", 0), kind)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield kind, RegistryPorts(server.server_port, 0)
    server.shutdown()
    thread.join()
    server.server_close()


def test_it_answers_once_its_compatibility_is_ours(api):
    kind, ports = api
    assert answers(ports)
    assert kind.level == "FULL_TRANSITIVE"
    assert answers(ports)


def test_one_that_is_not_ready_does_not_answer(api):
    kind, ports = api
    kind.status = 503
    assert not answers(ports)
    assert not answers(RegistryPorts(9, 9))


def test_both_its_ports_are_on_loopback(tmp_path):
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "quarkus-run.jar").write_text("")
    ports = RegistryPorts(28081, 28082)
    command = prepare(tmp_path / "registry", ports, tmp_path / "app")
    assert command.env["QUARKUS_HTTP_HOST"] == "127.0.0.1"
    assert command.env["QUARKUS_MANAGEMENT_HOST"] == "127.0.0.1"
    assert command.env["QUARKUS_MANAGEMENT_PORT"] == "28082"
    assert command.cwd == tmp_path / "registry"
    assert not [each for each in (*command.argv, *command.env.values()) if str(command.cwd) in each]
    assert command.env["APICURIO_DATASOURCE_URL"].startswith("jdbc:h2:file:./database;")
    assert url(ports) == "http://127.0.0.1:28081/apis/ccompat/v7"


def test_a_folder_without_a_registry_is_named(tmp_path):
    with pytest.raises(Internal, match="no registry"):
        prepare(tmp_path / "registry", RegistryPorts(1, 2), tmp_path)


def test_no_proxy_stands_before_it(api, monkeypatch):
    set_proxies(monkeypatch)
    assert answers(api[1])
