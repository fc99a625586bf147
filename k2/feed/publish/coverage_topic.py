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
        board: `CompactedTopic(bootstrap, topics.COVERAGE)`.
        feed: whose documents are published.
        run_id: of this run of the feed.
    """

    def __init__(self, board: DocumentTopic, feed: str, run_id: str) -> None:
        self._board = board
        self._feed = feed
        self._run_id = run_id
        self._published: dict[Instrument, Coverage] = {}
        self._began_after: dict[Instrument, int] = {}

    def read(self, instruments: Iterable[Instrument]) -> dict[Instrument, int]:
        """Read the coverage of instruments before this run; publishing continues from it.

        Raises:
            Unavailable: TAPE_UNAVAILABLE.
        """
        promises = read_coverage(self._board)
        found: dict[Instrument, int] = {}
        for instrument in instruments:
            if of := promises.get(instrument):
                promise = carried(of.get(self._feed), of.values())
                self._began_after[instrument] = promise.began_after
                found[instrument] = promise.trade_id
        return found

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
            if not self._put(stream, self._promise(stream, stream.beginning - 1), at_us, wait_s):
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
            promise = self._promise(stream, stream.covered_through)
            if self._published.get(stream.instrument) == promise:
                continue
            if not self._put(stream, promise, at_us, wait_s):
                return

    def _promise(self, stream: InstrumentStream, trade_id: int) -> Coverage:
        return Coverage(min(self._began_after.get(stream.instrument, trade_id), trade_id), trade_id)

    def _put(
        self, stream: InstrumentStream, promise: Coverage, at_us: int, wait_s: float | None
    ) -> bool:
        document = {
            **promise.values(),
            "feed": self._feed,
            "first_id": stream.sequence.first,
            "resumed_after": stream.resumed_after,
            "run_id": self._run_id,
            "at_us": at_us,
        }
        try:
            self._board.put(f"{stream.instrument.key}@{self._feed}", document, wait_s)
        except K2Error as error:
            _log.warning("high water not published: %s", error.message)
            return False
        self._published[stream.instrument] = promise
        self._began_after[stream.instrument] = promise.began_after
        return True


def read_coverage(board: DocumentTopic) -> dict[Instrument, dict[str, Coverage]]:
    """Read the coverage of each instrument, by feed, as `coverage_in` does.

    Raises:
        Unavailable: TAPE_UNAVAILABLE.
    """
    return coverage_in(board.read_all())


def coverage_in(
    documents: Mapping[str, Mapping[str, Any]],
) -> dict[Instrument, dict[str, Coverage]]:
    """Return the coverage of each instrument, by feed; unreadable documents are skipped."""
    found: dict[Instrument, dict[str, Coverage]] = {}
    for key, document in documents.items():
        feed = str(document.get("feed", ""))
        with contextlib.suppress(Invalid):
            instrument, promise = parse_key(key.removesuffix(f"@{feed}")), coverage_of(document)
            if promise is not None:
                found.setdefault(instrument, {})[feed] = promise
    return found
