"""Writes the SQL that reads a part of the lake, with the tail's rows beside it.

Text and parameters only; what a caller names (symbols, exchanges) is always a parameter. Rows carry
`in_tail`, so that the answer can say how many came from where.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from k2.market import schema
from k2.query.plan import Plan
from k2.query.request import Order, TradesRequest

TAIL_TABLE = "tail"
IN_TAIL = "in_tail"
ORDER_COLUMNS = ("event_time", "exchange", "symbol", "trade_id")


@dataclass(frozen=True)
class Statement:
    """SQL text, and the values of its `?` in order."""

    text: str
    parameters: tuple[object, ...]


def needed_columns(request: TradesRequest) -> tuple[str, ...]:
    """Columns to read: what to return and what orders it."""
    wanted = {*request.output_columns, *ORDER_COLUMNS}
    return tuple(name for name in schema.TRADE.columns if name in wanted)


def trades(
    request: TradesRequest, plan: Plan, paths: Sequence[str], limit: int | None, *, tail: bool
) -> Statement:
    """The rows of a plan in canonical order.

    Args:
        request: what is asked.
        plan: the part to read.
        paths: its files.
        limit: at most so many rows.
        tail: whether rows of the tail are in a table of that name, with `needed_columns`.
    """
    needed = ", ".join(needed_columns(request))
    where, values = _conditions(request, plan)
    text = (
        f"SELECT {needed}, FALSE AS {IN_TAIL}"
        f" FROM read_parquet(?, hive_partitioning = FALSE){where}"
    )
    if tail:
        text += f" UNION ALL SELECT {needed}, TRUE AS {IN_TAIL} FROM {TAIL_TABLE}"
    direction = "DESC" if request.order is Order.DESC else "ASC"
    order = ", ".join(f"{name} {direction}" for name in _order_columns(request))
    returned = ", ".join((*request.output_columns, IN_TAIL))
    text = f"SELECT {returned} FROM ({text}) ORDER BY {order}"
    if limit is not None:
        text += f" LIMIT {limit}"
    return Statement(text, (list(paths), *values))


def _order_columns(request: TradesRequest) -> tuple[str, ...]:
    """The canonical order without what is the same in all rows."""
    alone = {"exchange": len(request.exchanges) == 1, "symbol": len(request.symbols) == 1}
    return tuple(name for name in ORDER_COLUMNS if not alone.get(name, False))


def _conditions(request: TradesRequest, plan: Plan) -> tuple[str, list[object]]:
    conditions: list[str] = []
    values: list[object] = []
    for column, names in (("symbol", request.symbols), ("exchange", request.exchanges)):
        if names:
            conditions.append(f"{column} IN ({', '.join('?' * len(names))})")
            values += names
    for comparison, time_us in ((">=", plan.times.start_us), ("<", plan.times.end_us)):
        if time_us is not None:
            conditions.append(f"event_time {comparison} make_timestamptz(?)")
            values.append(time_us)
    for partition, end in sorted(plan.lake_ends.items()):
        conditions.append("NOT (tape_partition = ? AND tape_offset >= ?)")
        values += (partition, end)
    return (f" WHERE {' AND '.join(conditions)}" if conditions else ""), values
