"""FeedService: what K2 listens to, what it missed, and requests to fetch that."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Final

import grpc

from k2.errors import Reason, Unavailable
from k2.market.ledger import GapEvent, GapState
from k2.v1 import feed_service_pb2 as pb
from k2.v1 import feed_service_pb2_grpc as rpc
from servers.heartbeat import Beat, Heartbeats
from servers.services import convert
from servers.services.gap_queries import BackfillRequests, GapView
from servers.services.paging import page

NAME: Final = pb.DESCRIPTOR.services_by_name["FeedService"].full_name
_PROCESS: Final = "feed"  # a feed's process is named so, or begins so
_POLL_S: Final = 1.0


class FeedService(rpc.FeedServiceServicer):
    """See `protos/k2/v1/feed_service.proto`.

    Args:
        heartbeats: of all processes.
        gaps: the ledger.
        desk: takes requests to fetch.
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
        """See the proto."""
        feeds, token = page(
            self._feeds(), lambda feed: feed.name, request.page_size, request.page_token
        )
        return pb.ListFeedsResponse(feeds=feeds, next_page_token=token)

    def WatchFeeds(
        self, request: pb.WatchFeedsRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.WatchFeedsResponse]:
        """See the proto."""
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
        """See the proto."""
        state = convert.gap_state_from(request.state)
        found = [
            gap
            for gap in self._gaps.gaps()
            if request.exchange in ("", gap.instrument.exchange)
            and request.symbol in ("", gap.instrument.symbol)
            and state in (None, gap.state)
        ]
        listed, token = page(found, _gap_key, request.page_size, request.page_token)
        return pb.ListGapsResponse(
            gaps=[convert.gap_to(gap) for gap in listed],
            next_page_token=token,
            open_trade_ids=sum(
                gap.last_id - gap.first_id + 1 for gap in found if gap.state is GapState.OPEN
            ),
        )

    def Backfill(
        self, request: pb.BackfillRequest, context: grpc.ServicerContext
    ) -> pb.BackfillResponse:
        """See the proto."""
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
            eta=convert.duration_to(plan.eta_s),
        )

    def _feeds(self) -> list[pb.Feed]:
        return [convert.feed_to(beat) for beat in self._beats()]

    def _beats(self) -> list[Beat]:
        """Of the feeds."""
        return [beat for beat in self._heartbeats.beats() if beat.process.startswith(_PROCESS)]


def _gap_key(gap: GapEvent) -> str:
    return f"{gap.instrument.key}:{gap.first_id:019d}"
