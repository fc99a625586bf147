"""Servers listen on this machine and take its peers only, unless networks are trusted."""

import ipaddress
import socket

import grpc
import pyarrow.flight as fl  # noqa: TID251 the wire is what is tested
import pytest

from k2.clock import SystemClock
from k2.errors import Invalid, Reason
from k2.v1 import degradation_service_pb2 as pb
from k2.v1 import degradation_service_pb2_grpc as rpc
from servers.flight.flight_server import RowServer
from servers.network import (
    flight_locations,
    is_trusted,
    is_trusted_host,
    names_this_machine,
    reached_at,
    split_address,
)
from servers.services.grpc_server import GrpcServer
from tests.fakes.wire import reason_of
from tests.support.elsewhere import other_address

NETWORKS = (ipaddress.ip_network("172.28.0.0/16"), ipaddress.ip_network("fd00:2::/64"))


@pytest.mark.parametrize(
    "listen", ["0.0.0.0:1", "10.0.0.1:1", "nowhere", "127.0.0.1:x", "[::1]:-1"]
)
def test_only_addresses_of_this_machine_are_listened_on(listen):
    with pytest.raises(Invalid) as caught:
        split_address(listen)
    assert caught.value.reason is Reason.BAD_SETTING


def test_loopback_addresses():
    assert split_address("127.0.0.1:0") == ("127.0.0.1", 0)
    assert split_address("localhost:50051") == ("localhost", 50051)
    assert split_address("[::1]:7") == ("[::1]", 7)


@pytest.mark.parametrize("listen", ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "127.0.0.1:1"])
def test_where_networks_are_trusted_any_address_is_listened_on(listen):
    assert split_address(listen, NETWORKS) == (listen.rpartition(":")[0], 1)


@pytest.mark.parametrize("listen", ["query:1", "0.0.0.0", "0.0.0.0:70000"])
def test_what_is_no_address_is_refused_there_too(listen):
    with pytest.raises(Invalid, match="is not host:port"):
        split_address(listen, NETWORKS)


def test_a_listener_of_all_addresses_is_reached_by_the_name_of_its_machine():
    name = socket.gethostname()
    assert reached_at("0.0.0.0") == reached_at("[::]") == name
    assert reached_at("127.0.0.1") == "127.0.0.1"
    assert reached_at("localhost") == "localhost"
    assert flight_locations("127.0.0.1", 5) == ("grpc://127.0.0.1:5",)
    assert flight_locations("0.0.0.0", 5) == (f"grpc://{name}:5", "grpc://127.0.0.1:5")


@pytest.mark.parametrize(
    ("peer", "alone", "among"),
    [
        ("ipv4:127.0.0.1:4711", True, True),
        ("ipv6:[::1]:4711", True, True),
        ("ipv6:%5B::1%5D:4711", True, True),
        ("ipv6:%5B::ffff:127.0.0.1%5D:4711", True, True),
        ("unix:/tmp/x", True, True),
        ("unix:", True, True),
        ("ipv4:172.28.0.1:4711", False, True),
        ("ipv6:%5B::ffff:172.28.255.255%5D:4711", False, True),
        ("ipv6:%5Bfd00:2::5%5D:4711", False, True),
        ("ipv4:172.29.0.1:4711", False, False),
        ("ipv6:%5B::ffff:172.29.0.1%5D:4711", False, False),
        ("ipv6:[2001:db8::1]:4711", False, False),
        ("ipv4:localhost:1", False, False),
        ("", False, False),
    ],
)
def test_peers_of_this_machine_and_of_trusted_networks_are_taken(peer, alone, among):
    assert is_trusted(peer) is alone
    assert is_trusted(peer, NETWORKS) is among


def test_a_network_may_be_written_as_ipv4_in_ipv6():
    mapped = (ipaddress.ip_network("::ffff:172.28.0.0/112"),)
    assert is_trusted_host("172.28.0.9", mapped)
    assert is_trusted_host("::ffff:172.28.0.9", mapped)
    assert not is_trusted_host("172.29.0.9", mapped)


@pytest.mark.parametrize(
    ("header", "alone", "among"),
    [
        ("localhost:9101", True, True),
        ("LOCALHOST", True, True),
        ("[::1]:1", True, True),
        ("172.28.0.7:9101", False, True),
        (f"{socket.gethostname()}:9101", False, True),
        ("10.0.0.1", False, False),
        ("evil.example", False, False),
        ("127.0.0.1.evil.example:9101", False, False),
        ("", False, False),
        ("[::1", False, False),
    ],
)
def test_a_host_header_names_this_machine(header, alone, among):
    assert names_this_machine(header) is alone
    assert names_this_machine(header, NETWORKS) is among


@pytest.fixture(scope="module")
def elsewhere():
    return other_address()


@pytest.mark.parametrize("listen", ["0.0.0.0:0", "[::]:0"])
def test_control_calls_are_taken_from_trusted_networks_only(elsewhere, listen):
    assert _reason_on_grpc(listen, elsewhere, NETWORKS) == "NOT_LOCAL"
    assert _reason_on_grpc(listen, elsewhere, (ipaddress.ip_network(elsewhere),)) == "STARTING"


def _reason_on_grpc(listen, host, trusted):
    """Why a call is refused by a server that starts: it is asked who calls first."""
    server = GrpcServer(listen, {}, SystemClock(), trusted)
    rpc.add_DegradationServiceServicer_to_server(rpc.DegradationServiceServicer(), server._server)
    server.start()
    try:
        port = server.address.rpartition(":")[2]
        with grpc.insecure_channel(f"{host}:{port}") as channel:
            stub = rpc.DegradationServiceStub(channel)
            with pytest.raises(grpc.RpcError) as refused:
                stub.GetDegradation(pb.GetDegradationRequest(), timeout=10)
        return reason_of(refused.value)[1]
    finally:
        server.drain()


@pytest.mark.parametrize("listen", ["0.0.0.0:0", "[::]:0"])
def test_rows_are_streamed_to_trusted_networks_only(elsewhere, listen):
    with pytest.raises(fl.FlightUnauthorizedError, match="trusted networks only"):
        _first_row(listen, elsewhere, NETWORKS)
    with pytest.raises(fl.FlightUnavailableError, match="starting"):
        _first_row(listen, elsewhere, (ipaddress.ip_network(elsewhere),))


def _first_row(listen, host, trusted):
    server = RowServer(listen, trusted)
    try:
        with fl.connect(f"grpc://{host}:{server.port}") as client:
            client.do_get(fl.Ticket(b"any")).read_chunk()
    finally:
        server.drain()
