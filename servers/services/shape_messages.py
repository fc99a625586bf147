"""Converts shapes between `k2.v1` and K2's own values: a field of the oneof for each shape."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from google.protobuf.descriptor import EnumDescriptor
from google.protobuf.duration_pb2 import Duration

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
from servers.services.wire_values import bad_field, duration_us_from


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


def _asof(message: pb.AsofRequest) -> Shape:
    name = enum_name(pb.AsofDirection.DESCRIPTOR, message.direction, "direction")
    named = name.removeprefix("ASOF_DIRECTION_")
    direction = Direction.BACKWARD if named == "UNSPECIFIED" else Direction[named]
    bound = message.HasField("tolerance")
    tolerance_us = duration_us_from(message.tolerance, "tolerance") if bound else None
    return Asof(message.right, tolerance_us, direction)


def _asof_options(asof: Asof) -> Mapping[str, object]:
    direction = pb.AsofDirection.Value(f"ASOF_DIRECTION_{asof.direction.name}")
    tolerance = None if asof.tolerance_us is None else _duration(asof.tolerance_us)
    return {"right": asof.right, "tolerance": tolerance, "direction": direction}


def _markouts(message: pb.MarkoutsRequest) -> Shape:
    given = tuple(duration_us_from(each, "horizons") for each in message.horizons)
    return Markouts(given) if given else Markouts()


def _markouts_options(markouts: Markouts) -> Mapping[str, object]:
    return {"horizons": [_duration(horizon_us) for horizon_us in markouts.horizons_us]}


def _duration(micros: int) -> Duration:
    made = Duration()
    made.FromMicroseconds(micros)
    return made


def _summary(message: pb.SummaryRequest) -> Shape:
    return Summary(message.date, message.time_zone or Summary.zone)


def _availability(message: pb.AvailabilityRequest) -> Shape:
    return Availability(message.time_zone or Availability.zone)


_FORMS: Final = {
    TradeRows.name: _plain("trades", TradeRows()),
    Bars.name: _Form("bars", _bars, _bars_options),
    Vwap.name: _plain("vwap", Vwap()),
    Twap.name: _plain("twap", Twap()),
    Latest.name: _plain("latest", Latest()),
    Asof.name: _Form("asof", _asof, _asof_options),
    Markouts.name: _Form("markouts", _markouts, _markouts_options),
    Summary.name: _Form(
        "summary", _summary, lambda shape: {"date": shape.day, "time_zone": shape.zone}
    ),
    Symbols.name: _plain("symbols", Symbols()),
    Availability.name: _Form(
        "availability", _availability, lambda shape: {"time_zone": shape.zone}
    ),
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
