"""Writes the SQL that reads a part of the lake, alone or with the tail's rows beside it.

Text and parameters only; what a caller names (symbols, exchanges) is always a parameter.
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
    """Columns to read: what to return and what orders it."""
    wanted = {*request.output_columns, *ORDER_COLUMNS}
    return tuple(name for name in schema.TRADE.columns if name in wanted)


def lake_rows(request: TradesRequest, plan: Plan, files: LakeFiles, limit: int | None) -> Statement:
    """The lake's rows of a plan, with `needed_columns`; the first ones in order with a limit.

    Args:
        request: what is asked.
        plan: the part to read.
        files: its files.
        limit: at most so many rows, in canonical order; None gives all, in no order.
    """
    where, values = _conditions(request, plan)
    needed = needed_columns(request)
    source, paths = _source(needed, files)
    text = f"SELECT {', '.join(needed)} FROM {source}{where}"
    if limit is not None:
        text += f"{_order(request)} LIMIT {limit}"
    return Statement(text, (*paths, *values))


def ordered_rows(request: TradesRequest, plan: Plan, files: LakeFiles) -> Statement:
    """All rows of a plan in canonical order, with `needed_columns` and `in_tail`.

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
    """What to select these columns from, and the paths of its files.

    Files that lack a column are read beside the others: what DuckDB has for it (`union_by_name`)
    opens every file before the first is read.
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
    if plan.newer_epochs:
        conditions.append("tape_epoch <= ?")
        values.append(plan.epoch)
    for partition, end in sorted(plan.lake_ends.items()):
        conditions.append("NOT (tape_epoch = ? AND tape_partition = ? AND tape_offset >= ?)")
        values += (plan.epoch, partition, end)
    return (f" WHERE {' AND '.join(conditions)}" if conditions else ""), values
