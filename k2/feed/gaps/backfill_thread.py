"""The thread of a feed that writes the ledger and fills gaps, beside the event loop that listens.

It may fail in every way a venue or a broker can; it then logs and counts the failure, waits, and
goes on. The event loop is not affected.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable
from typing import Any

from k2 import limits
from k2.errors import Overloaded, Unavailable
from k2.feed.gaps.filler import Filler
from k2.feed.gaps.recorder import GapRecorder
from k2.feed.publish.instrument_stream import InstrumentStream
from k2.market.instrument import Instrument

_log = logging.getLogger(__name__)


class Backfill:
    """Records and fills the gaps of one feed, from `start` to `close`.

    Attributes:
        failure: what ended the thread for good; the feed must not go on as if all was well.
    """

    def __init__(
        self,
        *,
        recorder: GapRecorder,
        filler: Filler,
        instruments: Iterable[Instrument],
        stopping: threading.Event,
    ) -> None:
        self.failure: BaseException | None = None
        self._recorder = recorder
        self._filler = filler
        self._instruments = frozenset(instruments)
        self._stopping = stopping
        self._thread = threading.Thread(target=self._run, name="backfill", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self, wait_s: float) -> None:
        """Wait for the end, at most so long; `stopping` must be set."""
        self._thread.join(wait_s)

    def exchange(self, streams: Iterable[InstrumentStream], now_s: float) -> None:
        """Exchange gaps with streams, as `GapRecorder.exchange` does."""
        self._recorder.exchange(streams, now_s)

    def counters(self) -> dict[str, Any]:
        """Return the counters of the filler."""
        return self._filler.counters()

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                self._stopping.wait(self._step())
        except Exception as error:  # noqa: BLE001 the feed's loop raises it
            if not self._stopping.is_set():  # at the end the producer may be gone before us
                _log.exception("backfill ended")
                self.failure = error

    def _step(self) -> float:
        """Do one step; return the seconds to wait before the next."""
        try:
            self._recorder.record(self._instruments)
            return min(self._filler.step(), limits.BACKFILL_STEP_S)
        except (Unavailable, Overloaded) as error:
            _log.warning("backfill waits: %s", error.message)
            return limits.RECONNECT_MAX_S
