"""What tests of real parts share: one Kafka and one registry a session, started when asked for."""

import os
import socket

import hypothesis
import pytest

from k2 import settings
from k2.clock import SystemClock
from servers.local import broker as kafka
from servers.local import registry as apicurio
from servers.local.artifacts import Artifacts
from servers.local.child_process import Child
from tests.support.eventually import eventually

# How long one example takes says nothing on a machine that others use too. CI tries the same
# examples each time; everybody else's runs go on searching.
IN_CI = "CI" in settings.environment()
hypothesis.settings.register_profile("k2", deadline=None, derandomize=IN_CI)
hypothesis.settings.load_profile("k2")

START_S = 50

# Brokers of tests live for seconds: code that is compiled once, not twice, is theirs for half the
# processor time.
os.environ.setdefault("JDK_JAVA_OPTIONS", "-XX:TieredStopAtLevel=1")  # noqa: TID251 inherited


def free_ports(count):
    """Ports that nothing listens on."""
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


@pytest.fixture(scope="session")
def stack_dir(tmp_path_factory):
    """A folder for the session's broker and registry; their logs are in `logs`."""
    return tmp_path_factory.mktemp("stack")


@pytest.fixture(scope="session")
def artifacts():
    """Kafka and the registry, fetched once per user."""
    found = Artifacts(settings.load().cache_dir, SystemClock())
    found.ensure(lambda *_: None)
    return found


@pytest.fixture(scope="session")
def broker(stack_dir, artifacts):
    """The bootstrap address of a real Kafka."""
    ports = kafka.BrokerPorts(*free_ports(2))
    command = kafka.prepare(stack_dir / "kafka", ports, artifacts.jars("kafka"), "5" * 32)
    log = stack_dir / "logs" / "broker.log"
    yield from run(command, log, lambda: kafka.answers(ports), kafka.bootstrap(ports))


@pytest.fixture(scope="session")
def registry(stack_dir, artifacts):
    """The base URL of a real registry."""
    ports = apicurio.RegistryPorts(*free_ports(2))
    command = apicurio.prepare(stack_dir / "registry", ports, artifacts.unpacked("registry"))
    log = stack_dir / "logs" / "registry.log"
    yield from run(command, log, lambda: apicurio.answers(ports), apicurio.url(ports))


def run(command, log, ready, address):
    """Run a command while its fixture is in use; it dies with the test process in any case."""
    child = Child(command, log)
    try:

        def started():
            assert child.exit_code() is None, log.read_text()
            return ready()

        eventually(started, START_S, say=f"no answer; see {log}")
        yield address
    finally:
        child.stop(grace_s=5)
