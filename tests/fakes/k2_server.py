"""A K2 of in-memory rows over real sockets, for tests of clients: `k2.v1` on gRPC, rows on Flight.

It answers like K2 where a client can tell: reasons in `google.rpc.Status`, tickets, canonical
order, provenance with the rows. Faults are set on it (`fail_calls`, `fail_rows`) and used up.
"""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

import grpc
import pyarrow as pa
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_status import rpc_status
from pyarrow import flight  # noqa: TID251 the fake speaks Flight

from k2.market import schema
from k2.v1 import (
    dead_letter_service_pb2,
    dead_letter_service_pb2_grpc,
    degradation_service_pb2,
    degradation_service_pb2_grpc,
    error_reason_pb2,
    feed_service_pb2,
    feed_service_pb2_grpc,
    market_pb2,
    platform_service_pb2,
    platform_service_pb2_grpc,
    query_service_pb2,
    query_service_pb2_grpc,
    snapshot_service_pb2,
    snapshot_service_pb2_grpc,
)

SCHEMA = schema.arrow_schema(schema.TRADE)
FIRST_US = 1_610_064_000_000_000  # 2021-01-08
COMMIT_US = FIRST_US + 5_000_000
TOKEN = "k2t1.CgExGgQSAgAKAAAAAA"
SNAPSHOT_IDS = (9_007_199_254_740_993, 12)  # the first loses digits as a JSON number
_SERVICES = ("Query", "Snapshot", "Degradation", "Feed", "Platform", "DeadLetter")


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


