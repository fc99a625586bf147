"""Errors keep kind, reason and details on the wire, and a defect shows no inside."""

import grpc
import pyarrow.flight as fl  # noqa: TID251 the wire is what is tested
import pytest
from google.rpc import code_pb2, error_details_pb2

from k2.errors import Data, Internal, Invalid, NotFound, Overloaded, Reason, Unavailable
from k2client.error_mapping import from_flight, from_rpc
from servers.flight.flight_stream import flight_error
from servers.services.rpc_status import PeerError, as_k2, bounded, code_of, to_grpc, to_status
from tests.fakes.wire import served
from tests.unit.servers.services.test_interceptors import NAME, Service, get, raising


def unpacked(status, kind):
    for detail in status.details:
        message = kind()
        if detail.Unpack(message):
            return message
    return None


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Invalid(Reason.BAD_REQUEST, "m"), code_pb2.INVALID_ARGUMENT),
        (Invalid(Reason.NOT_LOCAL, "m"), code_pb2.PERMISSION_DENIED),
        (NotFound(Reason.UNKNOWN_SYMBOL, "m"), code_pb2.NOT_FOUND),
        (Unavailable(Reason.TAIL_BEHIND, "m"), code_pb2.UNAVAILABLE),
        (Overloaded(Reason.QUEUE_FULL, "m"), code_pb2.RESOURCE_EXHAUSTED),
        (Overloaded(Reason.DEADLINE_EXCEEDED, "m"), code_pb2.DEADLINE_EXCEEDED),
        (Data(Reason.LAKE_CORRUPT, "m"), code_pb2.DATA_LOSS),
        (Internal(Reason.INTERNAL, "m"), code_pb2.INTERNAL),
    ],
)
def test_the_code_follows_the_kind(error, code):
    status = to_status(error)
    assert status.code == code == code_of(error)
    info = unpacked(status, error_details_pb2.ErrorInfo)
    assert (info.reason, info.domain) == (error.reason.value, "k2")


def test_metadata_and_retry_travel():
    status = to_status(
        Unavailable(Reason.TAIL_BEHIND, "m", metadata={"partition": "3"}, retry_after_s=2.5)
    )
    assert unpacked(status, error_details_pb2.ErrorInfo).metadata == {"partition": "3"}
    assert unpacked(status, error_details_pb2.RetryInfo).retry_delay.ToMilliseconds() == 2500


def test_what_passes_always_says_when_to_come_back():
    for error in (Unavailable(Reason.STARTING, "m"), Overloaded(Reason.QUEUE_FULL, "m")):
        assert unpacked(to_status(error), error_details_pb2.RetryInfo).retry_delay.seconds == 1
    assert (
        unpacked(to_status(Invalid(Reason.BAD_REQUEST, "m")), error_details_pb2.RetryInfo) is None
    )


def test_a_wrong_field_is_named():
    status = to_status(Invalid(Reason.BAD_REQUEST, "no", metadata={"field": "last"}))
    (violation,) = unpacked(status, error_details_pb2.BadRequest).field_violations
    assert (violation.field, violation.description, violation.reason) == (
        "last",
        "no",
        "BAD_REQUEST",
    )


def test_a_defect_shows_nothing_of_its_inside():
    error = as_k2(ZeroDivisionError("secret"))
    assert error.reason is Reason.INTERNAL
    assert "secret" not in to_status(error).message
    assert as_k2(error) is error


def test_grpc_carries_the_status():
    status = to_grpc(NotFound(Reason.UNKNOWN_SNAPSHOT, "m"))
    assert status.code is grpc.StatusCode.NOT_FOUND
    assert status.trailing_metadata[0][0] == "grpc-status-details-bin"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("short", "short"),
        ("x" * 10, "x" * 10),
        ("x" * 11, "x" * 10 + "… (1 more characters)"),
        ("é" * 3, "é… (2 more characters)"),
        ("\ud800", "?"),
    ],
)
def test_a_text_is_cut_by_its_size_on_the_wire(text, expected):
    assert bounded(text, 10) == expected


@pytest.mark.parametrize("letter", ["x", "é", "交", "\n", "%"])
@pytest.mark.parametrize("kind", [Invalid, NotFound, Overloaded])
def test_the_longest_error_arrives_as_itself(letter, kind):
    details = {letter * 300 + str(number): letter * 10_000 for number in range(50)}
    error = kind(Reason.BAD_REQUEST, letter * 100_000, metadata=details)
    with served((NAME, Service(raising(error)).register)) as (_, channel):
        with pytest.raises(grpc.RpcError) as refused:
            get(channel)
        got = from_rpc(refused.value, "a:1")
    with Refusing(error) as server, fl.connect(f"grpc://127.0.0.1:{server.port}") as client:
        with pytest.raises(fl.FlightError) as refused:
            list(client.do_action(fl.Action("x", b"")))
        of_flight = from_flight(refused.value, "a:1")
    for each in (got, of_flight):
        assert (type(each).__name__, each.reason) == (kind.__name__, "BAD_REQUEST")
        assert each.message.startswith(letter * 100)
        assert "more characters" in each.message
    assert got.metadata == of_flight.metadata


class Refusing(fl.FlightServerBase):
    def __init__(self, error):
        super().__init__("grpc://127.0.0.1:0")
        self._error = error

    def do_action(self, context, action):
        raise flight_error(self._error)


def test_a_peer_that_is_no_call_is_unknown():
    error = PeerError(grpc.RpcError())
    assert (error.code, error.details, error.trailing_metadata) == (
        grpc.StatusCode.UNKNOWN, "", (),
    )  # fmt: skip
