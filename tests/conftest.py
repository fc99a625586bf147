"""What tests of real parts share: one Kafka and one registry a session, started when asked for."""

import os
import socket
from collections import Counter

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
FOLDER_PARTS = 3  # tests/unit/lake is a folder of its own, tests/unit/lake/commit is part of it


@pytest.hookimpl(trylast=True)  # after the terminal reporter is there
def pytest_configure(config):
    """Report folders instead of tests where several workers run them."""
    if getattr(config.option, "numprocesses", None):
        reporter = config.pluginmanager.getplugin("terminalreporter")
        config.pluginmanager.register(FolderProgress(reporter), "folder-progress")


class FolderProgress:
    """Prints a line when the first and when the last test of a folder has run, and each failure."""

    def __init__(self, reporter):
        self._reporter = reporter
        self._total, self._left, self._seconds = Counter(), Counter(), Counter()

    def pytest_xdist_node_collection_finished(self, ids):
        self._total = Counter(map(folder_of, ids))

    def pytest_runtest_logstart(self, nodeid):
        folder = folder_of(nodeid)
        if folder not in self._left:
            self._left[folder] = self._total[folder]
            self._reporter.write_line(f"{folder}: {self._total[folder]} tests")

    @pytest.hookimpl(tryfirst=True)
    def pytest_report_teststatus(self, report):
        if report.failed:
            return "failed" if report.when == "call" else "error", "", ""
        if report.skipped:
            return "skipped", "", ""
        return "passed" if report.when == "call" else "", "", ""

    def pytest_runtest_logreport(self, report):
        self._seconds[folder_of(report.nodeid)] += report.duration
        if report.failed:
            self._reporter.write_line(f"FAILED {report.nodeid} ({report.when})", red=True)

    def pytest_runtest_logfinish(self, nodeid):
        folder = folder_of(nodeid)
        self._left[folder] -= 1
        if not self._left[folder]:
            self._reporter.write_line(f"{folder}: done in {self._seconds[folder]:.0f} test-seconds")


def folder_of(nodeid):
    """The folder that a test is reported with."""
    return "/".join(nodeid.split("::")[0].split("/")[:-1][:FOLDER_PARTS])


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
