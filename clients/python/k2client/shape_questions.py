"""Converts requests for shapes of trades from the caller's types to the message of the wire.

A shape is asked of the trades that a `TradesQuestion` names; its `columns`, `limit` and `order` are
those of the rows of the answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import TypedDict

from k2.v1 import query_service_pb2
from k2client.errors import Invalid
from k2client.times import Duration, Time, duration_us
from k2client.trades_request import Names, TradesQuestion, choice, wire_duration

HORIZONS = ("1s", "10s", "1m")
_FILLS = {
    "none": query_service_pb2.FILL_NONE,
    "prev": query_service_pb2.FILL_PREV,
    "null": query_service_pb2.FILL_NULL,
}
_DIRECTIONS = {
    "backward": query_service_pb2.ASOF_DIRECTION_BACKWARD,
    "forward": query_service_pb2.ASOF_DIRECTION_FORWARD,
}


class TradesOptions(TypedDict, total=False):
    """The fields of `TradesQuestion` beside `symbols`, and the deadline, as keywords."""

    exchanges: Names | None
    start: Time | None
    end: Time | None
    last: Duration | None
    limit: int | None
    order: str
    columns: Names | None
    consistency: str | None
    as_of: Time | None
    allow_partial: bool


@dataclass(frozen=True)
class ShapeQuestion:
    """A shape of trades.

    Attributes:
        shape: its field in `PlanQueryRequest`.
        of: of which trades.
        options: the other fields of its message.
    """

    shape: str
    of: TradesQuestion
    options: Mapping[str, object] = field(default_factory=dict)

    def request(self) -> query_service_pb2.PlanQueryRequest:
        """Convert the question to its message.

        Raises:
            Invalid: the question has no form on the wire.
        """
        message = query_service_pb2.PlanQueryRequest()
        asked = getattr(message, self.shape)
        asked.CopyFrom(type(asked)(of=self.of.request().trades, **self.options))
        return message


def bars(
    of: TradesQuestion, every: str = "1m", fill: str = "none", tz: str = "UTC"
) -> ShapeQuestion:
    """Make the question for bars.

    Raises:
        Invalid: BAD_REQUEST when an option is of another type, or `fill` is unknown.
    """
    options = {
        "every": text_of("every", every),
        "fill": choice("fill", fill, _FILLS),
        "time_zone": text_of("tz", tz),
    }
    return ShapeQuestion("bars", of, options)


def asof(
    of: TradesQuestion,
    right: str,
    tolerance: Duration | None = None,
    direction: str = "backward",
) -> ShapeQuestion:
    """Make the question for an as-of join; `of` names the left trades.

    Raises:
        Invalid: BAD_REQUEST when an option is of another type, or `direction` is unknown.
    """
    options = {
        "right": text_of("right", right),
        "tolerance": None if tolerance is None else wire_duration(duration_us(tolerance)),
        "direction": choice("direction", direction, _DIRECTIONS),
    }
    return ShapeQuestion("asof", of, options)


def markouts(
    of: TradesQuestion, horizons: Duration | Iterable[Duration] = HORIZONS
) -> ShapeQuestion:
    """Make the question for markouts.

    Raises:
        Invalid: BAD_REQUEST when a horizon is not a duration, or there is none.
    """
    given = [horizons] if isinstance(horizons, str | timedelta) else list(horizons)
    if not given:
        raise Invalid("BAD_REQUEST", "horizons: there is none: write 1s, or several")
    made = [wire_duration(duration_us(each)) for each in given]
    return ShapeQuestion("markouts", of, {"horizons": made})


def summary(of: TradesQuestion, day: date | str, tz: str = "UTC") -> ShapeQuestion:
    """Make the question for a day's summary.

    Raises:
        Invalid: BAD_REQUEST when an option is of another type.
    """
    named = day.isoformat() if isinstance(day, date) else day
    options = {"date": text_of("date", named), "time_zone": text_of("tz", tz)}
    return ShapeQuestion("summary", of, options)


def availability(of: TradesQuestion, tz: str = "UTC") -> ShapeQuestion:
    """Make the question for availability by day.

    Raises:
        Invalid: BAD_REQUEST when the time zone is not a text.
    """
    return ShapeQuestion("availability", of, {"time_zone": text_of("tz", tz)})


def text_of(what: str, given: str) -> str:
    """Return a text that is not empty.

    Raises:
        Invalid: BAD_REQUEST for anything else.
    """
    if not (isinstance(given, str) and given and given.isprintable()):
        raise Invalid("BAD_REQUEST", f"{what}: {given!r} is not a text")
    return given
