"""Converts queries between `k2.v1` and K2's own values: requests, and the provenance of answers."""

from __future__ import annotations

from k2.degrade.level import Level
from k2.market.offsets import ReadToken
from k2.query.provenance import Provenance
from k2.query.request import Caller, Consistency, Order, TradesRequest
from k2.v1 import market_pb2
from k2.v1 import query_service_pb2 as pb
from k2.v1.error_reason_pb2 import ErrorReason
from servers.services import read_token
from servers.services.shape_messages import enum_name, shape_from, shape_to
from servers.services.wire_values import (
    duration_us_from,
    level_to,
    range_from,
    range_to,
    source_to,
    time_or_unset,
    time_to,
    time_us_from,
    vector_to,
)


def request_from(message: pb.PlanQueryRequest, caller: Caller) -> TradesRequest:
    """Convert a PlanQueryRequest to the request of a caller.

    Raises:
        Invalid: BAD_REQUEST when a part of it has no meaning, BAD_TOKEN when that is its token.
    """
    shape, trades = shape_from(message)
    consistency, snapshot, time_us, token = _as_of(trades)
    return TradesRequest(
        symbols=tuple(trades.symbols),
        exchanges=tuple(trades.exchanges),
        range=range_from(trades.range),
        last_us=duration_us_from(trades.last, "last") if trades.HasField("last") else None,
        columns=tuple(trades.columns),
        limit=trades.limit if trades.HasField("limit") else None,
        order=_order(trades.order),
        consistency=consistency,
        as_of_snapshot=snapshot,
        as_of_time_us=time_us,
        as_of_token=token,
        allow_partial=trades.allow_partial,
        caller=caller,
        shape=shape,
    )


def _as_of(
    trades: pb.TradesRequest,
) -> tuple[Consistency, int | None, int | None, ReadToken | None]:
    which = trades.WhichOneof("as_of")
    snapshot = trades.as_of_snapshot_id if which == "as_of_snapshot_id" else None
    time_us = time_us_from(trades.as_of_time, "as_of_time") if which == "as_of_time" else None
    token = read_token.from_text(trades.as_of_token) if which == "as_of_token" else None
    if trades.consistency == pb.CONSISTENCY_UNSPECIFIED:
        return (Consistency.AS_OF if which else Consistency.UNION), snapshot, time_us, token
    return _consistency(trades.consistency), snapshot, time_us, token


def _order(number: pb.Order.ValueType) -> Order:
    name = enum_name(pb.Order.DESCRIPTOR, number, "order")
    return Order.ASC if name == "ORDER_UNSPECIFIED" else Order[name.removeprefix("ORDER_")]


def _consistency(number: pb.Consistency.ValueType) -> Consistency:
    name = enum_name(pb.Consistency.DESCRIPTOR, number, "consistency")
    return Consistency[name.removeprefix("CONSISTENCY_")]


def request_to(request: TradesRequest) -> pb.PlanQueryRequest:
    """Convert a request, without its caller, to the message that `request_from` reads back."""
    trades = pb.TradesRequest(
        symbols=request.symbols,
        exchanges=request.exchanges,
        range=range_to(request.range),
        columns=request.columns,
        limit=request.limit,
        order=pb.Order.Value(f"ORDER_{request.order.name}"),
        consistency=pb.Consistency.Value(f"CONSISTENCY_{request.consistency.name}"),
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
    return shape_to(request.shape, trades)


def provenance_to(provenance: Provenance, level: Level) -> market_pb2.Provenance:
    """Convert a provenance; row counts are added when they are known."""
    ahead_us = provenance.as_of_ahead_us
    return market_pb2.Provenance(
        snapshot_id=provenance.snapshot_id,
        snapshot_commit_time=time_or_unset(provenance.committed_at_us),
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
        newest_receive_time=time_or_unset(provenance.newest_receive_us),
        token=read_token.to_text(provenance.token),
        range=range_to(provenance.range),
        covered_until_time=time_or_unset(provenance.covered_until_us),
        as_of_ahead_ms=None if ahead_us is None else ahead_us / 1e3,
    )
