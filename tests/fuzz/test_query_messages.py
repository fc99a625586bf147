"""Whatever bytes a request is, it is read or refused by name."""

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from k2.errors import Invalid
from k2.query.request import Caller, TradesRequest, validated
from k2.v1.market_pb2 import TimeRange
from k2.v1.query_service_pb2 import PlanQueryRequest
from k2.v1.query_service_pb2 import TradesRequest as TradesMessage
from servers.flight.flight_server import PLAN_QUERY, dispatched
from servers.services import query_messages

numbers = st.integers(-(2**63), 2**63 - 1)
small = st.integers(-(2**31), 2**31 - 1)


def read(content):
    try:
        request = query_messages.request_from(PlanQueryRequest.FromString(content), Caller())
        validated(request)
    except (DecodeError, Invalid):
        return
    assert isinstance(request, TradesRequest)
    sent = query_messages.request_to(request).SerializeToString()
    assert query_messages.request_from(PlanQueryRequest.FromString(sent), Caller()) == request


@given(st.binary(max_size=200))
def test_bytes_of_any_kind(content):
    read(content)


fields = st.fixed_dictionaries(
    {},
    optional={
        "limit": numbers,
        "order": small,
        "consistency": small,
        "symbols": st.lists(st.text(), max_size=3),
        "as_of_snapshot_id": numbers,
        "as_of_token": st.text(),
        "last": st.builds(Duration, seconds=numbers, nanos=small),
        "range": st.builds(
            TimeRange,
            start_time=st.builds(Timestamp, seconds=numbers, nanos=small),
            end_time=st.builds(Timestamp, seconds=numbers, nanos=small),
        ),
    },
)


@given(fields)
def test_fields_of_any_value(values):
    content = PlanQueryRequest(trades=TradesMessage(**values)).SerializeToString()
    assert dispatched({PLAN_QUERY: read}, content) == (read, content)
    read(content)
