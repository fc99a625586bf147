"""Changes the rate of a running synthetic market: a new segment, from the present moment on.

The trades printed so far keep their ids and times, whichever side is asked: the segment is kept on
disk first, then the source that sends and the archive that answers go on with it together, while
neither works.
"""

from __future__ import annotations

import logging
from pathlib import Path

from k2 import limits
from k2.clock import Clock
from k2.errors import Invalid, Reason
from servers.venue.archive import SyntheticArchive
from servers.venue.market.synthetic_market import Market, continued
from servers.venue.state_files import write_segments
from servers.venue.synthetic_source import SyntheticSource

_log = logging.getLogger(__name__)


class MarketRate:
    """The rate of one market. Of the venue's event loop; the attributes of any thread.

    Args:
        symbols: that share the rate.
        trades_per_s: at the start.
        kept: the file of the segments.
        source, archive: of the venue, of one market.
        clock: the venue's time.

    Attributes:
        trades_per_s: over the symbols.
        shown: a market for one more reader, in one other thread.
    """

    def __init__(
        self,
        *,
        symbols: tuple[str, ...],
        trades_per_s: float,
        kept: Path,
        source: SyntheticSource,
        archive: SyntheticArchive,
        clock: Clock,
    ) -> None:
        self.trades_per_s = trades_per_s
        self.shown = Market(source.market.seed, source.market.segments)
        self._symbols = symbols
        self._kept = kept
        self._source = source
        self._archive = archive
        self._clock = clock

    def change(self, trades_per_s: float) -> None:
        """Trade at another rate from now on, until it is changed or the venue ends.

        Raises:
            Invalid: BAD_REQUEST when no market trades so.
            Overloaded, Invalid: the new segment cannot be kept; the rate is what it was.
        """
        if not 0 < trades_per_s <= limits.VENUE_RATE_MAX:
            raise Invalid(
                Reason.BAD_REQUEST,
                f"trades_per_s is above 0 and at most {limits.VENUE_RATE_MAX:,.0f},"
                f" not {trades_per_s:g}",
            )
        with self._archive.paused():
            market = self._source.market
            now_us = max(self._clock.now_us(), self._source.until_us)
            segments = continued(market, self._symbols, trades_per_s, now_us)
            if segments != market.segments:
                write_segments(self._kept, market.seed, segments)
                self._source.play(Market(market.seed, segments))
                self._archive.play(Market(market.seed, segments))
                self.shown = Market(market.seed, segments)
        _log.info("trades_per_s", extra={"before": self.trades_per_s, "now": trades_per_s})
        self.trades_per_s = trades_per_s
