"""Publishes a venue's daily file of trades to the tape, beside a running feed.

    python -m servers backfill FILE [--symbol BTCUSDT] [--exchange BINANCE]

Each row goes the way of every trade: same topic, partition and schema, source `backfill`; the fold
drops what is there already, so a file may be loaded twice, or again after an interruption. What the
ledger knows of the ids that landed is filled. A line that is no trade is refused by its number, the
others are loaded, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial
from pathlib import Path

from k2 import limits
from k2.errors import Data, Invalid, Reason, Unavailable
from k2.feed.gaps.pages import runs_of
from k2.feed.gaps.sender import Place, Sender
from k2.feed.venues.binance_day_file import DayFile, DayReader, named
from k2.feed.venues.source import Malformed, Void
from k2.market.events import Trade
from k2.market.instrument import Instrument
from k2.market.ledger import (
    Cause,
    GapEvent,
    GapState,
    Ledger,
    cut,
    filled,
)
from k2.settings import EXCHANGE_PATTERN, Settings
from k2.tape import topics
from k2.tape.avro.trade_codec import encode_trade
from k2.tape.gap_topic import GapLog
from k2.tape.tape_clients import TapeClients
from servers.local.stack_options import Arguments
from servers.local.stamp import read_stamp
from servers.runtime import Runtime

_FEED = "file"  # names this in the ledger


def run(settings: Settings, runtime: Runtime, argv: list[str]) -> int:
    """Load a file; 1 when a line was refused or not everything was loaded.

    Raises:
        Invalid: an argument or the file's name is wrong.
        NotFound: there is no such file.
        Data: the file is damaged, or the data directory holds trades that never were.
        Unavailable: the tape does not answer; what was loaded until then is there.
    """
    asked = _asked(settings, argv)
    file = named(asked.file)
    if asked.symbol not in (None, file.symbol):
        raise Invalid(
            Reason.BAD_REQUEST, f"{asked.file.name} holds {file.symbol}, not {asked.symbol}"
        )
    instrument = Instrument(asked.exchange, file.symbol)
    _check_stamp(settings, instrument)
    with ExitStack() as parts:
        reader = DayReader(file, instrument.exchange, runtime.clock.now_us())
        parts.enter_context(closing(reader))
        clients = parts.enter_context(
            TapeClients.open(settings, runtime.clock, runtime.stopping.wait)
        )
        with runtime.interruptible():  # a tape that is away is asked for long
            schema_id = topics.deploy(settings.tape, clients.schemas)
        partition = clients.partition_map().place(instrument)
        sender = Sender(
            tape=clients.producer,
            places={instrument: Place(instrument.key.encode(), partition)},
            encode=partial(encode_trade, schema_id=schema_id),
            clock=runtime.clock,
            pause=pausing(clients.producer.poll, runtime),
        )
        loader = Loader(reader=reader, sender=sender, log=clients.gap_log, runtime=runtime)
        whole = loader.load(instrument)
    return _told(runtime, file, instrument, loader, whole)


def pausing(poll: Callable[[float], object], runtime: Runtime) -> Callable[[float], bool]:
    """Make the `pause` of a sender: once asked to stop, it waits a moment for pending records."""
    until_s = float("inf")

    def pause(seconds: float) -> bool:
        nonlocal until_s
        poll(seconds)
        now_s = runtime.clock.monotonic_s()
        if runtime.stopping.is_set():
            until_s = min(until_s, now_s + limits.STOP_S)
        return runtime.second_signal.is_set() or now_s >= until_s

    return pause


class Loader:
    """Sends the rows of a file.

    Args:
        reader: of the file.
        sender: for its instrument.
        log: the ledger.
        runtime: prints what is refused; ends the loading when it is stopping.

    Attributes:
        loaded: rows that the tape has acknowledged.
        refused: lines that are no trades.
        filled: ids of these that the ledger had as missing.
        first_id, last_id: lowest and highest id loaded; None before any.
    """

    def __init__(self, *, reader: DayReader, sender: Sender, log: GapLog, runtime: Runtime) -> None:
        self.loaded = 0
        self.refused = 0
        self.filled = 0
        self.first_id: int | None = None
        self.last_id: int | None = None
        self._reader = reader
        self._sender = sender
        self._log = log
        self._ledger = Ledger()
        self._runtime = runtime
        self._void: list[int] = []  # printed without a trade, and not in the ledger yet

    def load(self, instrument: Instrument) -> bool:
        """Load every row; whether the file was read to its end.

        Raises:
            Data: the file is damaged; all rows before the damage are loaded.
            Unavailable: the tape does not answer.
        """
        batch: list[Trade] = []
        try:
            for line in self._reader.lines():
                if self._runtime.stopping.is_set():
                    return False
                if isinstance(line.trade, Malformed):
                    self._refuse(line.number, line.trade)
                    continue
                if isinstance(line.trade, Void):
                    self._void.append(line.trade.trade_id)
                    continue
                batch.append(line.trade)
                if len(batch) == limits.DAY_FILE_ROWS:
                    self._send(instrument, batch)
                    batch = []
        except Data as error:
            self._send(instrument, batch)
            raise Data(
                error.reason, f"{error.message}; the {self.loaded:,} trades before it are loaded"
            ) from error
        self._send(instrument, batch)
        return True

    def _send(self, instrument: Instrument, batch: list[Trade]) -> None:
        self._tell_void(instrument)
        if not batch:
            return
        landed = sorted(self._sender.send(batch))
        self.loaded += sum(trade.trade_id in set(landed) for trade in batch)
        self._fill(instrument, landed)
        if {trade.trade_id for trade in batch} != set(landed):
            raise Unavailable(
                Reason.TAPE_UNAVAILABLE,
                f"the tape acknowledges no more; {self.loaded:,} trades are loaded, load the file "
                "again for the rest",
                retry_after_s=limits.RECONNECT_MAX_S,
            )
        self.first_id = min(landed[0], self.first_id if self.first_id is not None else landed[0])
        self.last_id = max(landed[-1], self.last_id if self.last_id is not None else landed[-1])
        self._runtime.emit(
            "progress",
            message="loading",
            done=self._reader.bytes_read,
            total=self._reader.bytes_total,
        )

    def _fill(self, instrument: Instrument, landed: list[int]) -> None:
        """Tell the ledger which missing ids came."""
        for event in self._log.advance():
            self._ledger.apply(event)
        now_us = self._runtime.clock.now_us()
        events: list[GapEvent] = []
        for run in runs_of(landed):
            for gap in self._ledger.within(instrument, *run):
                if gap.state is not GapState.FILLED:
                    came = filled(cut(gap, *run), now_us)
                    events.append(replace(came, recorded_us=now_us, feed=_FEED))
                    self.filled += came.last_id - came.first_id + 1
        self._log.publish(events, limits.BOARD_WAIT_S)

    def _tell_void(self, instrument: Instrument) -> None:
        """Tell the ledger which ids the file has without a trade."""
        if not self._void:
            return
        now_us = self._runtime.clock.now_us()
        events = [
            GapEvent(instrument, *run, now_us, Cause.REQUESTED, GapState.VOID, now_us, _FEED)
            for run in runs_of(sorted(self._void))
        ]
        self._log.publish(events, limits.BOARD_WAIT_S)
        self._void.clear()

    def _refuse(self, number: int, malformed: Malformed) -> None:
        self.refused += 1
        if self.refused <= limits.DAY_FILE_REFUSED_LISTED:
            place = f"line {number}"
            self._runtime.emit("refused", place=place, error=malformed.error)


def _told(
    runtime: Runtime, file: DayFile, instrument: Instrument, loader: Loader, whole: bool
) -> int:
    """Say what became of a file; the exit code."""
    ok = whole and not loader.refused
    end = "" if whole else "; interrupted before the end: load it again for the rest"
    runtime.emit(
        "result",
        ok=ok,
        path=str(file.path),
        exchange=instrument.exchange,
        symbol=instrument.symbol,
        loaded=loader.loaded,
        refused=loader.refused,
        filled=loader.filled,
        first_trade_id=loader.first_id,
        last_trade_id=loader.last_id,
        message=f"{instrument.key}: {loader.loaded:,} trades loaded, {loader.refused:,} lines"
        f" refused, {loader.filled:,} missing ids filled{end}",
    )
    return 0 if ok else 1


def _check_stamp(settings: Settings, instrument: Instrument) -> None:
    """Real trades do not go among simulated ones of the same name: their ids mean other trades.

    Raises:
        Data: STAMP_MISMATCH.
    """
    stamp = read_stamp(settings.data_dir / "stamp.json")
    if stamp is not None and (stamp.source, stamp.exchange) == ("simulated", instrument.exchange):
        raise Data(
            Reason.STAMP_MISMATCH,
            f"{settings.data_dir} holds simulated trades of {instrument.exchange}, the file real "
            "ones: load it into a directory of live or recorded trades, or say --exchange NAME to "
            "give it an id space of its own here",
            metadata={"stamp": stamp.source, "exchange": instrument.exchange},
        )


# --- arguments ------------------------------------------------------------------------------------


class _Asked(argparse.Namespace):
    file: Path
    symbol: str | None
    exchange: str


def _asked(settings: Settings, argv: list[str]) -> _Asked:
    stamp = read_stamp(settings.data_dir / "stamp.json")
    exchange = settings.feed.exchange if stamp is None else stamp.exchange
    parser = Arguments("backfill")
    parser.add_argument("file", type=Path)
    parser.add_argument("--symbol")
    parser.add_argument("--exchange", type=_exchange, default=exchange)
    return parser.parse_args(argv, _Asked())


def _exchange(text: str) -> str:
    if not re.fullmatch(EXCHANGE_PATTERN, text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a name such as BINANCE")
    return text
