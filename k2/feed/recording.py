"""Recordings: the frames of a venue in a file, as `k2 record` writes and the practice venue plays.

Two forms, one JSON object a line, plain or (a name that ends in `.zst`) compressed:

* combined frames as the venue sent them: `{"stream": ..., "data": {...}}`;
* a session: `{"t", "conn", "ts", "data"}` where `t` is connect, send or recv, `ts` seconds since
  1970 and `data` the text of a frame.

The two may be mixed. What was cut short by the end of a process (half a last line, an unfinished
zstd frame) is left out; anything else that is not a line of a recording is refused by its number.
"""

from __future__ import annotations

import errno
import io
import logging
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple, cast

import msgspec
import zstandard

from k2 import limits
from k2.errors import Invalid, NotFound, Reason, error_of

_MICROSECONDS_FROM = 100_000_000_000_000  # a larger time is in microseconds, else milliseconds
_COMPRESSED = ".zst"
_UNKNOWN_COMPRESSIONS = (".gz", ".bz2", ".xz", ".lz4", ".zip")
_COMBINED = b'{"stream":'
_BUFFER_BYTES = 1 << 18

# What a decoder raises for foreign text; RecursionError for one that is nested too deep.
_UNREADABLE = (msgspec.DecodeError, ValueError, OverflowError, RecursionError)

_log = logging.getLogger(__name__)


class Frame(NamedTuple):
    """One message that a venue sent.

    Attributes:
        time_us: when it was received or, in a recording that does not say, traded; microseconds
            since 1970 UTC; None where neither is known.
        text: the message.
    """

    time_us: int | None
    text: str


class _RecordedLine(msgspec.Struct):
    """A line of either form; what the form lacks is unset."""

    stream: str | None = None
    data: msgspec.Raw = msgspec.Raw(b"")
    t: str | int | None = None  # of a single event it is the trade id
    ts: float | None = None
    e: str | None = None


class _Traded(msgspec.Struct):
    time: int | None = msgspec.field(default=None, name="T")


class _StreamEvent(msgspec.Struct):
    stream: str | None = None
    kind: Any = msgspec.field(default=None, name="e")
    symbol: Any = msgspec.field(default=None, name="s")


class _Combined(msgspec.Struct):
    """The common line, read in one pass."""

    stream: str
    data: _Traded


_line = msgspec.json.Decoder(_RecordedLine)
_combined = msgspec.json.Decoder(_Combined)
_traded = msgspec.json.Decoder(_Traded)
_text = msgspec.json.Decoder(str)
_event = msgspec.json.Decoder(_StreamEvent)


def read_frames(path: Path | str) -> Iterator[Frame]:
    """Read what a venue sent, in the order of the file.

    Raises:
        NotFound: BAD_SETTING when there is no such file.
        Invalid: BAD_SETTING, naming the line that is not one of a recording.
    """
    path = Path(path)
    with _opened(path) as lines:
        number = 0
        while line := _next_line(lines, path, number):
            number += 1
            if not line.strip():
                continue
            try:
                frame = _frame(line)
            except _UNREADABLE as error:
                if line.endswith(b"\n"):
                    raise _not_a_line(path, number, str(error)) from error
                _log.warning("recording ends inside a line", extra={"path": str(path)})
                return
            if frame is not None:
                yield frame


def symbols(path: Path | str) -> tuple[str, ...]:
    """List the symbols whose trades a recording holds, upper case, in order of appearance.

    Reads the whole file, so that a damaged recording is refused before it is played.
    """
    found: dict[str, None] = {}
    for frame in read_frames(path):
        symbol = traded_symbol(frame.text)
        if symbol:
            found.setdefault(symbol)
    return tuple(found)


def traded_symbol(text: str) -> str | None:
    """Return the symbol of a trade stream's frame, upper case; None for any other frame."""
    try:
        event = _event.decode(text)
    except _UNREADABLE:
        return None
    if event.stream is not None:
        symbol, at, kind = event.stream.partition("@")
        return symbol.upper() if at and kind == "trade" else None
    if event.kind == "trade" and isinstance(event.symbol, str):
        return event.symbol.upper()
    return None


def _next_line(lines: io.BufferedReader, path: Path, number: int) -> bytes:
    try:
        line = lines.readline(limits.RECORDING_LINE_BYTES_MAX + 1)
    except zstandard.ZstdError as error:
        raise _not_a_line(path, number + 1, f"damaged compression: {error}") from error
    if len(line) > limits.RECORDING_LINE_BYTES_MAX:
        raise _not_a_line(path, number + 1, f"over {limits.RECORDING_LINE_BYTES_MAX} bytes")
    return line


