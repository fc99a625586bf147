"""The description of a running stack, and its addresses."""

from k2cli.operate.running_stack import address_of, based, of_components
from k2client.records import Component, Status
from k2client.stack import Stack


def test_an_address_is_a_base_url(tmp_path):
    edge = {"name": "edge", "addresses": {"http": "127.0.0.1:8000"}}
    described = Stack(tmp_path, True, {"processes": [edge]})
    assert address_of(described, "edge", "http") == "127.0.0.1:8000"
    assert address_of(described, "edge", "grpc") is None
    assert based("127.0.0.1:8000") == "http://127.0.0.1:8000"
    assert based("http://127.0.0.1:9090/") == "http://127.0.0.1:9090"


def test_a_stack_of_containers_is_described_by_its_control_plane(tmp_path):
    def component(name, state="SERVING"):
        return Component(name, state, 1, "", {"metrics": "0.0.0.0:9101"}, "NORMAL", {}, None)

    status = Status(
        "SERVING", "NORMAL", "SIMULATED", (component("edge"), component("feed", "LOST")), "1", None
    )
    described = of_components(tmp_path, status, ["BTCUSDT", "BTCUSDT"])
    assert described.running
    assert described.content["source"] == "simulated"
    assert described.content["symbols"] == ["BTCUSDT"]
    assert address_of(described, "edge", "http") == "127.0.0.1:8000"
    assert address_of(described, "feed", "metrics") is None
