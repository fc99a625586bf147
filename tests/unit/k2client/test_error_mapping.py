import grpc
import pyarrow as pa
import pytest
from google.rpc import code_pb2, status_pb2
from pyarrow import flight  # noqa: TID251 what Flight raises

from k2 import errors as platform
from k2client import errors
from k2client.error_mapping import from_flight, from_rpc, from_status
from servers.services.rpc_status import to_status
from tests.fakes.k2_server import status


@pytest.mark.parametrize("kind", platform.K2Error.__subclasses__())
def test_what_a_server_raises_is_what_the_client_raises(kind):
    sent = kind(platform.Reason.TAIL_BEHIND, "m", metadata={"a": "b"}, retry_after_s=2.5)
    got = from_status(to_status(sent))
    assert type(got).__name__ == kind.__name__
    assert (got.reason, got.message, got.retry_after_s) == ("TAIL_BEHIND", "m", 2.5)
    assert got.metadata["a"] == "b"


def test_a_wrong_field_is_named():
    sent = status(code_pb2.INVALID_ARGUMENT, "UNKNOWN_COLUMN", "no column", field="columns")
    assert from_status(sent).metadata["field"] == "columns"


def test_flight_carries_the_same():
    carried = status(code_pb2.UNAVAILABLE, "DRAINING", "going", retry_after_s=1)
    got = from_flight(flight.FlightUnavailableError("x", carried.SerializeToString()), "a:1")
    assert isinstance(got, errors.Unavailable)
    assert (got.reason, got.message, got.retry_after_s) == ("DRAINING", "going", 1)


@pytest.mark.parametrize(
    ("raised", "kind", "reason"),
    [
        (flight.FlightUnavailableError("x"), errors.Unavailable, "PEER_UNAVAILABLE"),
        (flight.FlightTimedOutError("x"), errors.Overloaded, "DEADLINE_EXCEEDED"),
        (flight.FlightServerError("x", b"\xff\xff"), errors.Internal, "INTERNAL"),
        (pa.ArrowInvalid("x"), errors.Invalid, "BAD_REQUEST"),
        (OSError("x"), errors.Internal, "INTERNAL"),
    ],
)
def test_where_no_k2_spoke_the_kind_of_failure_decides(raised, kind, reason):
    got = from_flight(raised, "a:1")
    assert type(got) is kind
    assert got.reason == reason
    assert "a:1" in got.message


class Refused(grpc.RpcError, grpc.Call):
    """A call that gRPC refuses by itself."""

    def __init__(self, code, details):
        self._said = code, details

    def code(self):
        return self._said[0]

    def details(self):
        return self._said[1]

    def trailing_metadata(self):
        return ()

    is_active = time_remaining = cancel = add_callback = initial_metadata = details


@pytest.mark.parametrize(
    ("details", "expected"),
    [
        ("Concurrent RPC limit exceeded!", ("TOO_MANY_CALLS", 1.0)),
        ("Received message larger than max", ("RESOURCE_EXHAUSTED", None)),
    ],
)
def test_what_grpc_refuses_for_the_number_of_calls_is_tried_again(details, expected):
    got = from_rpc(Refused(grpc.StatusCode.RESOURCE_EXHAUSTED, details), "a:1")
    assert type(got) is errors.Overloaded
    assert (got.reason, got.retry_after_s) == expected


def test_the_transports_own_words_are_cut():
    text = "failed. Detail: Internal. gRPC client debug context: UNKNOWN:/src/file.cc:12"
    assert from_flight(flight.FlightInternalError(text), "a:1").message == "a:1: failed"


def test_a_status_without_words_has_its_reason():
    got = from_status(status_pb2.Status(code=code_pb2.DATA_LOSS))
    assert (type(got), got.message) == (errors.Data, "DATA_LOSS")
