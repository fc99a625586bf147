"""FeedService: the feeds, the gaps in what they received, and requests to backfill these."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from typing import Any, Final

import grpc
from google.protobuf import duration_pb2

from k2.errors import Reason, Unavailable
from k2.market.ledger import GapEvent, GapState
from k2.v1 import feed_service_pb2 as pb
from k2.v1 import feed_service_pb2_grpc as rpc
from servers.heartbeat import SERVING, Beat, Heartbeats
from servers.process_table import process_of
from servers.services.gap_queries import BackfillRequests, GapView
from servers.services.paging import page
from servers.services.wire_values import bad_field, flat_counters, source_to, time_or_unset

NAME: Final = pb.DESCRIPTOR.services_by_name["FeedService"].full_name
_PROCESS: Final = "feed"
_POLL_S: Final = 1.0
_FEED_COUNTS: Final = ("trades_acknowledged", "frames_skipped", "frames_malformed", "reconnects")
_SYMBOL_COUNTS: Final = ("gaps", "ids_missing", "duplicates", "reordered", "resets")


class FeedService(rpc.FeedServiceServicer):
    """Implements `protos/k2/v1/feed_service.proto`.

    Args:
        heartbeats: of all processes.
        gaps: the ledger.
        desk: takes backfill requests.
        draining: set when the server shuts down.
    """

    def __init__(
        self,
        *,
        heartbeats: Heartbeats,
        gaps: GapView,
        desk: BackfillRequests,
        draining: threading.Event,
    ) -> None:
        self._heartbeats = heartbeats
        self._gaps = gaps
        self._desk = desk
        self._draining = draining

    def register(self, server: grpc.Server) -> None:
        """Serve on `server`."""
        rpc.add_FeedServiceServicer_to_server(self, server)

    def ListFeeds(
        self, request: pb.ListFeedsRequest, context: grpc.ServicerContext
    ) -> pb.ListFeedsResponse:
        """List the feeds, by name."""
        feeds, token = page(
            self._feeds(), lambda feed: feed.name, request.page_size, request.page_token
        )
        return pb.ListFeedsResponse(feeds=feeds, next_page_token=token)

    def WatchFeeds(
        self, request: pb.WatchFeedsRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.WatchFeedsResponse]:
        """Stream all feeds: at once and on each change."""
        sent: list[pb.Feed] | None = None
        while context.is_active():
            feeds = self._feeds()
            if feeds != sent:
                sent = feeds
                yield pb.WatchFeedsResponse(feeds=feeds)
            if self._draining.wait(_POLL_S):
                raise Unavailable(Reason.DRAINING, "the server is shutting down")

    def ListGaps(
        self, request: pb.ListGapsRequest, context: grpc.ServicerContext
    ) -> pb.ListGapsResponse:
        """List the intervals of the ledger that match the request."""
        state = _gap_state(request.state)
        gaps = [
            gap
            for gap in self._gaps.gaps()
            if request.exchange in ("", gap.instrument.exchange)
            and request.symbol in ("", gap.instrument.symbol)
            and state in (None, gap.state)
        ]
        listed, token = page(gaps, _gap_key, request.page_size, request.page_token)
        return pb.ListGapsResponse(
            gaps=[_gap_record(gap) for gap in listed],
            next_page_token=token,
            open_trade_ids=sum(
                gap.last_id - gap.first_id + 1 for gap in gaps if gap.state is GapState.OPEN
            ),
        )

    def Backfill(
        self, request: pb.BackfillRequest, context: grpc.ServicerContext
    ) -> pb.BackfillResponse:
        """Record a request to fetch trade ids, and estimate its time."""
        plan = self._desk.ask(
            self._beats(),
            request.exchange,
            request.symbol,
            (request.first_trade_id, request.last_trade_id),
        )
        return pb.BackfillResponse(
            exchange=plan.request.instrument.exchange,
            symbol=plan.request.instrument.symbol,
            first_trade_id=plan.request.first_id,
            last_trade_id=plan.request.last_id,
            requests=plan.requests,
            eta=_duration(plan.eta_s),
        )

    def _feeds(self) -> list[pb.Feed]:
        return [feed_to(beat) for beat in self._beats()]

    def _beats(self) -> list[Beat]:
        """Return the heartbeats of the feeds."""
        return [beat for beat in self._heartbeats.beats() if process_of(beat.process) == _PROCESS]


def _gap_key(gap: GapEvent) -> str:
    return f"{gap.instrument.key}:{gap.first_id:019d}"


def feed_to(beat: Beat) -> pb.Feed:
    """Convert the heartbeat of a feed; counters without a field of their own go to `counters`."""
    counters = dict(beat.counters)
    symbols = counters.pop("symbols", None) or {}
    connected = bool(counters.pop("connected", False)) and beat.state == SERVING
    return pb.Feed(
        name=beat.process,
        state=beat.state,
        exchange=str(counters.pop("exchange", "")),
        source=source_to(str(counters.pop("source", ""))),
        venue_url=str(counters.pop("venue_url", "")),
        connected=connected,
        symbols=[_symbol_to(symbol, symbols[symbol]) for symbol in sorted(symbols)],
        **{name: int(counters.pop(name, 0)) for name in _FEED_COUNTS},
        counters=flat_counters(counters),
        report_time=time_or_unset(beat.at_us or None),
    )


def _symbol_to(symbol: str, counts: Mapping[str, Any]) -> pb.SymbolFeed:
    return pb.SymbolFeed(
        symbol=symbol,
        acknowledged_trade_id=counts.get("acknowledged_trade_id"),
        **{name: int(counts.get(name, 0)) for name in _SYMBOL_COUNTS},
    )


def _gap_state(value: int) -> GapState | None:
    """Convert the state that a request names; None for any.

    Raises:
        Invalid: BAD_REQUEST for a value that is not declared.
    """
    if value == pb.GAP_STATE_UNSPECIFIED:
        return None
    if value not in pb.GapState.values():
        raise bad_field("state", f"{value} is no state of a gap")
    return GapState[pb.GapState.Name(value).removeprefix("GAP_STATE_")]  # type: ignore[arg-type]


def _gap_record(gap: GapEvent) -> pb.GapRecord:
    """Convert a gap of the ledger."""
    return pb.GapRecord(
        exchange=gap.instrument.exchange,
        symbol=gap.instrument.symbol,
        first_trade_id=gap.first_id,
        last_trade_id=gap.last_id,
        state=pb.GapState.Value(f"GAP_STATE_{gap.state.value}"),
        cause=pb.GapCause.Value(f"GAP_CAUSE_{gap.cause.value}"),
        detect_time=time_or_unset(gap.detected_us),
        record_time=time_or_unset(gap.recorded_us),
        fill_time=time_or_unset(gap.filled_at_us),
        reason=gap.reason or "",
        feed=gap.feed,
    )


def _duration(seconds: float) -> duration_pb2.Duration:
    """Convert seconds to a Duration."""
    whole = int(seconds)
    return duration_pb2.Duration(seconds=whole, nanos=int((seconds - whole) * 1e9))
