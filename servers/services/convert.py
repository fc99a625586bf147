"""Between messages of `k2.v1` and K2's own records; protobuf goes no further than here.

Everything that comes in is checked here as far as its form goes: a time that is no time, an enum
value nobody declared, a range given twice. What it means is checked by `k2.query.request`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from google.protobuf import duration_pb2, timestamp_pb2
from google.protobuf.descriptor import EnumDescriptor

from k2.degrade.level import Level
from k2.degrade.policy import POLICIES
from k2.errors import Invalid, Reason
from k2.lake.iceberg.snapshot import LakeSnapshot
from k2.market.events import TIME_MAX_US
from k2.market.ledger import GapEvent, GapState
from k2.market.offsets import OffsetVector, ReadToken, TimeRange
from k2.query.provenance import Provenance
from k2.query.request import Consistency, Order, TradesRequest
from k2.v1 import (
    degradation_service_pb2,
    feed_service_pb2,
    market_pb2,
    platform_service_pb2,
    query_service_pb2,
    snapshot_service_pb2,
)
from k2.v1.degradation_service_pb2 import DegradationLevel
from k2.v1.error_reason_pb2 import ErrorReason
from servers.heartbeat import SERVING, Beat, platform_level
from servers.services import read_token

# --- in ------------------------------------------------------------------------------------------


def request_from(message: query_service_pb2.PlanQueryRequest) -> TradesRequest:
    """The question of a PlanQueryRequest.

    Raises:
        Invalid: BAD_REQUEST when a part of it has no meaning, BAD_TOKEN when that is its token.
    """
    if message.WhichOneof("query") != "trades":
        raise _bad("query", "the request asks nothing: set `trades`")
    trades = message.trades
    consistency, snapshot, time_us, token = _as_of(trades)
    return TradesRequest(
        symbols=tuple(trades.symbols),
        exchanges=tuple(trades.exchanges),
        range=range_from(trades.range),
        last_us=_duration_us(trades.last) if trades.HasField("last") else None,
        columns=tuple(trades.columns),
        limit=trades.limit if trades.HasField("limit") else None,
        order=_order(trades.order),
        consistency=consistency,
        as_of_snapshot=snapshot,
        as_of_time_us=time_us,
        as_of_token=token,
        allow_partial=trades.allow_partial,
    )


def _as_of(
    trades: query_service_pb2.TradesRequest,
) -> tuple[Consistency, int | None, int | None, ReadToken | None]:
    which = trades.WhichOneof("as_of")
    snapshot = trades.as_of_snapshot_id if which == "as_of_snapshot_id" else None
    time_us = time_us_from(trades.as_of_time, "as_of_time") if which == "as_of_time" else None
    token = read_token.from_text(trades.as_of_token) if which == "as_of_token" else None
    if trades.consistency == query_service_pb2.CONSISTENCY_UNSPECIFIED:
        return (Consistency.AS_OF if which else Consistency.UNION), snapshot, time_us, token
    return _consistency(trades.consistency), snapshot, time_us, token


def range_from(message: market_pb2.TimeRange) -> TimeRange:
    """A range of times; an end that is not set is open."""
    start = message.start_time if message.HasField("start_time") else None
    end = message.end_time if message.HasField("end_time") else None
    return TimeRange(
        time_us_from(start, "range.start_time") if start is not None else None,
        time_us_from(end, "range.end_time") if end is not None else None,
    )


def _order(number: query_service_pb2.Order.ValueType) -> Order:
    name = _name(query_service_pb2.Order.DESCRIPTOR, number, "order")
    return Order.ASC if name == "ORDER_UNSPECIFIED" else Order[name.removeprefix("ORDER_")]


def _consistency(number: query_service_pb2.Consistency.ValueType) -> Consistency:
    name = _name(query_service_pb2.Consistency.DESCRIPTOR, number, "consistency")
    return Consistency[name.removeprefix("CONSISTENCY_")]


def _name(enum: EnumDescriptor, number: int, field: str) -> str:
    if number not in enum.values_by_number:
        raise _bad(field, f"{field} has no value {number}")
    return enum.values_by_number[number].name


def time_us_from(message: timestamp_pb2.Timestamp, field: str) -> int:
    """Microseconds since 1970 of a timestamp; finer digits are cut off.

    Raises:
        Invalid: BAD_REQUEST when it is outside the years 1 to 9999.
    """
    if not (-62_135_596_800 <= message.seconds < 253_402_300_800 and 0 <= message.nanos < 10**9):
        raise _bad(field, f"{field} is not a time between the years 1 and 9999")
    return message.seconds * 1_000_000 + message.nanos // 1000


def _duration_us(message: duration_pb2.Duration) -> int:
    if abs(message.seconds) > 315_576_000_000 or abs(message.nanos) >= 10**9:
        raise _bad("last", "last is not a duration")
    return message.seconds * 1_000_000 + message.nanos // 1000


def _bad(field: str, message: str) -> Invalid:
    return Invalid(Reason.BAD_REQUEST, message, metadata={"field": field})


def vector_from(message: market_pb2.OffsetVector) -> OffsetVector:
    """Positions on the tape."""
    return OffsetVector(message.epoch, tuple(message.offsets))


# --- out -----------------------------------------------------------------------------------------


def request_to(request: TradesRequest) -> query_service_pb2.PlanQueryRequest:
    """The message `request_from` reads back as `request`."""
    trades = query_service_pb2.TradesRequest(
        symbols=request.symbols,
        exchanges=request.exchanges,
        range=range_to(request.range),
        columns=request.columns,
        limit=request.limit,
        order=query_service_pb2.Order.Value(f"ORDER_{request.order.name}"),
        consistency=query_service_pb2.Consistency.Value(f"CONSISTENCY_{request.consistency.name}"),
        allow_partial=request.allow_partial,
    )
    if request.last_us is not None:
        trades.last.FromMicroseconds(request.last_us)
    if request.as_of_snapshot is not None:
        trades.as_of_snapshot_id = request.as_of_snapshot
    if request.as_of_time_us is not None:
        trades.as_of_time.CopyFrom(time_to(request.as_of_time_us))
    if request.as_of_token is not None:
        trades.as_of_token = read_token.to_text(request.as_of_token)
    return query_service_pb2.PlanQueryRequest(trades=trades)


def time_to(time_us: int) -> timestamp_pb2.Timestamp:
    """A timestamp of microseconds since 1970, at most the last that protobuf can name."""
    seconds, micros = divmod(min(time_us, TIME_MAX_US), 1_000_000)
    return timestamp_pb2.Timestamp(seconds=seconds, nanos=micros * 1000)


def _maybe_time(time_us: int | None) -> timestamp_pb2.Timestamp | None:
    return None if time_us is None else time_to(time_us)


def range_to(times: TimeRange) -> market_pb2.TimeRange:
    """Event times; what is unbounded is unset."""
    return market_pb2.TimeRange(
        start_time=_maybe_time(times.start_us), end_time=_maybe_time(times.end_us)
    )


def vector_to(vector: OffsetVector) -> market_pb2.OffsetVector:
    """Positions on the tape."""
    return market_pb2.OffsetVector(epoch=vector.epoch, offsets=vector.offsets)


def level_to(level: Level) -> DegradationLevel.ValueType:
    """A level; the wire keeps 0 for "not known"."""
    return DegradationLevel.Value(f"DEGRADATION_LEVEL_{level.name}")


def source_to(source: str) -> market_pb2.DataSource.ValueType:
    """What rows are, by its name in settings and stamp; unspecified for any other name."""
    name = f"DATA_SOURCE_{source.upper()}"
    known = name in market_pb2.DataSource.keys()  # noqa: SIM118 the enum is no mapping
    return market_pb2.DataSource.Value(name if known else "DATA_SOURCE_UNSPECIFIED")


def snapshot_to(snapshot: LakeSnapshot) -> snapshot_service_pb2.Snapshot:
    """One snapshot of the lake."""
    return snapshot_service_pb2.Snapshot(
        snapshot_id=snapshot.snapshot_id,
        parent_id=snapshot.parent_id or 0,
        commit_time=time_to(snapshot.committed_at_us),
        positions=vector_to(snapshot.positions),
        counters=[
            snapshot_service_pb2.PartitionCounters(
                partition=partition, accepted=accepted, duplicate=duplicate, dead=dead
            )
            for partition, (accepted, duplicate, dead) in sorted(snapshot.counters.items())
        ],
        rows_total=snapshot.rows_total,
        rows_added=snapshot.rows_added,
        files_total=snapshot.files_total,
        bytes_total=snapshot.bytes_total,
        operation=snapshot.operation,
        writer_id=snapshot.writer_id,
        commit_id=snapshot.commit_id,
        topic_id=snapshot.topic_id,
        cluster_id=snapshot.cluster_id,
    )


def provenance_to(provenance: Provenance, level: Level) -> market_pb2.Provenance:
    """Where an answer comes from; row counts are added when they are known."""
    ahead_us = provenance.as_of_ahead_us
    return market_pb2.Provenance(
        snapshot_id=provenance.snapshot_id,
        snapshot_commit_time=_maybe_time(provenance.committed_at_us),
        lake_positions=vector_to(provenance.positions),
        end_positions=vector_to(provenance.end),
        planned_time=time_to(provenance.planned_at_us),
        level=level_to(level),
        source=source_to(provenance.source),
        completeness=market_pb2.Completeness.Value(f"COMPLETENESS_{provenance.completeness.name}"),
        gaps=[
            market_pb2.Gap(
                instrument=market_pb2.Instrument(
                    exchange=gap.instrument.exchange, symbol=gap.instrument.symbol
                ),
                first_trade_id=gap.first_id,
                last_trade_id=gap.last_id,
            )
            for gap in provenance.gaps
        ],
        gaps_total=provenance.gaps_total,
        missing=[
            market_pb2.MissingPart(
                part=part.part,
                reason=ErrorReason.Value(f"ERROR_REASON_{part.reason.name}"),
                message=part.message,
            )
            for part in provenance.missing
        ],
        newest_receive_time=_maybe_time(provenance.newest_receive_us),
        token=read_token.to_text(provenance.token),
        range=range_to(provenance.range),
        covered_until_time=_maybe_time(provenance.covered_until_us),
        as_of_ahead_ms=None if ahead_us is None else ahead_us / 1e3,
    )


def degradation_to(beats: Sequence[Beat], now_us: int) -> degradation_service_pb2.Degradation:
    """The platform's level and what it comes from."""
    level = platform_level(beats)
    return degradation_service_pb2.Degradation(
        level=level_to(level),
        summary=POLICIES[level].summary,
        processes=[_process_to(beat) for beat in beats],
        time=time_to(now_us),
    )


