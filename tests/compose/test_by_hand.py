"""The settings and commands of the containers, started by hand on this machine: the same platform.

Only addresses differ: names of services become this machine, and ports free ones.
"""

import json
import re
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request

import pytest

import k2client
from k2 import settings
from servers.local import broker as kafka
from servers.local import registry as apicurio
from tests.compose.containers import k2_settings, processes
from tests.conftest import free_ports, run
from tests.support.elsewhere import other_address
from tests.support.eventually import eventually

ORDER = ("deploy", "venue", "feed", "lake", "query", "control", "edge")
PUBLISHED = re.compile(r"\b(?:0\.0\.0\.0|control|query|venue):(\d+)")
AWAY = "127.0.0.1:9"  # nothing listens: traces go nowhere

pytestmark = [pytest.mark.slow, pytest.mark.integration, pytest.mark.timeout(300)]


@pytest.fixture
def foundation(tmp_path, artifacts):
    """Kafka and a registry of this test alone, by the names that containers have for them."""
    ports = kafka.BrokerPorts(*free_ports(2))
    command = kafka.prepare(tmp_path / "kafka", ports, artifacts.jars("kafka"), "5" * 32)
    log = tmp_path / "broker.log"
    broker = run(command, log, lambda: kafka.answers(ports), kafka.bootstrap(ports))
    more = apicurio.RegistryPorts(*free_ports(2))
    command = apicurio.prepare(tmp_path / "registry", more, artifacts.unpacked("registry"))
    log = tmp_path / "registry.log"
    registry = run(command, log, lambda: apicurio.answers(more), apicurio.url(more))
    yield {"kafka:9092": next(broker), "http://registry:8080/apis/ccompat/v7": next(registry)}
    registry.close()
    broker.close()


class Container:
    """A service's command in its settings, as a process."""

    def __init__(self, service, rewritten, log):
        environment = {name: rewritten(value) for name, value in k2_settings(service).items()}
        self.command = [sys.executable, *map(rewritten, service["command"][1:])]
        self._log = log.open("w")
        self.events = []
        self._process = subprocess.Popen(
            self.command,
            env=settings.environment() | environment,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        self.events.extend(json.loads(line) for line in self._process.stdout)

    def said(self, event):
        return any(one["event"] == event for one in self.events.copy())

    def serves(self):
        assert self._process.poll() is None, self.events
        return self.said("serving")

    def ended(self, timeout_s=60):
        return self._process.wait(timeout_s)

    def stop(self):
        self._process.send_signal(signal.SIGTERM)

    def kill(self):
        self._process.kill()
        self._process.wait()
        self._reader.join()
        self._process.stdout.close()
        self._log.close()


def test_the_containers_settings_start_the_platform(tmp_path, foundation):
    services = processes(K2_VENUE="synthetic", K2_SUBNET=f"{other_address()}/32")
    free = {}

    def rewritten(text):
        for name, address in foundation.items():
            text = text.replace(name, address)
        text = text.replace("tempo:4317", AWAY).replace("/k2", str(tmp_path / "k2"))
        return PUBLISHED.sub(lambda one: here(one[0], one[1]), text)

    def here(address, port):
        if port == "9101":  # each container has one of its own
            return "0.0.0.0:0"
        if port not in free:
            (free[port],) = free_ports(1)
        host = "0.0.0.0" if address.startswith("0.") else "127.0.0.1"
        return f"{host}:{free[port]}"

    started = {}
    try:
        for name in ORDER:
            log = tmp_path / f"{name}.log"
            one = started[name] = Container(services[name], rewritten, log)
            if name == "deploy":
                assert one.ended() == 0, one.events
        for name in ORDER[1:]:
            eventually(started[name].serves, 60, say=tmp_path / f"{name}.log")
        eventually(lambda: health(free["8000"]) == "SERVING", 60)
        check_rows(f"127.0.0.1:{free['50051']}")
        for name in reversed(ORDER[1:]):
            started[name].stop()
        assert {name: started[name].ended() for name in ORDER} == dict.fromkeys(ORDER, 0)
    finally:
        for one in started.values():
            one.kill()


def health(port):
    """What the edge says of the platform; 503 while that does not serve."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
            return json.load(answer)["status"]
    except urllib.error.HTTPError as refused:
        return refused.read()[:200] if refused.code != 503 else None


def check_rows(address):
    """Rows come over Flight, and are simulated: nothing was fetched from elsewhere."""
    with k2client.connect(address) as k2:

        def rows():
            return k2.trades("BTCUSDT", last="1m").to_arrow()

        eventually(lambda: rows().num_rows > 0, 30)
        assert set(rows()["source"].to_pylist()) == {"simulated"}
        assert k2.settings()["access.trusted_networks"]
