"""Writes the SQL that reads a part of the lake, alone or together with the tail's rows.

Text and parameters only; a name that the caller gives (symbol, exchange) is always a parameter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from k2.market import schema
from k2.market.files import FileForm
from k2.query.plan import Plan
from k2.query.request import Order, TradesRequest
from k2.query.shapes.shape import TRADES, Reading, Statement

TAIL_TABLE = "tail"
IN_TAIL = "in_tail"
_FILES = "read_parquet(?, hive_partitioning = FALSE)"
LakeFiles = Mapping[FileForm, Sequence[str]]  # paths, by the form of their files
_CONDITIONED = (  # by `_conditions`
    *("exchange", "symbol", "event_time"),
    *("tape_epoch", "tape_partition", "tape_offset"),
)
ORDER_COLUMNS = ("event_time", "exchange", "symbol", "trade_id")


def needed_columns(request: TradesRequest) -> tuple[str, ...]:
    """Return the columns of trades to read: those to return and their order's, or the shape's."""
    of_rows = request.shape.reading is not Reading.TABLE
    wanted = {*request.output_columns, *ORDER_COLUMNS} if of_rows else {*request.shape.columns}
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


def shaped_rows(request: TradesRequest, plan: Plan, files: LakeFiles, made: Statement) -> Statement:
    """Write the statement for the rows that a shape's statement makes of a plan's trades.

    Args:
        request: what is requested, with the order and the limit of these rows.
        plan: what to read.
        files: its files; the tail's rows are read from a table named `TAIL_TABLE`.
        made: the shape's statement.
    """
    limit = "" if request.limit is None else f" LIMIT {request.limit}"
    rows = over_trades(request, plan, files, made, ", ".join(request.output_columns))
    order = _order(request, _varying(request, request.shape.order, request.symbols))
    return Statement(f"{rows.text}{order}{limit}", rows.parameters)


def over_trades(
    request: TradesRequest, plan: Plan, files: LakeFiles, made: Statement, columns: str = "*"
) -> Statement:
    """Write a statement that reads the relation `TRADES`, and chooses columns of what it makes."""
    needed = needed_columns(request)
    chosen = ", ".join(needed)
    trades, parameters = f"SELECT {chosen} FROM {TAIL_TABLE}", made.parameters
    if files:
        source, paths = _source(needed, files)
        where, values = _conditions(request, plan)
        trades = f"SELECT {chosen} FROM {source}{where} UNION ALL {trades}"
        parameters = (*paths, *values, *parameters)
    text = (
        f"WITH {TRADES} AS NOT MATERIALIZED ({trades}), shaped AS ({made.text})"
        f" SELECT {columns} FROM shaped"
    )
    return Statement(text, parameters)


def _source(columns: Sequence[str], files: LakeFiles) -> tuple[str, list[list[str]]]:
    """Return the FROM clause for these columns, and the paths of its files.

    Files of each form are read by a query of their own: DuckDB takes the columns and their types
    from the first file, and its `union_by_name` would open every file before the first is read.
    Quantity is decimal(18,8) where all files are narrow, else decimal(38,8): arithmetic casts it.
    """
    if len(files) == 1 and not any(form.lacks for form in files):
        return _FILES, [list(paths) for paths in files.values()]
    names = dict.fromkeys((*columns, *_CONDITIONED))
    parts = [
        ", ".join(f"NULL AS {name}" if name in form.lacks else name for name in names)
        for form in files
    ]
    union = " UNION ALL ".join(f"SELECT {part} FROM {_FILES}" for part in parts)
    return f"({union})", [list(paths) for paths in files.values()]


def _order(request: TradesRequest, columns: Sequence[str] | None = None) -> str:
    """Write the order by columns, the canonical ones by default."""
    if columns is None:
        columns = _varying(request, ORDER_COLUMNS, request.read_symbols)
    direction = "DESC" if request.order is Order.DESC else "ASC"
    names = ", ".join(f"{name} {direction}" for name in columns)
    return f" ORDER BY {names}" if names else ""


def _varying(
    request: TradesRequest, columns: Sequence[str], symbols: Sequence[str]
) -> tuple[str, ...]:
    """Return the columns but for those that are equal in all rows, which are of these symbols."""
    alone = {"exchange": len(request.exchanges) == 1, "symbol": len(symbols) == 1}
    return tuple(name for name in columns if not alone.get(name, False))


def _conditions(request: TradesRequest, plan: Plan) -> tuple[str, list[object]]:
    conditions: list[str] = []
    values: list[object] = []
    for column, names in (("symbol", request.read_symbols), ("exchange", request.exchanges)):
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
