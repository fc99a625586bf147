"""Reads what a plan names and streams it in canonical order; the only module that uses DuckDB.

A plan is cut into parts of its times, a bounded number of rows each. A part that reads only the
tail is answered from its arrays; a part that reads files is one SQL statement over those files,
put in order with the tail's rows of that part. Parts follow each other in canonical order, so the
whole is never in memory, and a limit ends the reading early: a request for the newest rows reads
the newest files only.

The newest trade of each instrument is searched in such parts too, the newest first. Every other
shape is one statement over all files of the plan and the tail's rows (`query/shapes`); its order is
total, and each batch carries a digest of its last row, so its streams are resumed like those of
trades, by computing the answer again.

Rows that are put in order here count against one bound for all answers, read or paused; beyond it
DuckDB sorts, which has a bound of its own and a disk.

One database in memory serves all queries: its memory limit, threads and temporary directory bound
them together. Its configuration is locked, and it can read no file outside the warehouse. It runs
K2's own statements only, never a user's SQL.
"""

from __future__ import annotations

import contextlib
import functools
import re
import threading
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from k2 import limits, tracing
from k2.clock import Clock
from k2.errors import Data, Internal, K2Error, Overloaded, Reason, Unavailable
from k2.market import schema
from k2.market.instrument import Instrument
from k2.market.offsets import TimeRange
from k2.query import sql
from k2.query.admission import MemoryBudget, MemoryShare
from k2.query.batches import (
    Indices,
    bounded,
    canonical_order,
    conformed,
    digest_key,
    first_rows,
    narrowed,
    rows_of,
)
from k2.query.plan import Plan, RowsOverTime
from k2.query.provenance import holes_table, vouched_table
from k2.query.request import Order, TradesRequest
from k2.query.shapes.shape import HOLES, VOUCHED, Extent, Reading, Statement, too_large
from k2.query.shapes.trades import TradeRows
from k2.query.view import OpenQuery
from k2.tail.chunk import TailRows

_ROWS_FIRST = 100_000  # of the first part, so that the first batch comes soon
_ROWS_MAX = 200_000  # of a part, as estimated
_GROWTH = 4.0
_FILE_SCHEME = "file://"
_PATTERN = re.compile(r"[*?[]")
_DOES_NOT_FIT = "Out of Range Error"
_NEVER_US = -(2**63)

RowKey = tuple[int, str, str, int]  # event time in microseconds, exchange, symbol, trade id
_Keys = Callable[[int], pa.RecordBatch]  # rows from one of a batch on, with their ORDER_COLUMNS
_Keyed = tuple[pa.RecordBatch, _Keys]


