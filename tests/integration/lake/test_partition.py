"""The network between K2's processes and the broker is gone for a while: frozen, then refused."""

import threading

import pytest

from k2.clock import SystemClock
from k2.settings import environment
from servers.local import broker as kafka
from servers.local.child_process import Child
from tests.conftest import free_ports
from tests.integration.lake.epoch_site import SYMBOLS, Site
from tests.integration.servers.wire import running
from tests.support.eventually import eventually
from tests.support.gate import Gate

# Several commit intervals; 60 for the longest form.
PARTED_S = float(environment().get("K2_TEST_PARTITION_S", 2))

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240 + 2 * PARTED_S)]


@pytest.fixture
def gate(tmp_path, artifacts):
    """The only way to a broker of this test alone, which names the gate as its address."""
    ports = kafka.BrokerPorts(*free_ports(2))
    made = Gate(ports.clients)
    folder = tmp_path / "kafka"
    command = kafka.prepare(folder, ports, artifacts.jars("kafka"), "8" * 32)
    with (folder / "server.properties").open("a") as properties:
        properties.write(f"advertised.listeners=PLAINTEXT://127.0.0.1:{made.port}\n")
    child = Child(command, folder / "log")
    try:
        eventually(lambda: kafka.answers(ports), 60)
        yield made
    finally:
        made.refuse()
        child.stop(grace_s=5)


def test_a_broker_behind_a_broken_network_costs_nothing_but_time(tmp_path, gate, registry):
    apart(Site(tmp_path / "k2", f"127.0.0.1:{gate.port}", registry), gate, PARTED_S)


def apart(site, gate, seconds):
    """Part writer, query server and producer from the broker, twice; then the account."""
    clock, ids = SystemClock(), 0
    with running("lake", site.settings, K2_LAKE__COMMIT_INTERVAL_S="0.3"), site.view() as ask:
        site.put(range(50))
        for part in (gate.freeze, gate.refuse):
            ids += 50
            site.await_rows(2 * ids)
            homes = site.homes()
            sender = threading.Thread(target=site.put, args=(range(ids, ids + 50), homes, 120))
            part()
            sender.start()
            clock.sleep(seconds)
            assert site.newest().rows_total == 2 * ids
            gate.open()
            sender.join(120)
            assert not sender.is_alive()
        site.await_rows(2 * (ids + 50))
        site.put(range(ids + 50, ids + 60))
        for symbol in SYMBOLS:
            asked = [row["trade_id"] for row in ask(symbols=(symbol,))]
            assert asked == list(range(ids + 60))
        site.await_rows(2 * (ids + 60))  # a writer that is stopped commits only what it has read
    assert site.in_lake() == sorted((symbol, one) for symbol in SYMBOLS for one in range(ids + 60))
    code, report = site.commanded("verify")
    assert (code, report["problems"], report["dead"]) == (0, [], 0)
