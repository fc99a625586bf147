"""The shape of availability: how much there is of each day of each instrument.

The trades themselves show what is missing. A venue counts ids by one, so the ids between two that
follow each other in the answer are a *hole*; it touches the days from that of the trade before it
to that of the trade after it. What feeds and ledger vouch for comes on top: VOID ids are no trades,
and are missing nowhere; ids that the ledger has OPEN are being filled.

The status of a day, the first that applies:

* pending: more may come. No trade of the instrument shows that the day is over, or a hole that
  touches it is being filled.
* missing: it has no trades, and a hole touches it.
* degraded: it has trades, and a hole touches it, or it has the first trade that was ever seen of
  its instrument, and ids before that one exist; `gaps` does not count those.
* available: no id is missing, from the last before the day to the first after it; also of a day
  without trades, whose count is 0.

`missing_ids` counts the ids of all holes that touch a day, also where they touch others: it is not
known on which they traded. Days are whole: a range is lengthened to them, and a day on either side
is read besides. An instrument has rows from its first day to its newest one; the status follows the
ledger as of the reading, all else the read token.

It reads names, times and ids of all trades of its range, and a second time those of blocks of ids
that have holes.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import ClassVar, Final

import pyarrow as pa

from k2.market.offsets import TimeRange
from k2.query.shapes.bar_grid import DAY_US, BarGrid, zone_of
from k2.query.shapes.shape import (
    COUNT,
    HOLES,
    TEXT,
    TRADES,
    VOUCHED,
    Asked,
    Extent,
    Shape,
    Statement,
    columns_of,
)

_SCHEMA = columns_of(
    date=pa.date32(),
    exchange=TEXT,
    symbol=TEXT,
    status=TEXT,
    count=COUNT,
    gaps=COUNT,
    missing_ids=COUNT,
)
_LONGEST_DAY_US: Final = DAY_US + 2 * 3_600_000_000
_BLOCK_IDS: Final = 65_536
_FIRST_ID: Final = 1  # of a venue that counts from the beginning; some count from 0

# Parts are the trades of a day in a block of ids; a block whose ids are not whole is looked into.
_BLOCKS = """
parts AS MATERIALIZED (
  SELECT exchange, symbol, block, day, sum(n) AS n, min(low) AS low, max(high) AS high
  FROM (
    SELECT exchange, symbol, trade_id // {ids} AS block,
      epoch_us(event_time) // {unit} * {unit} AS at_us,
      count(*) AS n, min(trade_id) AS low, max(trade_id) AS high
    FROM {trades} GROUP BY ALL
  ) ASOF JOIN days ON at_us >= edge_us GROUP BY ALL
),
blocks AS MATERIALIZED (
  SELECT exchange, symbol, block, sum(n) AS n, min(low) AS low, max(high) AS high,
    arg_min(day, low) AS low_day, arg_max(day, high) AS high_day
  FROM parts GROUP BY ALL
)"""
_GAPS = """
beside AS (
  SELECT exchange, symbol, id, day, lead(id) OVER ids AS next_id, lead(day) OVER ids AS next_day
  FROM (
    SELECT exchange, symbol, trade_id AS id, trade_id // {ids} AS block,
      epoch_us(event_time) AS at_us
    FROM {trades} AS t SEMI JOIN (FROM blocks WHERE high - low + 1 > n) AS b
      ON t.exchange = b.exchange AND t.symbol = b.symbol AND t.trade_id // {ids} = b.block
  ) ASOF JOIN days ON at_us >= edge_us
  WINDOW ids AS (PARTITION BY exchange, symbol, block ORDER BY id)
  UNION ALL
  SELECT exchange, symbol, high, high_day, lead(low) OVER ids, lead(low_day) OVER ids
  FROM blocks WINDOW ids AS (PARTITION BY exchange, symbol ORDER BY block)
),
between_ids AS (
  SELECT exchange, symbol, id + 1 AS first_id, next_id - 1 AS last_id,
    least(day, next_day) AS first_day, greatest(day, next_day) AS last_day
  FROM beside WHERE next_id > id + 1
),
gaps AS (
  SELECT g.exchange, g.symbol, first_day, last_day,
    CASE WHEN any_value(v.until_us) IS NULL THEN g.last_id - g.first_id + 1
      ELSE sum(least(g.last_id, h.last_id) - greatest(g.first_id, h.first_id) + 1)
        FILTER (h.first_id IS NOT NULL) END AS ids,
    coalesce(bool_or(h.filling), FALSE) AS filling
  FROM between_ids AS g
  LEFT JOIN {vouched} AS v ON g.exchange = v.exchange AND g.symbol = v.symbol
  LEFT JOIN {holes} AS h ON g.exchange = h.exchange AND g.symbol = h.symbol
    AND h.first_id <= g.last_id AND h.last_id >= g.first_id
  GROUP BY g.exchange, g.symbol, first_day, last_day, g.first_id, g.last_id HAVING ids > 0
)"""
_DAYS = """
counted AS (SELECT exchange, symbol, day, sum(n) AS n FROM parts GROUP BY ALL),
calendar AS (
  SELECT exchange, symbol, unnest(range(min(day), max(day) + 1)) AS day,
    min(day) AS oldest, max(day) AS newest, min(low) AS lowest
  FROM parts GROUP BY exchange, symbol
),
judged AS (
  SELECT c.exchange, c.symbol, c.day, any_value(n.n) AS n, count(g.ids) AS gaps,
    sum(g.ids) AS ids, bool_or(day = newest OR coalesce(g.filling, FALSE)) AS pending,
    bool_or(day = oldest AND coalesce(lowest = from_id AND from_id > {first_id}, FALSE)) AS cut
  FROM calendar AS c
  LEFT JOIN counted AS n USING (exchange, symbol, day)
  LEFT JOIN {vouched} AS v USING (exchange, symbol)
  LEFT JOIN gaps AS g ON c.exchange = g.exchange AND c.symbol = g.symbol
    AND c.day BETWEEN first_day AND last_day
  GROUP BY c.exchange, c.symbol, c.day
)
SELECT DATE '0001-01-01' + (day - 1)::INTEGER AS date, exchange, symbol,
  CASE WHEN pending THEN 'pending' WHEN gaps > 0 AND n IS NULL THEN 'missing'
    WHEN gaps > 0 OR cut THEN 'degraded' ELSE 'available' END AS status,
  coalesce(n, 0)::BIGINT AS count, gaps, coalesce(ids, 0)::BIGINT AS missing_ids
