"""Writes the SQL of bars: the relations `bars`, with trades, and `filled`, with those between them.

`bars`: exchange, symbol, start_us, end_us and `SUMS`. Trades are first gathered by a unit of time
that crosses the start of no bar; where days of a zone or the calendar decide, what was gathered is
then joined to the days, which are few.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from k2.query.shapes import exact
from k2.query.shapes.bar_grid import BarGrid
from k2.query.shapes.shape import HOLES, TRADES, Statement

SUMS = {
    "open": f"arg_min(price, {exact.ORDER_KEY})",
    "high": "max(price)",
    "low": "min(price)",
    "close": f"arg_max(price, {exact.ORDER_KEY})",
    "volume": "sum(quantity)",
    "quote_volume": f"sum({exact.QUOTE})",
    "count": "count(*)",
    "buy_volume": "sum(CASE WHEN side = 'BUY' THEN quantity ELSE 0 END)",
    "first_id": "min(trade_id)",
    "last_id": "max(trade_id)",
    "first_key": f"min({exact.ORDER_KEY})",
    "last_key": f"max({exact.ORDER_KEY})",
}
SIZES = {
    "volume": "sum(quantity::DOUBLE)",
    "quote_volume": "sum(price::DOUBLE * quantity::DOUBLE)",
}  # never too large
_MERGED = {
    "open": "arg_min(open, first_key)",
    "high": "max(high)",
    "low": "min(low)",
    "close": "arg_max(close, last_key)",
    "first_id": "min(first_id)",
    "last_id": "max(last_id)",
    "first_key": "min(first_key)",
    "last_key": "max(last_key)",
}  # the others are added
_PREVIOUS = (
    "last_value(close IGNORE NULLS) OVER (PARTITION BY exchange, symbol ORDER BY start_us"
    " ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)"
)
NO_PRICES = ("open", "high", "low", "close")
LAST_CLOSE = tuple(f"coalesce({name}, {_PREVIOUS}, seed) AS {name}" for name in NO_PRICES)

# The first and the last trade of a bar, else the one before and the one after it.
OWN = "last_id AS id_before, first_id AS id_after"
_WINDOW = "OVER (PARTITION BY exchange, symbol ORDER BY start_us"
_BEFORE = f"(max(last_id) {_WINDOW}))::HUGEINT"
_AFTER = f"(min(first_id) {_WINDOW} DESC))::HUGEINT"
NEIGHBOURS = (
    f"coalesce(last_id, {_BEFORE}, {_AFTER} - 1) AS id_before,"
    f" coalesce(first_id, {_AFTER}, {_BEFORE} + 1) AS id_after"
)
# Ids are missing in a bar when one of the trades beside them is in it, or it lies between them.
HOLED = (
    f"EXISTS (FROM {HOLES} WHERE {HOLES}.exchange = judged.exchange"
    f" AND {HOLES}.symbol = judged.symbol AND {HOLES}.first_id - 1 <= id_before"
    f" AND {HOLES}.last_id::HUGEINT + 1 >= id_after)"
)


_EVERY = Statement("")


def bars(
    grid: BarGrid,
    edges: Sequence[int],
    sums: Mapping[str, str] = SUMS,
    inside: Statement = _EVERY,
) -> Statement:
    """Write the relation `bars`, and those that it is made of.

    Args:
        grid: where bars begin.
        edges: the days, or bars of the calendar, that hold the trades, and the next one; none
            where bars begin at the multiples of their length.
        sums: what to compute.
        inside: a condition on trades, as `within` writes it.
    """
    step_us = grid.step_us
    unit_us = grid.unit_us(list(edges))
    at = f"epoch_us(event_time) // {unit_us} * {unit_us}"
    chosen = ", ".join(f"{text} AS {name}" for name, text in sums.items())
    gathered = (
        f"SELECT exchange, symbol, {at} AS start_us, {chosen} FROM {TRADES}"
        f" WHERE TRUE{inside.text} GROUP BY ALL"
    )
    if not edges:
        text = f"bars AS (SELECT *, start_us + {step_us} AS end_us FROM ({gathered}))"
        return Statement(text, inside.parameters)
    begin, end = "edge_us", "next_us"
    if step_us:
        begin = f"edge_us + (at_us - edge_us) // {step_us} * {step_us}"
        end = f"least({begin} + {step_us}, next_us)"
    merged = ", ".join(f"{_MERGED.get(name, f'sum({name})')} AS {name}" for name in sums)
    return Statement(
        "edges AS (SELECT unnest(?::BIGINT[]) AS edge_us, unnest(?::BIGINT[]) AS next_us),"
        f" gathered AS (SELECT start_us AS at_us, * EXCLUDE (start_us) FROM ({gathered})),"
        f" bars AS (SELECT exchange, symbol, {begin} AS start_us, {end} AS end_us, {merged}"
        " FROM gathered ASOF JOIN edges ON at_us >= edge_us GROUP BY ALL)",
        (list(edges[:-1]), list(edges[1:]), *inside.parameters),
    )


def seeds(start_us: int | None) -> Statement:
    """Write the relation `seeds`: exchange, symbol and `seed`, the last price before a time."""
    before = "FALSE" if start_us is None else "event_time < make_timestamptz(?)"
    text = (
        f"seeds AS (SELECT exchange, symbol, arg_max(price, {exact.ORDER_KEY}) AS seed"
        f" FROM {TRADES} WHERE {before} GROUP BY ALL)"
    )
    return Statement(text, () if start_us is None else (start_us,))


def filled(
    grid: BarGrid, edges: Sequence[int], times: tuple[int | None, int | None], prices: Sequence[str]
) -> Statement:
    """Write the relation `filled` over `bars`, `edges` and `seeds`.

    Args:
        grid: where bars begin.
        edges: as for `bars`, and over all times to fill.
        times: where to begin and end; None: with the bars of the instrument.
        prices: expressions of the four prices.
    """
    step_us = grid.step_us
    if edges and step_us:
        of_days = f"SELECT unnest(range(edge_us, next_us, {step_us})) AS start_us, next_us"
        end = f"least(start_us + {step_us}, next_us)"
        starts = f"SELECT start_us, {end} AS end_us FROM ({of_days} FROM edges)"
    elif edges:
        starts = "SELECT edge_us AS start_us, next_us AS end_us FROM edges"
    else:
        whole = "(SELECT min(low_us) FROM spans), (SELECT max(high_us) FROM spans)"
        multiples = f"SELECT unnest(range({whole}, {step_us})) AS start_us"
        starts = f"SELECT start_us, start_us + {step_us} AS end_us FROM ({multiples})"
    text = (
        "spans AS (SELECT exchange, symbol, coalesce(?::BIGINT, min(start_us)) AS low_us,"
        " coalesce(?::BIGINT, max(end_us)) AS high_us FROM bars GROUP BY ALL),"
        f" starts AS ({starts}), grid AS (SELECT exchange, symbol, start_us, starts.end_us"
        " FROM spans JOIN starts ON start_us >= low_us AND start_us < high_us),"
        f" filled AS (SELECT exchange, symbol, start_us, grid.end_us, {', '.join(prices)},"
        " coalesce(volume, 0) AS volume, coalesce(quote_volume, 0) AS quote_volume,"
        " coalesce(count, 0) AS count, coalesce(buy_volume, 0) AS buy_volume, first_id, last_id"
        " FROM grid LEFT JOIN bars USING (exchange, symbol, start_us)"
        " LEFT JOIN seeds USING (exchange, symbol))"
    )
    return Statement(text, times)