class Executor:
    """Runs opened queries. Thread-safe; close it when all answers are closed.

    Attributes:
        memory: counts the bytes that its answers hold.

    Args:
        clock: for deadlines.
        warehouse: the lake's folder, a path or a file URI: the only place it reads from.
        temp_dir: where sorts that outgrow the memory spill.
        memory_bytes: bound of all running queries together.
        threads: of all running queries together.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        warehouse: str,
        temp_dir: Path,
        memory_bytes: int = limits.QUERY_MEMORY_BYTES_MAX,
        threads: int = limits.QUERY_THREADS,
    ) -> None:
        self._clock = clock
        self.memory = MemoryBudget()
        self._running: set[ResultStream] = set()
        self._watching = threading.Condition()
        self._closed = False
        self._database = _database(warehouse, temp_dir, memory_bytes, threads)
        self._watcher = threading.Thread(target=self._watch, name="deadlines", daemon=True)
        self._watcher.start()

    def run(self, opened: OpenQuery, deadline_s: float = limits.QUERY_DEADLINE_S) -> ResultStream:
        """Start to answer.

        Args:
            opened: what to read.
            deadline_s: seconds from now after which the answer ends in an error.
        """
        ends_at_s = self._clock.monotonic_s() + deadline_s
        cursor = self._database.cursor()
        answer = ResultStream(opened, cursor, self._clock, ends_at_s, self.memory, self._forget)
        with self._watching:
            self._running.add(answer)
            self._watching.notify()
        return answer

    def close(self) -> None:
        """End all answers and the database."""
        with self._watching:
            self._closed = True
            running = list(self._running)
            self._watching.notify()
        self._watcher.join()
        for answer in running:
            answer.close()
        self._database.close()

    def _forget(self, answer: ResultStream) -> None:
        with self._watching:
            self._running.discard(answer)

    def _watch(self) -> None:
        """Interrupt answers whose deadline has passed, also inside a statement."""
        with self._watching:
            while not self._closed:
                now_s = self._clock.monotonic_s()
                for answer in self._running:
                    if now_s >= answer.ends_at_s:
                        answer.interrupt()
                self._watching.wait(limits.DEADLINE_POLL_S if self._running else None)


class ResultStream:
    """The rows of one query as an iterator of record batches, each within `limits`.

    One thread iterates; any thread may close it, which frees the worker at once.

    Attributes:
        schema: the columns of the request, with the types of `market.schema`.
        opened: the query that is answered, with its provenance; holds no chunk once the answer has
            ended.
        ends_at_s: deadline, on the monotonic clock.
        rows_lake, rows_tail: rows returned so far; of a shape, rows that were read, or are in files
            that were read.
        resume_after: one batch ends with the row of this number, counted from 1; 0 is none.
        last_key: the canonical key of the last row of the batch returned last.
    """

    def __init__(
        self,
        opened: OpenQuery,
        cursor: duckdb.DuckDBPyConnection,
        clock: Clock,
        ends_at_s: float,
        memory: MemoryBudget,
        forget: Callable[[ResultStream], None],
    ) -> None:
        trade = schema.arrow_schema(schema.TRADE)
        self.opened = opened
        self.schema = opened.request.output_schema
        self.ends_at_s = ends_at_s
        self.rows_lake = 0
        self.rows_tail = 0
        self.resume_after = 0
        self.last_key: RowKey = (0, "", "", 0)
        self._given = 0
        self._cursor = cursor
        self._clock = clock
        self._memory = memory
        self._forget = forget
        self._using = threading.Lock()
        self._done = False
        self._cancelled = False
        self._request = _walked(opened.request)
        self._rows = self._request.output_schema
        self._needed = pa.schema([trade.field(name) for name in sql.needed_columns(self._request)])
        self._batch_rows = rows_of(limits.FLIGHT_BATCH_BYTES_MAX, self.schema)
        self._source = {
            Reading.ROWS: self._batches,
            Reading.NEWEST: self._newest,
            Reading.TABLE: self._table,
        }[opened.request.shape.reading]()
        self._span = tracing.begin(tracing.EXECUTE, links=opened.commits)

    def __iter__(self) -> ResultStream:
        return self

    def __next__(self) -> pa.RecordBatch:
        """Return the next batch.

        Raises:
            Overloaded: DEADLINE_EXCEEDED; TOO_MANY_QUERIES when the running queries need too much
                memory.
            Unavailable: LAKE_UNAVAILABLE when a file cannot be read.
            Data: LAKE_CORRUPT when it is no Parquet file.
        """
        with self._using:
            try:
                batch = None if self._done else self._next()
            except BaseException as error:
                self._finish(error)
                raise
            if batch is None:
                self._finish()
                raise StopIteration
            return batch

    def close(self) -> None:
        """Stop, also inside a statement, and free everything."""
        self._cancelled = True
        self.interrupt()
        with self._using:
            self._finish()

    def interrupt(self) -> None:
        """End the running statement, if any."""
        if not self._done:
            with contextlib.suppress(duckdb.Error):
                self._cursor.interrupt()

    def _next(self) -> pa.RecordBatch | None:
        if self._cancelled:
            return None
        if self._clock.monotonic_s() >= self.ends_at_s:
            raise too_late()
        try:
            return next(self._source, None)
        except (duckdb.Error, pa.ArrowException, OSError) as error:
            if self._cancelled:
                return None
            if self._clock.monotonic_s() >= self.ends_at_s:
                raise too_late() from error
            raise _translated(error) from error

    def _finish(self, error: BaseException | None = None) -> None:
        if not self._done:
            self._done = True
            self._span.set({tracing.ROWS_LAKE: self.rows_lake, tracing.ROWS_TAIL: self.rows_tail})
            self._span.end(error)
            self._source.close()
            self._cursor.close()
            self.opened = replace(self.opened, held={})
            self._forget(self)

    # --- reading --------------------------------------------------------------------------------

    def _batches(self) -> Generator[pa.RecordBatch, None, None]:
        """Yield all batches, part by part."""
        request = self._request
        over_time, left = RowsOverTime(self.opened.plan), request.limit
        wanted = _rows_first(request.limit)
        while left is None or left > 0:
            part = over_time.take(wanted, descending=request.order is Order.DESC)
            if part is None:
                return
            before = self.rows_lake + self.rows_tail
            for batch, keys in self._part(part, left):
                yield from self._sent(batch, keys)
            given = self.rows_lake + self.rows_tail - before
            left = None if left is None else left - given
            # Files hold other symbols too: where few rows were asked for, parts may be larger.
            useful = max(given / wanted, 1 / 64)
            wanted = min(wanted * _GROWTH, _ROWS_MAX / useful)

    def _sent(self, batch: pa.RecordBatch, keys: _Keys) -> Iterator[pa.RecordBatch]:
        """Split a batch into pieces small enough to send, cut at `resume_after`."""
        cut = min(max(self.resume_after - self._given, 0), batch.num_rows)
        self._given += batch.num_rows
        done = 0
        for part in (batch.slice(0, cut), batch.slice(cut)):
            for piece in bounded(part) if part.num_rows else ():
                done += piece.num_rows
                self.last_key = _key(keys(done - 1))
                yield piece

    def _tail(self, part: Plan) -> TailRows:
        held, cuts = self.opened.held, part.cuts
        return TailRows(
            (
                held[chunk.chunk_id].cut(cuts[chunk.partition].low, cuts[chunk.partition].end)
                for chunk in part.chunks
            ),
            part.times,
        )

    def _part(self, part: Plan, limit: int | None) -> Iterator[_Keyed]:
        tail = self._tail(part)
        return self._with_files(part, tail, limit) if len(part.files) else self._of(tail, limit)

    def _of(self, tail: TailRows, limit: int | None) -> Iterator[_Keyed]:
        """Yield rows of the tail alone."""
        request = self._request
        order = tail.canonical(descending=request.order is Order.DESC, limit=limit)
        for start in range(0, len(order), self._batch_rows):
            chosen = order[start : start + self._batch_rows]
            batch = tail.batch(request.output_columns, chosen)
            self.rows_tail += batch.num_rows

            def keys(row: int, chosen: Indices = chosen) -> pa.RecordBatch:
                return tail.batch(sql.ORDER_COLUMNS, chosen[row : row + 1])

            yield batch, keys

    def _with_files(self, part: Plan, tail: TailRows, limit: int | None) -> Iterator[_Keyed]:
        """Yield rows of the lake, and of the tail where it has any.

        The lake's rows are mostly in order by symbol and time, so ordering them here costs half of
        what DuckDB's sort does; a part much larger than estimated is left to DuckDB, which can sort
        on disk.
        """
        files = self._files(part)
        with MemoryShare(self._memory) as share:
            ordered = self._ordered(self._gathered(part, files, limit, share), tail, share)
            if ordered is not None:
                yield from self._taken(*ordered, limit)
                return
        span = self._reading_lake(part)  # current in no thread: several may make the batches
        try:
            yield from self._sorted_by_duckdb(part, files, tail, limit)
        finally:
            span.end()

    def _files(self, part: Plan) -> sql.LakeFiles:
        if not len(part.files):
            return {}
        return {
            form: [_named(path) for path in paths]
            for form, paths in part.files.paths_by_form(self._needed.names).items()
        }

    def _gathered(
        self, part: Plan, files: sql.LakeFiles, limit: int | None, share: MemoryShare
    ) -> pa.RecordBatch | None:
        """Read the lake's rows of a part; None when they are too many to hold."""
        with self._reading_lake(part):
            return self._gathered_rows(part, files, limit, share)

    def _reading_lake(self, part: Plan) -> tracing.Span:
        attributes: dict[str, tracing.Value] = {
            tracing.DB_SYSTEM: "duckdb",
            tracing.DB_SUMMARY: f"SELECT {self.opened.request.shape.name}",
            tracing.FILES: len(part.files),
        }
        return tracing.joined(tracing.LAKE, self._span.traceparents, attributes)

    def _gathered_rows(
        self, part: Plan, files: sql.LakeFiles, limit: int | None, share: MemoryShare
    ) -> pa.RecordBatch | None:
        first = limit if limit is not None and limit <= _ROWS_FIRST else None
        reader = self._reader(sql.lake_rows(self._request, part, files, first))
        batches = []
        for batch in reader:
            if not share.take(batch.nbytes):
                return None
            batches.append(batch)
        table = pa.Table.from_batches(batches, reader.schema).combine_chunks()
        whole = table.to_batches() or [pa.RecordBatch.from_pylist([], schema=reader.schema)]
        return conformed(whole[0], self._needed)

    def _ordered(
        self, lake: pa.RecordBatch | None, tail: TailRows, share: MemoryShare
    ) -> tuple[pa.RecordBatch, Indices, int] | None:
        """Return rows of both, their order, and how many are the lake's; None when too many."""
        if lake is None:
            return None
        rows = lake
        if len(tail):
            beside = tail.batch(self._needed.names, tail.canonical(descending=False, limit=None))
            if not share.take(beside.nbytes):
                return None
            rows = pa.concat_batches([lake, beside])
        order = canonical_order(rows)
        return rows, order, lake.num_rows

    def _taken(
        self, rows: pa.RecordBatch, order: Indices, of_lake: int, limit: int | None
    ) -> Iterator[_Keyed]:
        descending = self._request.order is Order.DESC
        order = (order[::-1] if descending else order)[:limit]
        ordering, rows = rows.select(sql.ORDER_COLUMNS), rows.select(self._rows.names)
        for start in range(0, len(order), self._batch_rows):
            chosen = order[start : start + self._batch_rows]
            in_lake = int((chosen < of_lake).sum())
            self.rows_lake += in_lake
            self.rows_tail += len(chosen) - in_lake

            def keys(row: int, chosen: Indices = chosen) -> pa.RecordBatch:
                return ordering.slice(int(chosen[row]), 1)

            yield rows.take(pa.array(chosen)), keys

    def _sorted_by_duckdb(
        self, part: Plan, files: sql.LakeFiles, tail: TailRows, limit: int | None
    ) -> Iterator[_Keyed]:
        order = tail.canonical(descending=False, limit=None)
        beside = tail.batch(self._needed.names, order)
        self._cursor.register(sql.TAIL_TABLE, pa.Table.from_batches([beside]))
        left = limit
        with MemoryShare(self._memory) as share:
            share.take(beside.nbytes)
            for batch in self._reader(sql.ordered_rows(self._request, part, files)):
                given = batch.slice(0, left)
                left = None if left is None else left - given.num_rows
                in_tail = pc.sum(given.column(sql.IN_TAIL)).as_py() or 0
                self.rows_tail += in_tail
                self.rows_lake += given.num_rows - in_tail
                ordering = given.select(sql.ORDER_COLUMNS)
                yield conformed(given.select(self._rows.names), self._rows), ordering.slice
                if left == 0:
                    break
        self._cursor.unregister(sql.TAIL_TABLE)

    # --- shapes ---------------------------------------------------------------------------------

    def _newest(self) -> Generator[pa.RecordBatch, None, None]:
        """Yield the newest row of each instrument.

        Where it is known when each instrument traded last, a part begins at the newest of these
        times that is left, and reading ends with the last of them.
        """
        request, plan, seen = self.opened.request, self.opened.plan, self.opened.newest_us
        found: dict[Instrument, pa.RecordBatch] = {}
        end_us, wanted = plan.times.end_us, _rows_first(1)
        while True:
            left = None if seen is None else {i: t for i, t in seen.items() if i not in found}
            if left is not None:
                plan = plan.of(left)
                self._request = replace(self._request, symbols=tuple({i.symbol for i in left}))
                newest_us = max(left.values(), default=_NEVER_US)
                end_us = newest_us + 1 if end_us is None else min(end_us, newest_us + 1)
            rest = plan.during(TimeRange(plan.times.start_us, end_us))
            part = RowsOverTime(rest).take(wanted, descending=True) if rest.reads else None
            if part is None:
                break
            for batch, _ in self._part(part, None):
                for instrument, row in first_rows(batch).items():
                    found.setdefault(instrument, batch.slice(row, 1))
            end_us, wanted = part.times.start_us, min(wanted * _GROWTH, _ROWS_MAX)
            if end_us == plan.times.start_us:
                break
        order = sorted(found, reverse=request.order is Order.DESC)[: request.limit]
        if order:
            rows = pa.concat_batches([found[instrument] for instrument in order])
            ordering = rows.select(sql.ORDER_COLUMNS)
            yield from self._sent(rows.select(self.schema.names), ordering.slice)

    def _table(self) -> Generator[pa.RecordBatch, None, None]:
        """Yield the rows that the shape's statement makes of all trades of the plan."""
        request, plan, vouched = self.opened.request, self.opened.plan, self.opened.vouched
        tail, files = self._tail(plan), self._files(plan)
        beside = tail.batch(self._needed.names, np.arange(len(tail)))
        if all(form.narrow for form in files):
            beside = narrowed(beside)
        holes = holes_table(vouched)
        extent = Extent(
            request.symbols,
            request.range,
            *plan.bounds_us,
            has_holes=holes.num_rows > 0,
            one_exchange=len(plan.exchanges) < 2,
        )
        self.rows_lake, self.rows_tail = int(plan.files.rows.sum()), len(tail)
        tables = {sql.TAIL_TABLE: beside, VOUCHED: vouched_table(vouched), HOLES: holes}
        span = self._reading_lake(plan)  # current in no thread: several may make the batches
        with MemoryShare(self._memory) as share:
            for name, table in tables.items():
                share.take(table.nbytes)
                self._cursor.register(name, table)
            try:
                made = request.shape.statement(extent)
                for batch in self._reader(sql.shaped_rows(request, plan, files, made)):
                    rows = conformed(batch, self.schema)
                    yield from self._sent(rows, functools.partial(digest_key, rows))
            except (duckdb.Error, pa.ArrowException) as error:
                if not str(error).startswith(_DOES_NOT_FIT):
                    raise
                made = request.shape.largest(extent)
                statement = sql.over_trades(request, plan, files, made)
                raise too_large(request.shape.name, *self._first(statement)) from error
            finally:
                span.end()

    def _first(self, statement: Statement) -> tuple[Any, ...]:
        row: tuple[Any, ...] = self._cursor.sql(
            statement.text, params=list(statement.parameters)
        ).fetchall()[0]
        return row

    def _reader(self, statement: Statement) -> pa.RecordBatchReader:
        relation = self._cursor.sql(statement.text, params=list(statement.parameters))
        return relation.to_arrow_reader(self._batch_rows)