FROM judged WHERE day BETWEEN ? AND ?"""


@dataclass(frozen=True)
class Availability(Shape):
    """How much there is of each day.

    Attributes:
        zone: the time zone of the days.
        block_ids: how many ids are looked at as one.
    """

    zone: str = "UTC"
    block_ids: int = _BLOCK_IDS

    name: ClassVar[str] = "availability"
    order: ClassVar[tuple[str, ...]] = ("date", "exchange", "symbol")
    judges: ClassVar[bool] = True

    @property
    def schema(self) -> pa.Schema:
        """The columns of a day."""
        return _SCHEMA

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of trades that name, date and count them."""
        return ("exchange", "symbol", "trade_id", "event_time")

    @property
    def stretch_us(self) -> int | None:
        """A range is lengthened to whole days, and by a day on either side."""
        return 4 * _LONGEST_DAY_US

    def checked(self, asked: Asked) -> Availability:
        """Return the shape.

        Raises:
            Invalid: BAD_REQUEST when there is no such zone.
        """
        zone_of(self.zone)
        return self

    def aligned(self, times: TimeRange) -> TimeRange:
        """Return the whole days of the times."""
        grid, end_us = self._grid, times.end_us
        if end_us is not None and (began_us := grid.floor(end_us)) < end_us:
            end_us = max(end_us, grid.edges(began_us, began_us)[1])
        return grid.aligned(TimeRange(times.start_us, end_us))

    def widened(self, times: TimeRange) -> TimeRange:
        """Return the times to read: the day before and the day after show where ids go on."""
        start_us, end_us = times.start_us, times.end_us
        return TimeRange(
            None if start_us is None else start_us - _LONGEST_DAY_US,
            None if end_us is None else end_us + _LONGEST_DAY_US,
        )

    def statement(self, extent: Extent) -> Statement:
        """Write the statement; see the module."""
        edges = self._grid.edges(extent.low_us, extent.high_us)
        days = [self._day(edge_us).toordinal() for edge_us in edges]
        names = {
            "trades": TRADES,
            "vouched": VOUCHED,
            "holes": HOLES,
            "ids": self.block_ids,
            "first_id": _FIRST_ID,
            "unit": self._grid.unit_us(edges),
        }
        start_us, end_us = extent.range.start_us, extent.range.end_us
        first = days[0] if start_us is None else self._day(start_us).toordinal()
        last = days[-1] if end_us is None else self._day(end_us - 1).toordinal()
        text = (
            "WITH days AS (SELECT unnest(?::BIGINT[]) AS edge_us, unnest(?::BIGINT[]) AS day),"
            f"{_BLOCKS},{_GAPS},{_DAYS}"
        )
        return Statement(text.format(**names), (edges, days, first, last))

    @property
    def _grid(self) -> BarGrid:
        return BarGrid("1d", self.zone)

    def _day(self, time_us: int) -> date:
        """Return the day of a time."""
        moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=time_us)
        return moment.astimezone(zone_of(self.zone)).date()
