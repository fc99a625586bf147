"""Writes the SQL that reads a part of the lake, alone or together with the tail's rows.

Text and parameters only; a name that the caller gives (symbol, exchange) is always a parameter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from k2.market import schema
from k2.query.plan import Plan
from k2.query.request import Order, TradesRequest

TAIL_TABLE = "tail"
IN_TAIL = "in_tail"
_FILES = "read_parquet(?, hive_partitioning = FALSE)"
LakeFiles = Mapping[tuple[str, ...], Sequence[str]]  # paths, by the columns that they lack
ORDER_COLUMNS = ("event_time", "exchange", "symbol", "trade_id")


@dataclass(frozen=True)
class Statement:
    """SQL text, and the values of its `?` in order."""

    text: str
    parameters: tuple[object, ...]


def needed_columns(request: TradesRequest) -> tuple[str, ...]:
    """Return the columns to read: those to return and those that order the rows."""
    wanted = {*request.output_columns, *ORDER_COLUMNS}
    return tuple(name for name in schema.TRADE.columns if name in wanted)


def lake_rows(request: TradesRequest, plan: Plan, files: LakeFiles, limit: int | None) -> Statement:
    """Write the statement for the lake's rows of a plan, with `needed_columns`.

    Args:
        request: what is requested.
        plan: the part to read.
        files: its files.
        limit: maximum number of rows, in canonical order; None gives all, in no order.
    """
    where, values = _conditions(request, plan)
    needed = needed_columns(request)
    source, paths = _source(needed, files)
    text = f"SELECT {', '.join(needed)} FROM {source}{where}"
    if limit is not None:
        text += f"{_order(request)} LIMIT {limit}"
    return Statement(text, (*paths, *values))


def ordered_rows(request: TradesRequest, plan: Plan, files: LakeFiles) -> Statement:
    """Write the statement for all rows of a plan in order, with `needed_columns` and `in_tail`.

    The tail's rows are read from a table named `TAIL_TABLE`, with `needed_columns`.
    """
    columns = needed_columns(request)
    needed = ", ".join(columns)
    source, paths = _source(columns, files)
    where, values = _conditions(request, plan)
    text = (
        f"SELECT {needed}, {IN_TAIL} FROM ("
        f"SELECT {needed}, FALSE AS {IN_TAIL} FROM {source}{where}"
        f" UNION ALL SELECT {needed}, TRUE AS {IN_TAIL} FROM {TAIL_TABLE})"
    )
    return Statement(text + _order(request), (*paths, *values))


def _source(columns: Sequence[str], files: LakeFiles) -> tuple[str, list[list[str]]]:
    """Return the FROM clause for these columns, and the paths of its files.

    Files that lack a column are read by a query of their own: DuckDB's `union_by_name` would open
    every file before the first is read.
    """
    if list(files) == [()]:
        return _FILES, [list(files[()])]
    parts = [
        ", ".join(f"NULL AS {name}" if name in lack else name for name in columns) for lack in files
    ]
    union = " UNION ALL ".join(f"SELECT {part} FROM {_FILES}" for part in parts)
    return f"({union})", [list(paths) for paths in files.values()]


def _order(request: TradesRequest) -> str:
    direction = "DESC" if request.order is Order.DESC else "ASC"
    return f" ORDER BY {', '.join(f'{name} {direction}' for name in _order_columns(request))}"


def _order_columns(request: TradesRequest) -> tuple[str, ...]:
    """Return the canonical order without the columns that are equal in all rows."""
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
    if plan.newer_epochs:
        conditions.append("tape_epoch <= ?")
        values.append(plan.epoch)
    for partition, end in sorted(plan.lake_ends.items()):
        conditions.append("NOT (tape_epoch = ? AND tape_partition = ? AND tape_offset >= ?)")
        values += (plan.epoch, partition, end)
    return (f" WHERE {' AND '.join(conditions)}" if conditions else ""), values