def stamp(micros):
    return Timestamp(seconds=micros // 1_000_000, nanos=micros % 1_000_000 * 1000)


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
        batch_rows: rows a batch.
        missing: missing parts of every answer.
        verify_ok: the outcome of a verification; None: it ends without one.
        cancelled: set when a stream was given up by its reader.
        page_size_max: snapshots a page.
    """

    def __init__(self, rows=None):
        self.rows = trade_rows(10) if rows is None else rows
        self.calls = []
        self.requests = []
        self.keys = []
        self.fail_calls = []
        self.fail_rows = []
        self.batch_rows = 4
        self.missing = []
        self.cancelled = threading.Event()
        self.page_size_max = 1
        self.verify_ok = True
        self._tickets = {}

    def __enter__(self):
        self._flight = _Flight(self)
        self.flight_address = f"127.0.0.1:{self._flight.port}"
        self._pool = ThreadPoolExecutor(8)
        self._grpc = grpc.server(self._pool)
        _register(self, self._grpc)
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
        self.keys.append(dict(context.invocation_metadata()).get("x-api-key"))
        if self.fail_calls:
            context.abort_with_status(rpc_status.to_status(self.fail_calls.pop(0)))

    def refuse(self, context, code, reason, message, field=None):
        context.abort_with_status(rpc_status.to_status(status(code, reason, message, field=field)))

    def plan(self, request, context):
        trades = request.trades
        self._check(trades, context)
        table = self._answer(trades)
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
        if wrong := set(trades.columns) - set(SCHEMA.names):
            self.refuse(context, invalid, "UNKNOWN_COLUMN", f"no column {wrong.pop()}", "columns")
        if trades.as_of_token and trades.as_of_token != TOKEN:
            self.refuse(context, invalid, "BAD_TOKEN", "a read token is something else")
        if trades.WhichOneof("as_of") == "as_of_snapshot_id":
            self._known_snapshot(trades.as_of_snapshot_id, context)

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
                said = self.provenance(range=times, freshness_ms=1.5, **counts)
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


class _Flight(flight.FlightServerBase):
    def __init__(self, server):
        super().__init__("grpc://127.0.0.1:0")
        self._server = server

    def do_get(self, context, ticket):
        return flight.GeneratorStream(*self._server.stream(ticket.ticket))


class _Service:
    def __init__(self, server):
        self.server = server


class _Query(_Service, query_service_pb2_grpc.QueryServiceServicer):
    def PlanQuery(self, request, context):
        self.server.enter("PlanQuery", context)
        self.server.requests.append(request)
        return self.server.plan(request, context)


class _Snapshot(_Service, snapshot_service_pb2_grpc.SnapshotServiceServicer):
    def ListSnapshots(self, request, context):
        self.server.enter("ListSnapshots", context)
        first = int(request.page_token or 0)
        size = min(request.page_size, self.server.page_size_max)
        found = self.server.snapshots()
        more = str(first + size) if first + size < len(found) else ""
        return snapshot_service_pb2.ListSnapshotsResponse(
            snapshots=found[first : first + size], next_page_token=more
        )

    def GetSnapshot(self, request, context):
        self.server.enter("GetSnapshot", context)
        found = self.server.snapshots()
        if request.WhichOneof("selector") == "snapshot_id":
            self.server._known_snapshot(request.snapshot_id, context)
            found = [each for each in found if each.snapshot_id == request.snapshot_id]
        if request.WhichOneof("selector") == "as_of_time":
            until = request.as_of_time.ToMicroseconds()
            found = [each for each in found if each.commit_time.ToMicroseconds() <= until]
        return snapshot_service_pb2.GetSnapshotResponse(snapshot=found[0])


class _Degradation(_Service, degradation_service_pb2_grpc.DegradationServiceServicer):
    def GetDegradation(self, request, context):
        self.server.enter("GetDegradation", context)
        soft = degradation_service_pb2.DEGRADATION_LEVEL_SOFT
        lake = degradation_service_pb2.ProcessDegradation(
            process="lake",
            state="SERVING",
            level=soft,
            pressures=[
                degradation_service_pb2.Pressure(signal="writer_lag_s", reading=12.5, pressure=0.5),
                degradation_service_pb2.Pressure(signal="rss_bytes", pressure=0.9),
            ],
            report_time=stamp(COMMIT_US),
        )
        return degradation_service_pb2.GetDegradationResponse(
            degradation=degradation_service_pb2.Degradation(
                level=soft, summary="enrichment waits", processes=[lake], time=stamp(COMMIT_US)
            )
        )


class _Feed(_Service, feed_service_pb2_grpc.FeedServiceServicer):
    def ListFeeds(self, request, context):
        self.server.enter("ListFeeds", context)
        symbol = feed_service_pb2.SymbolFeed(symbol="BTCUSDT", acknowledged_trade_id=2**60, gaps=1)
        feed = feed_service_pb2.Feed(
            name="feed",
            state="SERVING",
            exchange="BINANCE",
            source=market_pb2.DATA_SOURCE_SIMULATED,
            venue_url="ws://127.0.0.1:1",
            connected=True,
            symbols=[symbol, feed_service_pb2.SymbolFeed(symbol="ETHUSDT")],
            trades_acknowledged=10,
            counters={"queue": "0"},
        )
        return feed_service_pb2.ListFeedsResponse(feeds=[feed])

    def ListGaps(self, request, context):
        self.server.enter("ListGaps", context)
        first = 10 if not request.page_token else 20
        unfillable = feed_service_pb2.GapRecord(
            exchange="BINANCE",
            symbol="BTCUSDT",
            first_trade_id=2**60 + first,
            last_trade_id=2**60 + first + 4,
            state=feed_service_pb2.GAP_STATE_UNFILLABLE,
            cause=feed_service_pb2.GAP_CAUSE_SEQUENCE,
            detect_time=stamp(COMMIT_US),
            reason="never printed",
            feed="feed",
        )
        token = "" if request.page_token else "next"
        return feed_service_pb2.ListGapsResponse(gaps=[unfillable], next_page_token=token)

    def Backfill(self, request, context):
        self.server.enter("Backfill", context)
        return feed_service_pb2.BackfillResponse(
            exchange=request.exchange or "BINANCE",
            symbol=request.symbol,
            first_trade_id=request.first_trade_id,
            last_trade_id=request.last_trade_id,
            requests=3,
            eta={"seconds": 90},
        )


class _Platform(_Service, platform_service_pb2_grpc.PlatformServiceServicer):
    def GetStatus(self, request, context):
        self.server.enter("GetStatus", context)
        serving = platform_service_pb2.COMPONENT_STATE_SERVING
        query = platform_service_pb2.Component(
            name="query",
            state=serving,
            pid=42,
            addresses={"flight": self.server.flight_address},
            level=degradation_service_pb2.DEGRADATION_LEVEL_NORMAL,
            counters={"queries": "7"},
            report_time=stamp(COMMIT_US),
        )
        return platform_service_pb2.GetStatusResponse(
            state=serving,
            level=degradation_service_pb2.DEGRADATION_LEVEL_NORMAL,
            source=market_pb2.DATA_SOURCE_SIMULATED,
            components=[platform_service_pb2.Component(name="broker", state=serving), query],
            version="0.1.0",
        )

    def GetSettings(self, request, context):
        self.server.enter("GetSettings", context)
        setting = platform_service_pb2.Setting
        return platform_service_pb2.GetSettingsResponse(
            settings=[setting(name="lake.commit_interval_s", value="10.0")]
        )

    def VerifyIntegrity(self, request, context):
        self.server.enter("VerifyIntegrity", context)
        answer = platform_service_pb2.VerifyIntegrityResponse
        yield answer(
            progress=platform_service_pb2.VerifyProgress(message="folding", done=5, total=10)
        )
        ok = self.server.verify_ok
        if ok is None:
            return
        yield answer(
            result=platform_service_pb2.VerifyResult(
                ok=ok,
                exit_code=0 if ok else 1,
                message="all is well" if ok else "a row is lost",
                report_json=json.dumps({"ok": ok, "holes": []}),
            )
        )

    def Compact(self, request, context):
        self.server.enter("Compact", context)
        answer = platform_service_pb2.CompactResponse
        yield answer(
            progress=platform_service_pb2.MaintenanceProgress(message="merging", done=1, total=2)
        )
        yield answer(
            result=platform_service_pb2.CompactResult(
                merges=2, files_merged=16, rows_rewritten=2**40, message="16 files became 2"
            )
        )

    def ExpireSnapshots(self, request, context):
        self.server.enter("ExpireSnapshots", context)
        self.server.requests.append(request)
        yield platform_service_pb2.ExpireSnapshotsResponse(
            result=platform_service_pb2.ExpireSnapshotsResult(
                snapshots_dropped=3, snapshots_kept=7, files_waiting=9, message="3 dropped"
            )
        )


class _DeadLetter(_Service, dead_letter_service_pb2_grpc.DeadLetterServiceServicer):
    def ListDeadLetters(self, request, context):
        self.server.enter("ListDeadLetters", context)
        self.server.requests.append(request)
        first = int(request.page_token or 0)
        more = str(first + request.page_size) if first + request.page_size < 3 else ""
        return dead_letter_service_pb2.ListDeadLettersResponse(
            letters=[_letter(each) for each in range(first, min(3, first + request.page_size))],
            next_page_token=more,
        )

    def GetDeadLetter(self, request, context):
        self.server.enter("GetDeadLetter", context)
        trade = dead_letter_service_pb2.TradeRecord(symbol="BTCUSDT", trade_id=2**60, price="1.5")
        return dead_letter_service_pb2.GetDeadLetterResponse(
            letter=_letter(0),
            value=b"\x00\xffBTCUSDT and more",
            value_bytes=18,
            fault_now="" if request.name.endswith("/0") else "TRUNCATED",
            trade=trade if request.name.endswith("/0") else None,
        )

    def ReplayDeadLetters(self, request, context):
        self.server.enter("ReplayDeadLetters", context)
        self.server.requests.append(request)
        outcome = dead_letter_service_pb2.ReplayOutcome
        return dead_letter_service_pb2.ReplayDeadLettersResponse(
            outcomes=[
                outcome(
                    name=name,
                    state=dead_letter_service_pb2.REPLAY_STATE_SENT,
                    message="it is on the tape again",
                    partition=3,
                    offset=2**40,
                )
                if name.endswith("/0")
                else outcome(
                    name=name,
                    state=dead_letter_service_pb2.REPLAY_STATE_REFUSED,
                    fault="TRUNCATED",
                    message="it ends inside a field",
                )
                for name in request.names
            ]
        )


def _letter(offset):
    return dead_letter_service_pb2.DeadLetter(
        name=f"trades/0/3/{offset}",
        origin="trades",
        origin_partition=3,
        origin_offset=offset,
        schema_id=None if offset else 7,
        fault="TRUNCATED",
        error="ends inside a field",
        judged_time=stamp(COMMIT_US),
        letter_offset=10 + offset,
        stored=bool(offset),
    )


def _register(server, target):
    query_service_pb2_grpc.add_QueryServiceServicer_to_server(_Query(server), target)
    snapshot_service_pb2_grpc.add_SnapshotServiceServicer_to_server(_Snapshot(server), target)
    degradation_service_pb2_grpc.add_DegradationServiceServicer_to_server(
        _Degradation(server), target
    )
    feed_service_pb2_grpc.add_FeedServiceServicer_to_server(_Feed(server), target)
    platform_service_pb2_grpc.add_PlatformServiceServicer_to_server(_Platform(server), target)
    dead_letter_service_pb2_grpc.add_DeadLetterServiceServicer_to_server(
        _DeadLetter(server), target
    )
    checks = health.HealthServicer()
    for name in ("", *(f"k2.v1.{each}Service" for each in _SERVICES)):
        checks.set(name, health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(checks, target)
