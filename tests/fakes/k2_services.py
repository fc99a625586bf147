"""The gRPC services of the K2 of in-memory rows (`k2_server.py`), and what they answer."""

from __future__ import annotations

import json

from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import code_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from k2.v1 import (
    dead_letter_service_pb2,
    dead_letter_service_pb2_grpc,
    degradation_service_pb2,
    degradation_service_pb2_grpc,
    feed_service_pb2,
    feed_service_pb2_grpc,
    market_pb2,
    platform_service_pb2,
    platform_service_pb2_grpc,
    query_service_pb2_grpc,
    snapshot_service_pb2,
    snapshot_service_pb2_grpc,
)

FIRST_US = 1_610_064_000_000_000  # 2021-01-08
COMMIT_US = FIRST_US + 5_000_000
_SERVICES = ("Query", "Snapshot", "Degradation", "Feed", "Platform", "DeadLetter")


def stamp(micros):
    return Timestamp(seconds=micros // 1_000_000, nanos=micros % 1_000_000 * 1000)


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
                degradation_service_pb2.Pressure(signal="rss_bytes", pressure=0.9, injected=True),
            ],
            report_time=stamp(COMMIT_US),
        )
        return degradation_service_pb2.GetDegradationResponse(
            degradation=degradation_service_pb2.Degradation(
                level=soft,
                summary="enrichment waits",
                processes=[lake],
                time=stamp(COMMIT_US),
                override=self.server.override,
                injected=True,
            )
        )

    def WatchDegradation(self, request, context):
        self.server.enter("WatchDegradation", context)
        now = self.GetDegradation(None, context).degradation
        yield degradation_service_pb2.WatchDegradationResponse(degradation=now)
        now.shadow = True
        yield degradation_service_pb2.WatchDegradationResponse(degradation=now)
        self.server.refuse(context, code_pb2.INTERNAL, "INTERNAL", "the watch is over")

    def SetOverride(self, request, context):
        self.server.enter("SetOverride", context)
        self.server.requests.append(request)
        self.server.override = degradation_service_pb2.Override(
            level=request.level,
            reason=request.reason,
            set_time=stamp(COMMIT_US),
            expire_time=stamp(COMMIT_US + request.duration.ToMicroseconds()),
        )
        return degradation_service_pb2.SetOverrideResponse(override=self.server.override)

    def ClearOverride(self, request, context):
        self.server.enter("ClearOverride", context)
        ended, self.server.override = self.server.override, None
        return degradation_service_pb2.ClearOverrideResponse(ended=ended)

    def ListTransitions(self, request, context):
        self.server.enter("ListTransitions", context)
        self.server.requests.append(request)
        kinds = degradation_service_pb2
        rise = kinds.Transition(
            time=stamp(COMMIT_US),
            from_level=kinds.DEGRADATION_LEVEL_NORMAL,
            to_level=kinds.DEGRADATION_LEVEL_SOFT,
            cause="PRESSURE",
            process="lake",
            signal="writer_lag_s",
            reading=12.5,
            pressure=0.6,
            threshold=0.5,
            injected=True,
        )
        ended = kinds.Transition(
            time=stamp(COMMIT_US),
            from_level=kinds.DEGRADATION_LEVEL_AGGRESSIVE,
            to_level=kinds.DEGRADATION_LEVEL_NORMAL,
            cause="OVERRIDE_ENDED",
            reason="a rehearsal",
        )
        return kinds.ListTransitionsResponse(transitions=[ended, rise])

    def InjectPressure(self, request, context):
        self.server.enter("InjectPressure", context)
        self.server.requests.append(request)
        until = stamp(COMMIT_US + request.duration.ToMicroseconds())
        return degradation_service_pb2.InjectPressureResponse(expire_time=until)


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

    def ListTopics(self, request, context):
        self.server.enter("ListTopics", context)
        self.server.topics_read += 1
        read, topic = self.server.topics_read, platform_service_pb2.Topic
        written = 1000 + 500 * read
        return platform_service_pb2.ListTopicsResponse(
            topics=[
                topic(
                    name="trades", partitions=8, messages=written - 600, messages_written=written
                ),
                topic(name="gaps", partitions=1, messages=3, messages_written=3),
            ],
            time=stamp(COMMIT_US + 2_000_000 * read),
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


def register(server, target):
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
