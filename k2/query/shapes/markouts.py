"""The shape of markouts: how the price moved after each trade, in favour of its aggressor.

One row for each trade and horizon. `price_then` is the price of the last trade of the instrument at
or before the time of the trade plus the horizon: at the least its own. `markout` is
`price_then - price` of a BUY and the reverse of a SELL, in the quote currency, exact; prices are
positive, so it always fits a price's type.

Both are null where that price is not known yet, because no trade of the instrument is known at the
moment or after it. To find one, trades up to an hour after the last horizon are read: of an
instrument that rests for longer the last trades of a range have nulls, and a wider range fills
them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Final

import pyarrow as pa

from k2.market import schema
from k2.market.offsets import TimeRange
from k2.query.shapes import exact
from k2.query.shapes.shape import (
    COUNT,
    PRICE,
    REST_US,
    TRADES,
    Asked,
    Extent,
    Shape,
    Statement,
    bad_option,
    within,
)

HORIZONS_MAX: Final = 16
_HORIZON_MAX_US: Final = 24 * 3_600_000_000


@dataclass(frozen=True)
class Markouts(Shape):
    """Trades with what their price was some time later.

    Attributes:
        horizons_us: how long after each trade, ascending, each once.
    """

    horizons_us: tuple[int, ...] = (1_000_000, 10_000_000, 60_000_000)

    name: ClassVar[str] = "markouts"
    order: ClassVar[tuple[str, ...]] = (
        "event_time",
        "exchange",
        "symbol",
        "trade_id",
        "horizon_us",
    )

    @property
    def schema(self) -> pa.Schema:
        """The columns of a trade, then those of a horizon."""
        horizon = [pa.field("horizon_us", COUNT, nullable=False)]
        prices = [pa.field(name, PRICE) for name in ("price_then", "markout")]
        return pa.schema([*schema.arrow_schema(schema.TRADE), *horizon, *prices])

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of a trade."""
        return schema.TRADE.columns

    @property
    def stretch_us(self) -> int | None:
        """A range is lengthened by the longest horizon and the rest after it."""
        return max(self.horizons_us) + REST_US

    def checked(self, asked: Asked) -> Markouts:
        """Return the shape with its horizons in order.

        Raises:
            Invalid: BAD_REQUEST when there are none or too many, or one is no time from 1 us to a
                day.
        """
        horizons_us = tuple(sorted(set(self.horizons_us)))
        if not 1 <= len(horizons_us) <= HORIZONS_MAX:
            raise bad_option(f"{len(horizons_us)} horizons are not between 1 and {HORIZONS_MAX}")
        for horizon_us in horizons_us:
            if not 1 <= horizon_us <= _HORIZON_MAX_US:
                raise bad_option(f"a horizon of {horizon_us} us is not between 1 us and 1 day")
        return replace(self, horizons_us=horizons_us)

    def widened(self, times: TimeRange) -> TimeRange:
        """Return the times to read: beyond the end so far that prices are known there."""
        if times.end_us is None:
            return times
        return TimeRange(times.start_us, times.end_us + max(self.horizons_us) + REST_US)

    def statement(self, extent: Extent) -> Statement:
        """Write the statement; see the module."""
        inside = within(extent.range)
        horizons = ", ".join(f"({horizon_us}::BIGINT)" for horizon_us in self.horizons_us)
        moved, edge = "price_then - price", exact.order_key("then_us", exact.ID_MAX)
        text = (
            "WITH newest AS (SELECT exchange, symbol, max(epoch_us(event_time)) AS newest_us"
            f" FROM {TRADES} GROUP BY ALL),"
            f" chosen AS (SELECT *, epoch_us(event_time) + horizon_us AS then_us FROM {TRADES},"
            f" (VALUES {horizons}) AS horizons(horizon_us) WHERE TRUE{inside.text}),"
            " priced AS (SELECT chosen.*, CASE WHEN then_us <= newest_us THEN later.price END"
            " AS price_then FROM chosen JOIN newest USING (exchange, symbol)"
            f" ASOF LEFT JOIN (SELECT exchange, symbol, price, {exact.ORDER_KEY} AS place"
            f" FROM {TRADES}) AS later ON chosen.exchange = later.exchange"
            f" AND chosen.symbol = later.symbol AND {edge} >= place)"
            f" SELECT *, CASE WHEN side = 'BUY' THEN {moved} ELSE -({moved}) END AS markout"
            " FROM priced"
        )
        return Statement(text, inside.parameters)
