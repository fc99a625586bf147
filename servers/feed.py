"""FeedService: what K2 listens to, from the heartbeats of the feeds."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Final

import grpc

from k2.errors import Reason, Unavailable
from k2.v1 import feed_service_pb2 as pb
from k2.v1 import feed_service_pb2_grpc as rpc
from servers import convert
from servers.heartbeat import Heartbeats
from servers.paging import page

NAME: Final = pb.DESCRIPTOR.services_by_name["FeedService"].full_name
_PROCESS: Final = "feed"  # a feed's process is named so, or begins so
_POLL_S: Final = 1.0


class FeedService(rpc.FeedServiceServicer):
    """See `protos/k2/v1/feed_service.proto`.

    Args:
        heartbeats: of all processes.
        draining: set when the server shuts down.
    """

    def __init__(self, *, heartbeats: Heartbeats, draining: threading.Event) -> None:
        self._heartbeats = heartbeats
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

    def _feeds(self) -> list[pb.Feed]:
        return [
            convert.feed_to(beat)
            for beat in self._heartbeats.beats()
            if beat.process.startswith(_PROCESS)
        ]
