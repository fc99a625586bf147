"""Requests survive the wire without loss, and what has no meaning is refused by field."""

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from k2.errors import Invalid, Reason
from k2.market.offsets import OffsetVector, ReadToken, TimeRange
from k2.query.request import Caller, Consistency, Order, Principal, RequestClass, TradesRequest
from k2.v1 import market_pb2
from k2.v1.query_service_pb2 import PlanQueryRequest
from k2.v1.query_service_pb2 import TradesRequest as TradesMessage
from servers.services import query_messages, read_token

TOKEN = ReadToken("topic", OffsetVector(0, (5, 0, 7)), 2**62)


def asked(**fields):
    return query_messages.request_from(PlanQueryRequest(trades=TradesMessage(**fields)), Caller())


def test_nothing_set_asks_for_everything():
    assert asked() == TradesRequest()


@pytest.mark.parametrize(
    "request_",
    [
        TradesRequest(symbols=("BTCUSDT", "ETHUSDT"), exchanges=("BINANCE",)),
        TradesRequest(range=TimeRange(1_600_000_000_000_001, 1_600_000_000_000_002)),
        TradesRequest(range=TimeRange(-5, None)),
        TradesRequest(range=TimeRange(None, 0)),
        TradesRequest(last_us=900_000_001),
        TradesRequest(columns=("price", "trade_id"), limit=10, order=Order.DESC),
        TradesRequest(limit=0),
        TradesRequest(limit=-1),
        TradesRequest(consistency=Consistency.COMMITTED, allow_partial=True),
        TradesRequest(consistency=Consistency.AS_OF, as_of_snapshot=2**63 - 1),
        TradesRequest(consistency=Consistency.AS_OF, as_of_snapshot=0),
        TradesRequest(consistency=Consistency.AS_OF, as_of_time_us=1_600_000_000_000_001),
        TradesRequest(consistency=Consistency.AS_OF, as_of_token=TOKEN),
    ],
)
def test_a_request_survives_the_wire(request_):
    sent = query_messages.request_to(request_).SerializeToString()
    assert query_messages.request_from(PlanQueryRequest.FromString(sent), Caller()) == request_


def test_a_request_carries_its_caller_and_its_message_does_not():
    caller = Caller(Principal("alice"), RequestClass.BATCH)
    request = query_messages.request_from(PlanQueryRequest(trades=TradesMessage()), caller)
    assert request == TradesRequest(caller=caller)
    assert query_messages.request_to(request) == query_messages.request_to(TradesRequest())


def test_a_moment_means_as_of():
    assert asked(as_of_snapshot_id=7).consistency is Consistency.AS_OF
    assert asked(as_of_time=Timestamp(seconds=1)).as_of_time_us == 1_000_000
    assert asked(as_of_token=read_token.to_text(TOKEN)).as_of_token == TOKEN
    assert asked(as_of_snapshot_id=7, consistency=1).consistency is Consistency.UNION


def test_finer_digits_of_a_time_are_cut_off():
    time = market_pb2.TimeRange(start_time=Timestamp(seconds=1, nanos=1999))
    assert asked(range=time).range == TimeRange(1_000_001, None)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"order": 9}, "order"),
        ({"consistency": 9}, "consistency"),
        ({"last": Duration(seconds=2**60)}, "last"),
        ({"last": Duration(nanos=-(2**31))}, "last"),
        ({"as_of_time": Timestamp(seconds=2**62)}, "as_of_time"),
        ({"as_of_time": Timestamp(nanos=-1)}, "as_of_time"),
        (
            {"range": market_pb2.TimeRange(start_time=Timestamp(seconds=-(2**62)))},
            "range.start_time",
        ),
        ({"range": market_pb2.TimeRange(end_time=Timestamp(nanos=2**31 - 1))}, "range.end_time"),
    ],
)
def test_what_has_no_meaning_is_refused_by_field(fields, field):
    with pytest.raises(Invalid) as caught:
        asked(**fields)
    assert caught.value.reason is Reason.BAD_REQUEST
    assert caught.value.metadata == {"field": field}


def test_a_request_that_asks_nothing_is_refused():
    with pytest.raises(Invalid) as caught:
        query_messages.request_from(PlanQueryRequest(), Caller())
    assert caught.value.reason is Reason.BAD_REQUEST
