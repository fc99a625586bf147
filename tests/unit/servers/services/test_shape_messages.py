"""Every shape survives the wire, and what has no meaning is refused by field."""

import pytest

from k2.errors import Invalid, Reason
from k2.query.request import Caller, TradesRequest
from k2.query.shapes.asof import Asof, Direction
from k2.query.shapes.availability import Availability
from k2.query.shapes.bars import Bars, Fill
from k2.query.shapes.latest import Latest
from k2.query.shapes.markouts import Markouts
from k2.query.shapes.shape import Shape
from k2.query.shapes.summary import Summary
from k2.query.shapes.symbols import Symbols
from k2.query.shapes.trades import TradeRows
from k2.query.shapes.twap import Twap
from k2.query.shapes.vwap import Vwap
from k2.v1 import query_service_pb2 as pb
from servers.services import query_messages
from servers.services.shape_messages import _FORMS

SHAPES = [
    TradeRows(),
    *(Bars(every, fill, "Asia/Tokyo") for every in ("100ms", "1mo") for fill in Fill),
    Vwap(),
    Twap(),
    Latest(),
    Asof("BTCUSDT"),
    Asof("BTCUSDT", 5_000_000, Direction.FORWARD),
    Markouts(),
    Markouts((1, 2_000_000)),
    Summary("2026-01-31", "Europe/Berlin"),
    Symbols(),
    Availability("Europe/Berlin"),
]


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_a_shape_survives_the_wire(shape):
    request = TradesRequest(symbols=("A",), limit=3, columns=("symbol",), shape=shape)
    sent = query_messages.request_to(request).SerializeToString()
    message = pb.PlanQueryRequest.FromString(sent)
    assert message.WhichOneof("query") == shape.name
    assert query_messages.request_from(message, Caller()) == request


def test_every_shape_and_every_message_has_a_form():
    assert {shape.name for shape in SHAPES} == _FORMS.keys()
    assert _FORMS.keys() == {
        one.name for one in Shape.__subclasses__() if one.__module__[:2] == "k2"
    }
    fields = pb.PlanQueryRequest.DESCRIPTOR.oneofs_by_name["query"].fields
    assert [field.name for field in fields] == [form.field for form in _FORMS.values()]


def test_options_that_are_not_set_have_defaults():
    message = pb.PlanQueryRequest(bars=pb.BarsRequest())
    request = query_messages.request_from(message, Caller())
    assert request == TradesRequest(shape=Bars("1m", Fill.NONE, "UTC"))


def test_what_has_no_meaning_is_refused_by_field():
    for message, field in (
        (pb.PlanQueryRequest(), "query"),
        (pb.PlanQueryRequest(bars=pb.BarsRequest(fill=9)), "fill"),
        (pb.PlanQueryRequest(asof=pb.AsofRequest(direction=9)), "direction"),
    ):
        with pytest.raises(Invalid) as caught:
            query_messages.request_from(message, Caller())
        assert caught.value.reason is Reason.BAD_REQUEST
        assert caught.value.metadata == {"field": field}