def _opened(path: Path) -> io.BufferedReader:
    try:
        file: BinaryIO = path.open("rb")
    except OSError as error:
        raise NotFound(
            Reason.FILE_NOT_FOUND, f"recording {path} cannot be read: {error.strerror}"
        ) from error
    if path.suffix == _COMPRESSED:
        reader = zstandard.ZstdDecompressor().stream_reader(
            file, read_across_frames=True, closefd=True
        )
        return io.BufferedReader(cast(io.RawIOBase, reader), _BUFFER_BYTES)
    return io.BufferedReader(cast(io.RawIOBase, file), _BUFFER_BYTES)


def _not_a_line(path: Path, number: int, why: str) -> Invalid:
    return Invalid(Reason.BAD_SETTING, f"line {number} of {path} is not one of a recording: {why}")


def _frame(line: bytes) -> Frame | None:
    """Read the frame of a line; None for a session's line that is not a received frame."""
    if line.startswith(_COMBINED):
        try:
            return Frame(_in_microseconds(_combined.decode(line).data.time), line.decode().strip())
        except msgspec.ValidationError:
            pass  # of another stream; the slower way says whether it is one at all
    fields = _line.decode(line)
    if isinstance(fields.t, str) and fields.stream is None:
        if fields.t != "recv":
            return None
        time_us = None if fields.ts is None else round(fields.ts * 1e6)
        return Frame(time_us, _text.decode(fields.data))
    if fields.stream is None and fields.e is None:
        raise ValueError("neither a combined frame nor a line of a session")
    text = line.decode().strip()
    return Frame(_traded_us(bytes(fields.data) if fields.stream else line), text)


def _traded_us(event: bytes) -> int | None:
    """Read the trade time `T` of an event, in microseconds; None for an event without one."""
    try:
        return _in_microseconds(_traded.decode(event).time)
    except _UNREADABLE:
        return None


def _in_microseconds(time: int | None) -> int | None:
    if time is None or time < 0:
        return None
    return time if time >= _MICROSECONDS_FROM else time * 1000


class RecordingWriter:
    """Writes a session, a line a message; what was flushed is readable after any end.

    Args:
        path: a new file; a name that ends in `.zst` is compressed.

    Raises:
        Invalid: BAD_REQUEST when the file exists and is not empty, cannot be made, or its name
            says a compression that is not written.
    """

    def __init__(self, path: Path | str) -> None:
        self._path = Path(path)
        try:
            if self._path.suffix in _UNKNOWN_COMPRESSIONS:
                raise Invalid(
                    Reason.BAD_REQUEST,
                    f"{path} says a compression that K2 does not write: end the name in"
                    f" {_COMPRESSED}, or in .jsonl for none",
                )
            if self._path.exists() and self._path.stat().st_size:
                raise Invalid(
                    Reason.BAD_REQUEST, f"{path} exists; a recording is never overwritten"
                )
            self._file = self._path.open("wb")
        except OSError as error:
            raise Invalid(
                Reason.BAD_REQUEST, f"{path} cannot be written: {error.strerror}"
            ) from error
        compressor = zstandard.ZstdCompressor(level=3)
        self._compressed = (
            compressor.stream_writer(self._file, closefd=False)
            if self._path.suffix == _COMPRESSED
            else None
        )
        self._encoder = msgspec.json.Encoder()
        self._closed = False

    def write(
        self, t: Literal["connect", "send", "recv"], conn: str, ts: float, data: str | None
    ) -> None:
        """Add a line.

        Args:
            t: what happened.
            conn: name of the connection.
            ts: when, seconds since 1970.
            data: the text of the message; None for a connect.

        Raises:
            Overloaded: DISK_FULL.
        """
        line: dict[str, object] = {"t": t, "conn": conn, "ts": ts}
        if data is not None:
            line["data"] = data
        encoded = self._encoder.encode(line) + b"\n"
        self._guarded(lambda: (self._compressed or self._file).write(encoded))

    def flush(self) -> None:
        """Hand all lines to the operating system, readable as they are.

        Raises:
            Overloaded: DISK_FULL.
        """
        self._guarded(self._flush)

    def close(self) -> None:
        """Finish the file and make it durable; a second close does nothing."""
        if self._closed:
            return
        self._closed = True
        try:
            self._guarded(self._finish)
        finally:
            self._file.close()

    def _flush(self) -> None:
        if self._compressed is not None:
            self._compressed.flush(zstandard.FLUSH_BLOCK)
        self._file.flush()

    def _finish(self) -> None:
        if self._compressed is not None:
            self._compressed.flush(zstandard.FLUSH_FRAME)
        self._file.flush()
        if stat.S_ISREG(os.fstat(self._file.fileno()).st_mode):  # a FIFO cannot be synced
            os.fsync(self._file.fileno())

    def _guarded(self, action: Callable[[], object]) -> None:
        try:
            action()
        except OSError as error:
            reason = Reason.DISK_FULL if error.errno == errno.ENOSPC else Reason.NOT_WRITABLE
            raise error_of(reason, f"{self._path} cannot be written: {error.strerror}") from error
