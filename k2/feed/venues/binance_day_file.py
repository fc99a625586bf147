"""Binance's daily and monthly files of trades: `BTCUSDT-trades-2025-01-31.zip`, or the CSV in it.

A row is `id,price,qty,quote_qty,time,is_buyer_maker`, and of the spot market `,is_best_match`; the
first line may name the columns. Times of the spot market are microseconds since 2025-01-01, all
others milliseconds. A file is read line by line,
whatever its size, and each line is a trade or says what is wrong with it: a line of another day, or
in the wrong unit, is no trade of this file.
"""

from __future__ import annotations

import datetime as dt
import re
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

from k2 import limits
from k2.errors import Data, Invalid, NotFound, Reason
from k2.feed.venues.binance import Printed, label_for, trade_of
from k2.feed.venues.source import Malformed, Void
from k2.market.events import DAY_US, Fault, Trade
from k2.market.instrument import Instrument, is_symbol

_NAME = re.compile(r"(.+)-trades-(\d{4})-(\d{2})(?:-(\d{2}))?\.(zip|csv)")
_COLUMNS = (6, 7)  # of futures, of the spot market
_HEADER = b"id,"
_SIDES = {"true": True, "false": False}
_SHOWN = 80  # characters of a line in a message of ours
_NAMES_SHOWN = 5


@dataclass(frozen=True)
class DayFile:
    """A file, as its name describes it.

    Attributes:
        path: where it is.
        symbol: whose trades it holds.
        start_us, end_us: when they were printed, half-open, microseconds.
    """

    path: Path
    symbol: str
    start_us: int
    end_us: int


class DayFileLine(NamedTuple):
    """One line of a file; `number` counts from 1, as an editor does."""

    number: int
    trade: Trade | Void | Malformed


def named(path: Path) -> DayFile:
    """Read what a file is from its name.

    Raises:
        Invalid: BAD_REQUEST when the name is not one that Binance gives.
    """
    found = _NAME.fullmatch(path.name)
    try:
        if found is None or not is_symbol(found[1]):
            raise ValueError
        symbol, year, month, day, _ = found.groups()
        start = dt.date(int(year), int(month), int(day or 1))
        one_day = dt.timedelta(days=1)
        end = start + one_day if day else (start.replace(day=28) + 4 * one_day).replace(day=1)
    except ValueError:
        raise Invalid(
            Reason.BAD_REQUEST,
            f"{path.name!r} is not named SYMBOL-trades-YYYY-MM-DD.zip (or .csv, or a month's file)",
        ) from None
    return DayFile(path, symbol, _midnight_us(start), _midnight_us(end))


class DayReader:
    """The lines of a file, each read once.

    Args:
        file: which.
        exchange: id space of its trades.
        receive_time_us: when K2 got them, wall microseconds.

    Attributes:
        bytes_total: size of the CSV.
        bytes_read: of these, what was read.

    Raises:
        NotFound: BAD_REQUEST when there is no such file.
        Data: CHECKSUM_MISMATCH when it is no whole zip file with one CSV in it.
    """

    def __init__(self, file: DayFile, exchange: str, receive_time_us: int) -> None:
        self.bytes_total = 0
        self.bytes_read = 0
        self._file = file
        self._label = label_for(Instrument(exchange, file.symbol), "backfill")
        self._receive_time_us = receive_time_us
        self._archive: zipfile.ZipFile | None = None
        self._csv = self._open()

    def close(self) -> None:
        """Close the file."""
        self._csv.close()
        if self._archive is not None:
            self._archive.close()

    def lines(self) -> Iterator[DayFileLine]:
        """Read every line but the header and empty ones.

        Raises:
            Data: CHECKSUM_MISMATCH when the file turns out to be damaged.
        """
        number = 0
        while True:
            try:
                text = self._csv.readline(limits.DAY_FILE_LINE_BYTES_MAX)
            except (zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
                raise self._damaged(str(error)) from error
            if not text:
                return
            number += 1
            self.bytes_read += len(text)
            if len(text) >= limits.DAY_FILE_LINE_BYTES_MAX and not text.endswith(b"\n"):
                raise self._damaged(f"line {number} does not end")
            if text.strip() and not (number == 1 and text.startswith(_HEADER)):
                yield DayFileLine(number, self._trade(text))

    def _trade(self, text: bytes) -> Trade | Void | Malformed:
        cells = text.decode(errors="replace").strip().split(",")
        side = _SIDES.get(cells[5].lower()) if len(cells) in _COLUMNS else None
        if side is None or not (_whole(cells[0]) and _whole(cells[4])):
            shown = text[:_SHOWN].decode(errors="replace").strip()
            return Malformed(Fault.BAD_VALUE, f"{shown!r} is no trade")
        printed = Printed(
            self._label.symbol, int(cells[0]), cells[1], cells[2], int(cells[4]), side
        )
        made = trade_of(self._label, printed, self._receive_time_us, {})
        if isinstance(made, Malformed | Void):
            return made
        (trade,) = made
        if not self._file.start_us <= trade.event_time_us < self._file.end_us:
            return Malformed(Fault.OUT_OF_RANGE, f"time {cells[4]} is not of the file's days")
        return trade

    def _open(self) -> IO[bytes]:
        path = self._file.path
        try:
            if path.suffix == ".csv":
                self.bytes_total = path.stat().st_size
                return path.open("rb")
            self._archive = zipfile.ZipFile(path)
            members = [each for each in self._archive.infolist() if _is_csv(each)]
            if len(members) != 1:
                names = ", ".join(each.filename for each in members[:_NAMES_SHOWN])
                raise self._damaged(f"it holds {len(members)} CSV files, not one: {names}")
            self.bytes_total = members[0].file_size
            return self._archive.open(members[0])
        except FileNotFoundError as error:
            raise NotFound(Reason.FILE_NOT_FOUND, f"there is no file {path}") from error
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError, OSError) as error:
            raise self._damaged(str(error)) from error

    def _damaged(self, what: str) -> Data:
        return Data(Reason.CHECKSUM_MISMATCH, f"{self._file.path} is damaged: {what}")


def _is_csv(member: zipfile.ZipInfo) -> bool:
    """Return whether a member is data; folders and what macOS adds are none."""
    path = PurePosixPath(member.filename)
    foreign = member.is_dir() or "__MACOSX" in path.parts or path.name.startswith(".")
    return path.suffix.lower() == ".csv" and not foreign


def _whole(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 20


def _midnight_us(day: dt.date) -> int:
    return (day - dt.date(1970, 1, 1)).days * DAY_US
