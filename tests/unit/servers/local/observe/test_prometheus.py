"""What Prometheus is started with, and where it is looked for."""

import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from servers.local.observe import prometheus
from servers.local.observe.prometheus import Prometheus
from tests.support import tools


def script(folder, name, text):
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_it_reads_the_targets_and_the_rules_of_its_stack(tmp_path):
    command = Prometheus(tmp_path / "prometheus", 9090).prepare(tmp_path)
    assert command.argv[0] == str(tmp_path / "prometheus")
    assert "--web.listen-address=127.0.0.1:9090" in command.argv
    assert "--enable-feature=exemplar-storage" in command.argv
    config = json.loads((tmp_path / "prometheus" / "prometheus.yml").read_text())
    (scrape,) = config["scrape_configs"]
    assert scrape["honor_labels"] is True
    assert scrape["file_sd_configs"][0]["files"] == [str(tmp_path / "run" / "targets.json")]
    assert config["rule_files"] == [str(prometheus.RULES)]
    assert prometheus.RULES.exists()


@pytest.mark.tools
def test_its_configuration_is_valid(tmp_path):
    Prometheus(tmp_path / "prometheus", 9090).prepare(tmp_path)
    tools.run("promtool", "check", "config", tmp_path / "prometheus" / "prometheus.yml")


def test_a_program_is_found_on_the_path_and_says_its_version(tmp_path):
    assert prometheus.find_program(str(tmp_path)) is None
    program = script(tmp_path, "prometheus", "echo prometheus, version 2.42.0 >&2")
    assert prometheus.find_program(str(tmp_path)) == program
    assert prometheus.version(program) == "2.42.0"
    assert prometheus.version(script(tmp_path, "other", "echo who knows")) == ""
    assert prometheus.version(tmp_path / "nothing") == ""


def test_it_answers_once_it_is_ready():
    statuses = [503, 200]

    class Ready(BaseHTTPRequestHandler):
        def do_GET(self):
            assert self.path == "/-/ready"
            self.send_response(statuses.pop(0))
            self.end_headers()

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Ready) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        one = Prometheus(None, server.server_port)
        assert [one.answers(), one.answers()] == [False, True]
        server.shutdown()
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        assert not Prometheus(None, unused.getsockname()[1]).answers()
