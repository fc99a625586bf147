"""Measures what a feed counts beside its heartbeat: trades by symbol, its queue, and backfill."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from k2.feed.publish.loop import FeedLoop
from k2.feed.publish.publisher import TradePublisher
from k2.metrics import exported
from k2.telemetry import Counter, Gauge


@dataclass(frozen=True)
class FeedMeasures:
    """What a feed measures of itself."""

    trades: Annotated[
        Mapping[str, Counter],
        exported("k2_feed_trades_total", "Trades taken, without those that came again.", "symbol"),
    ]
    acknowledged: Annotated[
        Mapping[str, Counter],
        exported(
            "k2_feed_trades_acknowledged_total", "Trades that the tape acknowledged.", "symbol"
        ),
    ]
    queue_frames: Annotated[
        Gauge, exported("k2_feed_queue_frames", "Frames read and trades that wait to be sent.")
    ]
    backfilled: Annotated[
        Counter,
        exported("k2_backfill_trades_total", "Missing trades that backfill put on the tape."),
    ]
    requests: Annotated[
        Counter, exported("k2_backfill_requests_total", "Requests for past trades to the venue.")
    ]
    failures: Annotated[
        Counter, exported("k2_backfill_failures_total", "Requests that brought no answer.")
    ]


def measure_feed(loop: FeedLoop, publisher: TradePublisher) -> FeedMeasures:
    """Measure a feed."""
    backfill = loop.gaps.counters()
    return FeedMeasures(
        trades={
            stream.instrument.symbol: stream.sequence.counts.seen + stream.reused - stream.void
            for stream in loop.streams
        },
        acknowledged={stream.instrument.symbol: stream.acknowledged for stream in loop.streams},
        queue_frames=loop.frames_waiting + publisher.refused,
        backfilled=backfill.get("filled_ids", 0),
        requests=backfill.get("requests", 0),
        failures=backfill.get("failures", 0),
    )