def _process_to(beat: Beat) -> degradation_service_pb2.ProcessDegradation:
    highest_first = sorted(beat.pressures.items(), key=lambda item: (-item[1], item[0]))
    return degradation_service_pb2.ProcessDegradation(
        process=beat.process,
        state=beat.state,
        level=level_to(beat.level),
        pressures=[
            degradation_service_pb2.Pressure(
                signal=signal, reading=beat.signals.get(signal), pressure=pressure
            )
            for signal, pressure in highest_first
        ],
        report_time=_maybe_time(beat.at_us or None),
    )


def component_to(beat: Beat) -> platform_service_pb2.Component:
    """A process of K2 as a part of the platform."""
    return platform_service_pb2.Component(
        name=beat.process,
        state=_component_state(beat.state),
        pid=beat.pid,
        run_id=beat.run_id,
        addresses=beat.addresses,
        level=level_to(beat.level),
        counters=_flat(beat.counters),
        report_time=_maybe_time(beat.at_us or None),
    )


def _component_state(state: str) -> platform_service_pb2.ComponentState.ValueType:
    name = f"COMPONENT_STATE_{state}"
    known = name in platform_service_pb2.ComponentState.keys()  # noqa: SIM118 no mapping
    return platform_service_pb2.ComponentState.Value(name if known else "COMPONENT_STATE_LOST")