def _walked(request: TradesRequest) -> TradesRequest:
    """Return the request for the rows to go through; the newest of each instrument come first."""
    if request.shape.reading is not Reading.NEWEST:
        return request
    columns = sql.needed_columns(request)
    return replace(request, shape=TradeRows(), columns=columns, order=Order.DESC, limit=None)


def _named(location: str) -> str:
    """Write a location as DuckDB reads it: pattern characters of a local path are escaped."""
    is_local = location.startswith((_FILE_SCHEME, "/"))
    return _PATTERN.sub(r"[\g<0>]", location.removeprefix(_FILE_SCHEME)) if is_local else location


def _database(
    warehouse: str, temp_dir: Path, memory_bytes: int, threads: int
) -> duckdb.DuckDBPyConnection:
    """Open a database in memory that reads the warehouse alone, with locked settings."""
    temp_dir.mkdir(parents=True, exist_ok=True)
    folder = Path(warehouse.removeprefix(_FILE_SCHEME)).resolve()
    database = duckdb.connect(":memory:")
    for name, value in (
        ("threads", threads),
        ("memory_limit", f"{memory_bytes}B"),
        ("temp_directory", str(temp_dir)),
        ("TimeZone", "UTC"),
        ("preserve_insertion_order", True),
        ("parquet_metadata_cache", True),  # files never change; bounded with all else by the memory
        ("asof_loop_join_threshold", 0),  # a nested loop is chosen of files, by a wrong estimate
        ("autoinstall_known_extensions", False),
        ("autoload_known_extensions", False),
        ("python_enable_replacements", False),
        ("allowed_directories", [f"{folder}/", f"{_named(str(folder))}/"]),
        ("enable_external_access", False),
        ("lock_configuration", True),
    ):
        database.execute(f"SET GLOBAL {name} = {_literal(value)}")  # else cursors do not have it
    return database


