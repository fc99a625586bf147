"""Joins, markouts, summaries, symbols and availability survive the wire."""

import pytest

from k2.errors import Invalid
from k2.query.request import ANONYMOUS, Caller, TradesRequest
from k2.query.shapes.asof import Asof, Direction
from k2.query.shapes.availability import Availability
from k2.query.shapes.markouts import Markouts
from k2.query.shapes.summary import Summary
from k2.query.shapes.symbols import Symbols
from k2.v1 import query_service_pb2 as pb
from servers.services.query_messages import request_from, request_to

CALLER = Caller(ANONYMOUS)


@pytest.mark.parametrize(
    "shape",
    [
        Asof(right="BTCUSDT"),
        Asof(right="BTCUSDT", tolerance_us=0),
        Asof(right="BTCUSDT", tolerance_us=5_000_001, direction=Direction.FORWARD),
        Markouts(),
        Markouts((1, 2_000_000)),
        Summary("2026-01-31", "Europe/Berlin"),
        Symbols(),
        Availability("Asia/Kathmandu"),
    ],
)
def test_a_shape_survives_the_wire(shape):
    request = TradesRequest(symbols=("ETHUSDT",), limit=5, shape=shape, caller=CALLER)
    assert request_from(request_to(request), CALLER) == request


def test_options_that_are_not_set_have_defaults():
    of = pb.TradesRequest(symbols=["ETHUSDT"])
    message = pb.PlanQueryRequest(asof=pb.AsofRequest(of=of, right="BTCUSDT"))
    assert request_from(message, CALLER).shape == Asof(right="BTCUSDT")
    message = pb.PlanQueryRequest(markouts=pb.MarkoutsRequest(of=of))
    assert request_from(message, CALLER).shape == Markouts()
    message = pb.PlanQueryRequest(summary=pb.SummaryRequest(of=of, date="2026-01-31"))
    assert request_from(message, CALLER).shape == Summary("2026-01-31")
    message = pb.PlanQueryRequest(availability=pb.AvailabilityRequest(of=of))
    assert request_from(message, CALLER).shape == Availability()


def test_a_direction_must_be_known():
    message = pb.PlanQueryRequest(asof=pb.AsofRequest(right="A", direction=9))
    with pytest.raises(Invalid, match="direction"):
        request_from(message, CALLER)
