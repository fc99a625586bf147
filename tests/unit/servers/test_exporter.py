"""Metrics are served to this machine, in two formats."""

import http.client
import ipaddress
import socket

import pytest
from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.parser import text_string_to_metric_families

from servers.exporter import Exporter

OPEN_METRICS = "application/openmetrics-text; version=1.0.0"


@pytest.fixture
def events():
    return CollectorRegistry()


@pytest.fixture
def exporter(events):
    served = Exporter("127.0.0.1:0", [events])
    yield served
    served.close()


def get(address, path="/metrics", **headers):
    connection = http.client.HTTPConnection(address, timeout=5)
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    return answer.status, answer.getheader("Content-Type"), answer.read().decode()


def test_a_scrape_reads_what_is_collected_now(exporter, events):
    Histogram("k2_some_seconds", "Some.", registry=events).observe(0.2, {"trace_id": "4bf9"})
    status, kind, text = get(exporter.address)
    assert (status, kind.split(";")[0]) == (200, "text/plain")
    names = [family.name for family in text_string_to_metric_families(text)]
    assert names == ["k2_some_seconds"]
    assert "4bf9" not in text


def test_exemplars_are_there_under_the_accept_header_that_asks_for_them(exporter, events):
    Histogram("k2_some_seconds", "Some.", registry=events).observe(0.2, {"trace_id": "4bf9"})
    status, kind, text = get(exporter.address, Accept=OPEN_METRICS)
    assert (status, kind.split(";")[0]) == (200, "application/openmetrics-text")
    assert '# {trace_id="4bf9"} 0.2' in text
    assert text.endswith("# EOF\n")


@pytest.mark.parametrize("host", ["localhost:9101", "127.0.0.1", "[::1]:1", "LOCALHOST"])
def test_this_machine_may_be_named(exporter, host):
    assert get(exporter.address, Host=host)[0] == 200


def test_a_trusted_network_may_scrape_by_the_name_of_the_machine(events):
    name = socket.gethostname()
    open_to = Exporter("0.0.0.0:0", [events], (ipaddress.ip_network("10.0.0.0/8"),))
    try:
        assert open_to.address.startswith(f"{name}:")
        local = f"127.0.0.1:{open_to.address.rpartition(':')[2]}"
        assert get(local, Host=open_to.address)[0] == 200
        assert get(local, Host="10.0.0.1")[0] == 200
        assert get(local, Host="evil.example")[0] == 403
    finally:
        open_to.close()


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:9101", "10.0.0.1"])
def test_another_host_is_refused(exporter, host):
    assert get(exporter.address, Host=host)[0] == 403


def test_there_is_one_page(exporter):
    assert get(exporter.address, "/other")[0] == 404
    assert get(exporter.address, "/metrics?x=1")[0] == 200


def test_a_collector_that_fails_does_not_end_the_exporter(exporter, events):
    class Broken:
        fails = True

        def collect(self):
            if self.fails:
                raise ZeroDivisionError
            return []

    broken = Broken()
    events.register(broken)
    broken.fails = True
    assert get(exporter.address)[0] == 500
    broken.fails = False
    assert get(exporter.address)[0] == 200


def test_a_taken_port_gives_way():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        other = Exporter(f"127.0.0.1:{port}", [])
    assert other.address.startswith("127.0.0.1:")
    assert other.address != f"127.0.0.1:{port}"
    other.close()
    with pytest.raises(ConnectionRefusedError):
        get(other.address)
