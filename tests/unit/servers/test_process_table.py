"""Each process and command is one entry of one table."""

import importlib.util
from operator import attrgetter

import pytest

from k2.settings import load
from servers.process_table import MODULES, PROCESSES, expected_by, names_of, process_of


@pytest.mark.parametrize("module", MODULES.values())
def test_each_entry_names_a_module(module):
    assert importlib.util.find_spec(module) is not None


def test_each_port_names_a_setting(monkeypatch):
    ports = [port for spec in PROCESSES.values() for port in spec.ports]
    for number, port in enumerate(ports, 7000):
        monkeypatch.setenv(port.variable, f"127.0.0.1:{number}")
    settings = load()
    found = [attrgetter(port.setting)(settings) for port in ports]
    assert found == [f"127.0.0.1:{number}" for number, _ in enumerate(ports, 7000)]


def test_a_process_expects_itself_and_its_peers_under_all_their_names():
    settings = load(feed={"copies": 2})
    assert names_of("feed", settings) == ("feed", "feed-2")
    assert set(expected_by("control", settings)) == {"control", "feed", "feed-2", "lake", "query"}
    assert set(expected_by("query", settings)) == {"feed", "feed-2", "lake", "query"}
    assert expected_by("lake", settings) == ("lake",)


def test_a_copy_is_known_by_the_beginning_of_its_name():
    names = ("feed", "feed-2", "feedbtc", "lake", "other")
    assert [process_of(name) for name in names] == ["feed", "feed", "feed", "lake", "other"]