def _flat(counters: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Counters by dotted name; numbers as decimal text."""
    flat: dict[str, str] = {}
    for name, value in counters.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value if isinstance(value, str) else json.dumps(value)
    return flat


def feed_to(beat: Beat) -> feed_service_pb2.Feed:
    """A feed, from what its heartbeat counts; what is not known by name goes to `counters`."""
    counters = dict(beat.counters)
    symbols = counters.pop("symbols", None) or {}
    connected = bool(counters.pop("connected", False)) and beat.state == SERVING
    return feed_service_pb2.Feed(
        name=beat.process,
        state=beat.state,
        exchange=str(counters.pop("exchange", "")),
        source=source_to(str(counters.pop("source", ""))),
        venue_url=str(counters.pop("venue_url", "")),
        connected=connected,
        symbols=[_symbol_to(symbol, symbols[symbol]) for symbol in sorted(symbols)],
        **{name: int(counters.pop(name, 0)) for name in _FEED_COUNTS},
        counters=_flat(counters),
        report_time=_maybe_time(beat.at_us or None),
    )


_FEED_COUNTS = ("trades_acknowledged", "frames_skipped", "frames_malformed", "reconnects")
_SYMBOL_COUNTS = ("gaps", "ids_missing", "duplicates", "reordered", "resets")


def _symbol_to(symbol: str, counts: Mapping[str, Any]) -> feed_service_pb2.SymbolFeed:
    return feed_service_pb2.SymbolFeed(
        symbol=symbol,
        acknowledged_trade_id=counts.get("acknowledged_trade_id"),
        **{name: int(counts.get(name, 0)) for name in _SYMBOL_COUNTS},
    )


def gap_state_from(value: int) -> GapState | None:
    """The state that a request names; None for any.

    Raises:
        Invalid: BAD_REQUEST for a value that nobody declared.
    """
    if value == feed_service_pb2.GAP_STATE_UNSPECIFIED:
        return None
    if value not in feed_service_pb2.GapState.values():
        raise _bad("state", f"{value} is no state of a gap")
    return GapState[feed_service_pb2.GapState.Name(value).removeprefix("GAP_STATE_")]  # type: ignore[arg-type]


def gap_to(gap: GapEvent) -> feed_service_pb2.GapRecord:
    """A gap as the ledger has it."""
    return feed_service_pb2.GapRecord(
        exchange=gap.instrument.exchange,
        symbol=gap.instrument.symbol,
        first_trade_id=gap.first_id,
        last_trade_id=gap.last_id,
        state=feed_service_pb2.GapState.Value(f"GAP_STATE_{gap.state.value}"),
        cause=feed_service_pb2.GapCause.Value(f"GAP_CAUSE_{gap.cause.value}"),
        detect_time=_maybe_time(gap.detected_us),
        record_time=_maybe_time(gap.recorded_us),
        fill_time=_maybe_time(gap.filled_at_us),
        reason=gap.reason or "",
        feed=gap.feed,
    )


def duration_to(seconds: float) -> duration_pb2.Duration:
    """Seconds as a Duration."""
    whole = int(seconds)
    return duration_pb2.Duration(seconds=whole, nanos=int((seconds - whole) * 1e9))
