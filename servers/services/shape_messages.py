"""Converts shapes between `k2.v1` and K2's own values: a field of the oneof for each shape."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from google.protobuf.descriptor import EnumDescriptor

from k2.query.shapes.bars import Bars, Fill
from k2.query.shapes.latest import Latest
from k2.query.shapes.shape import Shape
from k2.query.shapes.trades import TradeRows
from k2.query.shapes.twap import Twap
from k2.query.shapes.vwap import Vwap
from k2.v1 import query_service_pb2 as pb
from servers.services.wire_values import bad_field


@dataclass(frozen=True)
class _Form:
    """How a shape travels.

    Attributes:
        field: of `PlanQueryRequest.query`.
        read: makes the shape of its message.
        options: returns the fields of the message of a shape, beside `of`.
    """

    field: str
    read: Callable[[Any], Shape]
    options: Callable[[Any], Mapping[str, object]]


def _plain(field: str, shape: Shape) -> _Form:
    """Make the form of a shape without options."""
    return _Form(field, lambda _: shape, lambda _: {})


def _bars(message: pb.BarsRequest) -> Shape:
    name = enum_name(pb.Fill.DESCRIPTOR, message.fill, "fill")
    fill = Fill.NONE if name == "FILL_UNSPECIFIED" else Fill[name.removeprefix("FILL_")]
    return Bars(message.every or Bars.every, fill, message.time_zone or Bars.zone)


def _bars_options(bars: Bars) -> Mapping[str, object]:
    fill = pb.Fill.Value(f"FILL_{bars.fill.name}")
    return {"every": bars.every, "fill": fill, "time_zone": bars.zone}


_FORMS: Final = {
    TradeRows.name: _plain("trades", TradeRows()),
    Bars.name: _Form("bars", _bars, _bars_options),
    Vwap.name: _plain("vwap", Vwap()),
    Twap.name: _plain("twap", Twap()),
    Latest.name: _plain("latest", Latest()),
}
_BY_FIELD: Final = {form.field: form for form in _FORMS.values()}


def shape_from(message: pb.PlanQueryRequest) -> tuple[Shape, pb.TradesRequest]:
    """Return the shape that a request is for, and of which trades.

    Raises:
        Invalid: BAD_REQUEST when it asks nothing, or an option has no meaning.
    """
    field = message.WhichOneof("query")
    if field not in _BY_FIELD:
        asked = ", ".join(f"`{name}`" for name in _BY_FIELD)
        raise bad_field("query", f"the request asks nothing: set one of {asked}")
    asked_for = getattr(message, field)
    trades = asked_for if isinstance(asked_for, pb.TradesRequest) else asked_for.of
    return _BY_FIELD[field].read(asked_for), trades


def shape_to(shape: Shape, trades: pb.TradesRequest) -> pb.PlanQueryRequest:
    """Make the message that `shape_from` reads back."""
    form = _FORMS[shape.name]
    message = pb.PlanQueryRequest()
    asked = getattr(message, form.field)
    if isinstance(asked, pb.TradesRequest):
        asked.CopyFrom(trades)
    else:
        asked.CopyFrom(type(asked)(of=trades, **form.options(shape)))
    return message


def enum_name(enum: EnumDescriptor, number: int, field: str) -> str:
    """Return the name of a value.

    Raises:
        Invalid: BAD_REQUEST when it has none.
    """
    if number not in enum.values_by_number:
        raise bad_field(field, f"{field} has no value {number}")
    name: str = enum.values_by_number[number].name
    return name
