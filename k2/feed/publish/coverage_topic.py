"""Publishes the coverage of each stream on a compacted topic, where it survives the process.

Each feed has its own documents, so none hides where another began. The document of an instrument
has `trade_id`, the id it is covered through (`instrument_stream.py`); `began_after`, the id below
the first that this feed ever covered, which may be -1; `first_id`, the first id of the run that
published it; `resumed_after`, the coverage before that run (null: none). No feed listened while the
ids between `resumed_after` and `first_id` were printed.

A run resumes where the coverage of its feed ends, extended by the coverage of other feeds that
overlaps it: an id that another feed has is not missing. A document of an earlier K2 has no feed.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Mapping
from typing import Any

from k2.errors import Invalid, K2Error
from k2.feed.publish.instrument_stream import InstrumentStream
from k2.market.coverage import Coverage, carried, coverage_of
from k2.market.instrument import Instrument, parse_key
from k2.tape.ports import DocumentTopic

_log = logging.getLogger(__name__)


class CoverageTopic:
    """Publishes and reads coverage.

    Args:
        topic: `CompactedTopic(bootstrap, topics.COVERAGE)`.
        feed: whose documents are published.
        run_id: of this run of the feed.
    """

    def __init__(self, topic: DocumentTopic, feed: str, run_id: str) -> None:
        self._topic = topic
        self._feed = feed
        self._run_id = run_id
        self._published: dict[Instrument, Coverage] = {}
        self._began_after: dict[Instrument, int] = {}

    def read(self, instruments: Iterable[Instrument]) -> dict[Instrument, int]:
        """Read the coverage of instruments before this run; publishing continues from it.

        Raises:
            Unavailable: TAPE_UNAVAILABLE.
        """
        by_instrument = read_coverage(self._topic)
        resumed: dict[Instrument, int] = {}
        for instrument in instruments:
            if by_feed := by_instrument.get(instrument):
                coverage = carried(by_feed.get(self._feed), by_feed.values())
                self._began_after[instrument] = coverage.began_after
                resumed[instrument] = coverage.trade_id
        return resumed

    def begin(self, streams: Iterable[InstrumentStream], at_us: int, wait_s: float) -> bool:
        """Publish where streams begin, and release their trades; the tape's absence is logged.

        Args:
            streams: those that wait for it, with their `beginning`.
            at_us: now, wall microseconds.
            wait_s: for each acknowledgement.

        Returns:
            Whether all are acknowledged; what is not is to be published again.
        """
        for stream in streams:
            assert stream.beginning is not None, "the stream has heard nothing"
            if not self._put(stream, self._extended(stream, stream.beginning - 1), at_us, wait_s):
                return False
            stream.begun = True
        return True

    def publish(
        self, streams: Iterable[InstrumentStream], at_us: int, wait_s: float | None = None
    ) -> None:
        """Publish the streams whose coverage has changed; the tape's absence is logged.

        Args:
            streams: any streams.
            at_us: now, wall microseconds.
            wait_s: wait for acknowledgements, at most so long each; None does not wait.
        """
        for stream in streams:
            if stream.covered_through is None:
                continue
            coverage = self._extended(stream, stream.covered_through)
            if self._published.get(stream.instrument) == coverage:
                continue
            if not self._put(stream, coverage, at_us, wait_s):
                return

    def _extended(self, stream: InstrumentStream, trade_id: int) -> Coverage:
        return Coverage(min(self._began_after.get(stream.instrument, trade_id), trade_id), trade_id)

    def _put(
        self, stream: InstrumentStream, coverage: Coverage, at_us: int, wait_s: float | None
    ) -> bool:
        document = {
            **coverage.values(),
            "feed": self._feed,
            "first_id": stream.sequence.first,
            "resumed_after": stream.resumed_after,
            "run_id": self._run_id,
            "at_us": at_us,
        }
        try:
            self._topic.put(f"{stream.instrument.key}@{self._feed}", document, wait_s)
        except K2Error as error:
            _log.warning("coverage not published: %s", error.message)
            return False
        self._published[stream.instrument] = coverage
        self._began_after[stream.instrument] = coverage.began_after
        return True


def read_coverage(topic: DocumentTopic) -> dict[Instrument, dict[str, Coverage]]:
    """Read the coverage of each instrument, by feed, as `coverage_in` does.

    Raises:
        Unavailable: TAPE_UNAVAILABLE.
    """
    return coverage_in(topic.read_all())


def coverage_in(
    documents: Mapping[str, Mapping[str, Any]],
) -> dict[Instrument, dict[str, Coverage]]:
    """Return the coverage of each instrument, by feed; unreadable documents are skipped."""
    covered: dict[Instrument, dict[str, Coverage]] = {}
    for key, document in documents.items():
        feed = str(document.get("feed", ""))
        with contextlib.suppress(Invalid):
            instrument, coverage = parse_key(key.removesuffix(f"@{feed}")), coverage_of(document)
            if coverage is not None:
                covered.setdefault(instrument, {})[feed] = coverage
    return covered
