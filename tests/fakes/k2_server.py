"""A K2 of in-memory rows over real sockets, for tests of clients: `k2.v1` on gRPC, rows on Flight.

It answers like K2 where a client can tell: reasons in `google.rpc.Status`, tickets, canonical
order, provenance with the rows. Faults are set on it (`fail_calls`, `fail_rows`) and used up.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

import grpc
import pyarrow as pa
from google.protobuf import any_pb2, duration_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status
from pyarrow import flight  # noqa: TID251 the fake speaks Flight

from k2.market import schema
from k2.v1 import (
    degradation_service_pb2,
    error_reason_pb2,
    market_pb2,
    query_service_pb2,
    snapshot_service_pb2,
)
from tests.fakes.k2_services import COMMIT_US, FIRST_US, register, stamp

SCHEMA = schema.arrow_schema(schema.TRADE)
TOKEN = "k2t1.CgExGgQSAgAKAAAAAA"
SNAPSHOT_IDS = (9_007_199_254_740_993, 12)  # the first loses digits as a JSON number


def trade_rows(count, symbol="BTCUSDT", exchange="BINANCE"):
    """`count` trades a millisecond apart, with the extremes of prices and quantities in them."""
    rows = [
        {
            "exchange": exchange,
            "symbol": symbol,
            "base": symbol[:3],
            "quote": symbol[3:],
            "asset_class": "crypto",
            "source": "simulated",
            "trade_id": number + 1,
            "event_time": FIRST_US + number * 1000 + 7,
            "receive_time": FIRST_US + number * 1000 + 9,
            "price": Decimal("39432.28") + number,
            "quantity": Decimal("0.00000001"),
            "side": schema.SIDES[number % 2],
            "vendor_data": [("m", "true")] if number % 3 == 0 else [],
            "tape_epoch": 0,
            "tape_partition": 1,
            "tape_offset": number,
        }
        for number in range(count)
    ]
    return pa.Table.from_pylist(rows, SCHEMA)


def status(code, reason, message, *, retry_after_s=None, field=None):
    """A failure as K2 sends it."""
    info = error_details_pb2.ErrorInfo(reason=reason, domain="k2", metadata={"hint": "tests"})
    details = [info]
    if retry_after_s is not None:
        delay = duration_pb2.Duration()
        delay.FromMicroseconds(int(retry_after_s * 1e6))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    if field is not None:
        violation = error_details_pb2.BadRequest.FieldViolation(field=field, description=message)
        details.append(error_details_pb2.BadRequest(field_violations=[violation]))
    packed = []
    for detail in details:
        box = any_pb2.Any()
        box.Pack(detail)
        packed.append(box)
    return status_pb2.Status(code=code, message=message, details=packed)


def unavailable(reason="TAIL_BEHIND", retry_after_s=0.01):
    return status(code_pb2.UNAVAILABLE, reason, "not just now", retry_after_s=retry_after_s)


class K2Server:
    """Runs while the `with` block does.

    Attributes:
        rows: what `trades` answers from, in canonical order.
        address: of control.
        calls: names of the calls so far.
        requests: plan requests so far.
        keys: values of `x-api-key` so far.
        fail_calls: failures the next gRPC calls end with.
        fail_rows: (rows sent before, failure) of the next streams.
        shift: of the ids in the keys of last rows; another one is another answer.
        batch_rows: rows a batch.
        missing: missing parts of every answer.
        shapes: the whole answers to other questions than trades, by name, in ascending order.
        verify_ok: the outcome of a verification; None: it ends without one.
        topics_read: how often the topics were asked for; each time 500 trades and 2 s are added.
        cancelled: set when a stream was given up by its reader.
        page_size_max: snapshots a page.
    """

    def __init__(self, rows=None):
        self.rows = trade_rows(10) if rows is None else rows
        self.calls = []
        self.requests = []
        self.override = None
        self.keys = []
        self.headers = []
        self.fail_calls = []
        self.fail_rows = []
        self.shift = 0
        self.batch_rows = 4
        self.missing = []
        self.shapes = {}
        self.cancelled = threading.Event()
        self.page_size_max = 1
        self.verify_ok = True
        self.topics_read = 0
        self._tickets = {}

    def __enter__(self):
        self._flight = _Flight(self)
        self.flight_address = f"127.0.0.1:{self._flight.port}"
        self._pool = ThreadPoolExecutor(8)
        self._grpc = grpc.server(self._pool)
        register(self, self._grpc)
        port = self._grpc.add_insecure_port("127.0.0.1:0")
        self.address = f"127.0.0.1:{port}"
        self._grpc.start()
        return self

    def __exit__(self, *_):
        self._grpc.stop(None).wait()
        self._pool.shutdown()
        self._flight.shutdown()

    def enter(self, name, context):
        """Count a call and fail it if a failure waits."""
        self.calls.append(name)
        self.headers.append(dict(context.invocation_metadata()))
        self.keys.append(self.headers[-1].get("x-api-key"))
        if self.fail_calls:
            context.abort_with_status(rpc_status.to_status(self.fail_calls.pop(0)))

    def refuse(self, context, code, reason, message, field=None):
        context.abort_with_status(rpc_status.to_status(status(code, reason, message, field=field)))

    def plan(self, request, context):
        kind = request.WhichOneof("query")
        trades = request.trades if kind == "trades" else getattr(request, kind).of
        self._check(trades, context)
        table = self._answer(trades) if kind == "trades" else _cut(self.shapes[kind], trades)
        ticket = f"ticket-{len(self._tickets)}".encode()
        times = _resolved(trades)
        self._tickets[ticket] = table, times
        return query_service_pb2.PlanQueryResponse(
            arrow_schema=table.schema.serialize().to_pybytes(),
            endpoints=[
                query_service_pb2.QueryEndpoint(
                    ticket=ticket, locations=[f"grpc://{self.flight_address}"]
                )
            ],
            estimate=query_service_pb2.QueryEstimate(rows=table.num_rows, files=1),
            provenance=self.provenance(range=times),
        )

    def _check(self, trades, context):
        invalid = code_pb2.INVALID_ARGUMENT
        known = set(self.rows.column("symbol").to_pylist())
        if unknown := set(trades.symbols) - known:
            self.refuse(
                context, code_pb2.NOT_FOUND, "UNKNOWN_SYMBOL", f"K2 has never seen {unknown.pop()}"
            )
        if trades.HasField("limit") and trades.limit < 1:
            self.refuse(context, invalid, "LIMIT_OUT_OF_BOUNDS", "limit is below 1", "limit")
        if wrong := set(trades.columns) - self._columns():
            self.refuse(context, invalid, "UNKNOWN_COLUMN", f"no column {wrong.pop()}", "columns")
        if trades.as_of_token and trades.as_of_token != TOKEN:
            self.refuse(context, invalid, "BAD_TOKEN", "a read token is something else")
        if trades.WhichOneof("as_of") == "as_of_snapshot_id":
            self._known_snapshot(trades.as_of_snapshot_id, context)

    def _columns(self):
        return {name for table in (self.rows, *self.shapes.values()) for name in table.schema.names}

    def _known_snapshot(self, snapshot_id, context):
        if snapshot_id not in SNAPSHOT_IDS:
            self.refuse(
                context, code_pb2.NOT_FOUND, "UNKNOWN_SNAPSHOT", f"no snapshot {snapshot_id}"
            )

    def _answer(self, trades):
        start = trades.range.start_time.ToMicroseconds()
        end = trades.range.end_time.ToMicroseconds()
        rows = [
            row
            for row in self.rows.cast(_with_integer_times()).to_pylist()
            if row["symbol"] in trades.symbols
            and (not trades.exchanges or row["exchange"] in trades.exchanges)
            and row["event_time"] >= start
            and (not end or row["event_time"] < end)
        ]
        if trades.order == query_service_pb2.ORDER_DESC:
            rows.reverse()
        if trades.HasField("limit"):
            rows = rows[: trades.limit]
        table = pa.Table.from_pylist(rows, SCHEMA)
        return table.select(list(trades.columns)) if trades.columns else table

    def provenance(self, **more):
        return market_pb2.Provenance(
            snapshot_id=SNAPSHOT_IDS[0],
            snapshot_commit_time=stamp(COMMIT_US),
            lake_positions=market_pb2.OffsetVector(epoch=0, offsets=[0, 6]),
            end_positions=market_pb2.OffsetVector(epoch=0, offsets=[0, 10]),
            planned_time=stamp(COMMIT_US + 1),
            level=degradation_service_pb2.DEGRADATION_LEVEL_NORMAL,
            source=market_pb2.DATA_SOURCE_SIMULATED,
            completeness=(
                market_pb2.COMPLETENESS_PARTIAL if self.missing else market_pb2.COMPLETENESS_GAPS
            ),
            gaps=[
                market_pb2.Gap(
                    instrument=market_pb2.Instrument(exchange="BINANCE", symbol="BTCUSDT"),
                    first_trade_id=3,
                    last_trade_id=4,
                )
            ],
            gaps_total=1,
            missing=self.missing,
            token=TOKEN,
            **more,
        )

    def gone(self):
        """A failure that passes, as a server says it that restarts."""
        return unavailable()

    def missing_lake(self):
        return market_pb2.MissingPart(
            part="lake",
            reason=error_reason_pb2.ERROR_REASON_LAKE_UNAVAILABLE,
            message="the catalog is locked",
        )

    def stream(self, ticket):
        table, times = self._tickets.get(ticket, (None, None))
        if table is None:
            _fail(status(code_pb2.INVALID_ARGUMENT, "BAD_TICKET", "this stack did not sign it"))
        before, failure = self.fail_rows.pop(0) if self.fail_rows else (None, None)
        return table.schema, self._batches(table, times, before, failure)

    def _batches(self, table, times, before, failure):
        sent = 0
        try:
            if before == 0:
                _fail(failure)
            for batch in table.to_batches(max_chunksize=self.batch_rows):
                sent += batch.num_rows
                last = sent == table.num_rows
                counts = {"rows_lake": 6, "rows_tail": sent - 6} if last else {}
                key = market_pb2.RowKey(trade_id=self.shift + sent)
                said = self.provenance(range=times, freshness_ms=1.5, last_row=key, **counts)
                yield batch, said.SerializeToString()
                if before is not None and sent >= before:
                    _fail(failure)
        except GeneratorExit:
            self.cancelled.set()
            raise

    def snapshots(self):
        return [
            snapshot_service_pb2.Snapshot(
                snapshot_id=snapshot_id,
                parent_id=SNAPSHOT_IDS[1] if number == 0 else 0,
                commit_time=stamp(COMMIT_US - number * 1_000_000),
                positions=market_pb2.OffsetVector(epoch=0, offsets=[0, 6]),
                counters=[
                    snapshot_service_pb2.PartitionCounters(partition=1, accepted=6, duplicate=2)
                ],
                rows_total=6,
                rows_added=3,
                files_total=2,
                bytes_total=123,
                operation="append",
            )
            for number, snapshot_id in enumerate(SNAPSHOT_IDS)
        ]


def _cut(table, trades):
    """The rows and columns of an answer that are asked for."""
    if trades.order == query_service_pb2.ORDER_DESC:
        table = table.take(list(range(table.num_rows))[::-1])
    if trades.HasField("limit"):
        table = table.slice(0, trades.limit)
    return table.select(list(trades.columns)) if trades.columns else table


def _resolved(trades):
    """The range of a question; `last` ends at the commit."""
    if not trades.HasField("last"):
        return trades.range
    return market_pb2.TimeRange(start_time=stamp(COMMIT_US - trades.last.ToMicroseconds()))


def _with_integer_times():
    return pa.schema(
        [
            pa.field(each.name, pa.int64() if pa.types.is_timestamp(each.type) else each.type)
            for each in SCHEMA
        ]
    )


def _fail(failure):
    error = (
        flight.FlightUnavailableError
        if failure.code == code_pb2.UNAVAILABLE
        else flight.FlightServerError
    )
    raise error(failure.message, extra_info=failure.SerializeToString())


class _SeenHeaders(flight.ServerMiddlewareFactory):
    def __init__(self, seen):
        self._seen = seen

    def start_call(self, info, headers):
        self._seen.append({name: values[0] for name, values in headers.items()})


class _Flight(flight.FlightServerBase):
    def __init__(self, server):
        super().__init__("grpc://127.0.0.1:0", middleware={"seen": _SeenHeaders(server.headers)})
        self._server = server

    def do_get(self, context, ticket):
        return flight.GeneratorStream(*self._server.stream(ticket.ticket))
