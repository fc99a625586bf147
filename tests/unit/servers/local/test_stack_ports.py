"""Ports: known ones, free ones, and those that others have."""

import os
import socket

import pytest

from k2 import settings
from k2.errors import Invalid, Reason, Unavailable
from servers.local import stack_ports


def test_fixed_ports_are_the_known_ones():
    found = stack_ports.fixed(settings.load())
    names = ("control", "flight", "broker", "registry", "edge")
    assert [found[name] for name in names] == [50051, 8815, 9092, 8081, 8000]
    assert len(set(found.values())) == len(found)


def test_settings_move_a_fixed_port():
    moved = settings.load(control={"listen": "127.0.0.1:6000"}, venue={"listen": "127.0.0.1:6001"})
    found = stack_ports.fixed(moved)
    assert (found["control"], found["venue"]) == (6000, 6001)


@pytest.mark.parametrize("listen", ["0.0.0.0:50051", "nonsense", "127.0.0.1:99999", "db:1"])
def test_only_loopback_is_listened_on(listen):
    with pytest.raises(Invalid) as refused:
        stack_ports.fixed(settings.load(control={"listen": listen}))
    assert refused.value.reason is Reason.NOT_LOCAL


def test_where_networks_are_trusted_processes_listen_anywhere():
    trusted = {"trusted_networks": ("10.0.0.0/8",)}
    found = settings.load(control={"listen": "0.0.0.0:6000"}, access=trusted)
    assert stack_ports.fixed(found)["control"] == 6000
    with pytest.raises(Invalid):
        stack_ports.fixed(settings.load(tape={"bootstrap": "10.0.0.1:9092"}, access=trusted))


def test_a_port_that_gives_way_takes_none_that_others_take():
    first = stack_ports.free_for(["a"], "0" * 32)["a"]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        said = []
        wanted = {"a": taken.getsockname()[1]}
        assert stack_ports.give_way(wanted, "0" * 32, said.append) == {"a": first}
        assert stack_ports.give_way(wanted, "0" * 32, said.append, [first])["a"] != first
    assert f"it listens on port {first} instead" in said[0]


def test_free_ports_are_distinct_and_avoid_what_is_taken():
    first = stack_ports.free("0" * 32)
    with socket.create_server(("127.0.0.1", first["control"])):
        second = stack_ports.free("0" * 32)
    assert len(set(first.values())) == 9
    assert first["control"] not in second.values()
    assert all(20000 <= port < 32000 for port in second.values())


def test_a_port_in_use_is_refused_by_name_and_owner():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(Unavailable, match=f"port {port} \\(broker\\) is in use") as refused:
            stack_ports.check([("broker", port), ("free", stack_ports.free("1" * 32)["control"])])
    assert refused.value.reason is Reason.PORT_IN_USE
    assert refused.value.metadata == {"broker": str(port)}
    assert f"pid {os.getpid()}" in refused.value.message
    stack_ports.check([("broker", port)])


def test_a_port_taken_on_every_interface_is_in_use():
    with socket.create_server(("0.0.0.0", 0)) as taken:
        assert not stack_ports.is_free(taken.getsockname()[1])


def test_metrics_are_numbered_in_the_order_of_the_start():
    found = stack_ports.metrics(settings.load(), ("venue", "feed", "feed-2"))
    assert list(found.values()) == [9101, 9102, 9103]
    moved = settings.load(telemetry={"listen": "127.0.0.1:9500"})
    assert stack_ports.metrics(moved, ["lake"]) == {stack_ports.metrics_port("lake"): 9500}


def test_a_port_that_may_give_way_does_so_with_a_word():
    said = []
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        found = stack_ports.give_way({"a": port, "b": 1}, "0" * 32, said.append)
    assert found["b"] == 1 or found["b"] >= 20000
    assert 20000 <= found["a"] < 32000
    assert f"port {port} (a) is in use" in said[0]
    assert str(found["a"]) in said[0]