def _literal(value: object) -> str:
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    if isinstance(value, list):
        return f"[{', '.join(map(_literal, value))}]"
    return str(value)


def _key(row: pa.RecordBatch) -> RowKey:
    """Return the canonical key of the first row."""
    time_us = row.column(0).cast(pa.int64())[0].as_py()
    return (time_us, *(column[0].as_py() for column in row.columns[1:]))


def _rows_first(limit: int | None) -> float:
    return _ROWS_FIRST if limit is None else min(max(8 * limit, _ROWS_FIRST // 5), _ROWS_FIRST)


def too_late() -> Overloaded:
    """Make the error of an answer that outlived its deadline."""
    return Overloaded(
        Reason.DEADLINE_EXCEEDED, "the deadline passed before the answer was complete: ask for less"
    )


def _translated(error: Exception) -> K2Error:
    """Translate an error by the first words of its message: a stream of Arrow hides the type."""
    text = str(error)
    if text.startswith("Out of Memory Error"):
        return Overloaded(
            Reason.TOO_MANY_QUERIES,
            "the running queries need more memory than they may take",
            retry_after_s=1.0,
        )
    if text.startswith(("IO Error", "HTTP Error")):
        return Unavailable(
            Reason.LAKE_UNAVAILABLE,
            "a file of the lake cannot be read; plan the query again",
            retry_after_s=limits.SNAPSHOT_POLL_S,
        )
    if text.startswith("Invalid Input Error"):
        return Data(Reason.LAKE_CORRUPT, f"a file of the lake is not what it was: {text}")
    return Internal(Reason.INTERNAL, f"the query failed: {text}")
