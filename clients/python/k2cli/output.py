"""Writes rows to a stream in the requested format, one batch in memory at a time.

csv, tsv, json and ndjson hold exact texts (`arrow_text`); arrow and parquet hold the columns as
received, with the answer's provenance in the metadata of their schema. A regular file appears whole
or not at all; a device, a FIFO or a descriptor is written in place.
"""

from __future__ import annotations

import contextlib
import gzip
import os
import stat
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, cast

import click
import pyarrow as pa
import pyarrow.parquet as pq
from rich.cells import cell_len

from k2cli import console
from k2client import arrow_text

TABLE_SAMPLE_ROWS = 1000
_GAP = 2  # between two columns
_LEFT_ALIGNED = (
    *("exchange", "symbol", "side", "source", "event_time", "receive_time"),
    *("bar_start", "start_time", "end_time", "date", "first_time", "last_time", "status"),
    *("right_exchange", "right_symbol", "right_side", "right_source"),
    *("right_event_time", "right_receive_time"),
)

FORMATS = ("table", "json", "ndjson", "csv", "tsv", "arrow", "parquet")
BINARY = ("arrow", "arrows", "parquet")
_BY_SUFFIX = {
    "": "table",
    ".txt": "table",
    ".json": "json",
    ".ndjson": "ndjson",
    ".jsonl": "ndjson",
    ".csv": "csv",
    ".tsv": "tsv",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".arrows": "arrows",
    ".parquet": "parquet",
}
_COMPRESSED = ".gz"
_DESCRIPTORS = ("/dev/", "/proc/")
Writer = Callable[[pa.Schema, Iterable[pa.RecordBatch], BinaryIO], int]


def write(
    name: str,
    schema: pa.Schema,
    batches: Iterable[pa.RecordBatch],
    to: BinaryIO,
    page: console.Page = console.FILE,
) -> int:
    """Write all batches in a format and return the number of rows.

    Args:
        name: the name of the format.
        schema: the schema of the batches.
        batches: the rows.
        to: the stream to write to.
        page: width and encoding of `to`; only a table uses it.
    """
    if name == "table":
        return _table(schema, batches, to, page)
    return _WRITERS[name](schema, batches, to)


def format_of(asked: str | None, path: Path | None) -> str:
    """Return the requested format, else that of the file's suffix, else `table`.

    `arrow` is the file form in a file with such a suffix, and the stream (`arrows`) elsewhere.

    Raises:
        click.UsageError: the suffix names a format that K2 does not write.
    """
    by_suffix = _format_by_suffix(path) if path else "table"
    if by_suffix is None and asked is None:
        known = ", ".join(filter(None, _BY_SUFFIX))
        raise click.UsageError(
            f"{path} says a format that K2 does not write: say --format, or end the name in one"
            f" of {known} (texts also with {_COMPRESSED})"
        )
    name = asked or by_suffix or "table"
    if name == "arrow" and (path is None or by_suffix != "arrow" or _written_in_place(path)):
        return "arrows"
    return name


def is_compressed(path: Path | None) -> bool:
    """Return whether a file's suffix says that it is compressed."""
    return path is not None and path.suffix.lower() == _COMPRESSED


def _format_by_suffix(path: Path) -> str | None:
    if not is_compressed(path):
        return _BY_SUFFIX.get(path.suffix.lower())
    name = _BY_SUFFIX.get(Path(path.stem).suffix.lower())
    return None if name in (*BINARY, "table") else name


@contextlib.contextmanager
def target(path: Path | None, *, compressed: bool = False) -> Iterator[BinaryIO]:
    """Open standard output or a file.

    A regular file is replaced once everything is written, and keeps its mode; a link stays, and
    the file that it names is replaced. A device, a FIFO and a descriptor are written in place.
    """
    if path is None:
        stream = sys.stdout.buffer
        yield stream
        stream.flush()
        return
    with path.open("wb") if _written_in_place(path) else _replacing(path) as file:
        if compressed:
            with gzip.GzipFile("", "wb", fileobj=file, mtime=0) as packed:
                yield cast(BinaryIO, packed)
        else:
            yield file


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[BinaryIO]:
    named = Path(os.path.realpath(path))
    unfinished = named.with_name(f".{named.name}.{os.getpid()}.part")
    try:
        with unfinished.open("wb") as file:
            with contextlib.suppress(FileNotFoundError):
                os.fchmod(file.fileno(), stat.S_IMODE(named.stat().st_mode))
            yield file
        unfinished.replace(named)
    finally:
        unfinished.unlink(missing_ok=True)


def _written_in_place(path: Path) -> bool:
    """Return whether a path is a device, a FIFO or a descriptor, which no file may replace."""
    try:
        regular = stat.S_ISREG(path.stat().st_mode)
    except FileNotFoundError:
        return False
    return not regular or str(path.absolute()).startswith(_DESCRIPTORS)


def for_another_process(path: Path) -> Path:
    """Resolve a path for a process with another working directory and other descriptors."""
    path = path.absolute()
    if path.is_symlink() and path.readlink().is_relative_to("/proc/self"):
        path = path.readlink()  # /dev/stdout
    return Path(os.path.realpath(path.parent), path.name)


def _csv(schema: pa.Schema, batches: Iterable[pa.RecordBatch], to: BinaryIO) -> int:
    return _separated(schema, batches, to, ",")


def _tsv(schema: pa.Schema, batches: Iterable[pa.RecordBatch], to: BinaryIO) -> int:
    return _separated(schema, batches, to, "\t")


def _separated(
    schema: pa.Schema, batches: Iterable[pa.RecordBatch], to: BinaryIO, separator: str
) -> int:
    to.write((separator.join(schema.names) + "\n").encode())
    rows = 0
    for batch in batches:
        if lines := arrow_text.csv_lines(batch, separator):
            to.write(("\n".join(lines) + "\n").encode())
        rows += batch.num_rows
    return rows


def _json(_schema: pa.Schema, batches: Iterable[pa.RecordBatch], to: BinaryIO) -> int:
    rows = 0
    to.write(b"[")
    for batch in batches:
        if lines := arrow_text.json_rows(batch):
            to.write((",\n" if rows else "\n").encode() + ",\n".join(lines).encode())
            rows += len(lines)
    to.write(b"\n]\n")
    return rows


def _ndjson(_schema: pa.Schema, batches: Iterable[pa.RecordBatch], to: BinaryIO) -> int:
    rows = 0
    for batch in batches:
        if lines := arrow_text.json_rows(batch):
            to.write(("\n".join(lines) + "\n").encode())
            rows += len(lines)
    return rows


def _arrow(schema: pa.Schema, batches: Iterable[pa.RecordBatch], to: BinaryIO) -> int:
    with pa.ipc.new_file(to, schema) as writer:
        return _copy(writer.write_batch, batches)


def _arrows(schema: pa.Schema, batches: Iterable[pa.RecordBatch], to: BinaryIO) -> int:
    with pa.ipc.new_stream(to, schema) as writer:
        return _copy(writer.write_batch, batches)


def _parquet(schema: pa.Schema, batches: Iterable[pa.RecordBatch], to: BinaryIO) -> int:
    with pq.ParquetWriter(to, schema, compression="zstd") as writer:
        return _copy(writer.write_batch, batches)


def _copy(write_batch: Callable[[pa.RecordBatch], None], batches: Iterable[pa.RecordBatch]) -> int:
    rows = 0
    for batch in batches:
        write_batch(batch)
        rows += batch.num_rows
    return rows


def _table(
    schema: pa.Schema, batches: Iterable[pa.RecordBatch], to: BinaryIO, page: console.Page
) -> int:
    rows = 0
    layout = _Layout(schema.names, [cell_len(name) for name in schema.names], page)
    for batch in batches:
        text = [_legible(column, page) for column in arrow_text.text_batch(batch)]
        if not rows and batch.num_rows:
            layout = _Layout(schema.names, _widths(schema.names, text), page)
            to.write(layout.lines(schema.names))
        for row in zip(*text, strict=True):
            to.write(layout.lines(row))
        rows += batch.num_rows
    if not rows:
        to.write(layout.lines(schema.names))
    return rows


def _legible(column: pa.Array, page: console.Page) -> list[str]:
    return [console.legible(value or "", page.encoding) for value in column.to_pylist()]


def _widths(names: Iterable[str], columns: Iterable[list[str]]) -> list[int]:
    return [
        max(map(cell_len, (name, *column[:TABLE_SAMPLE_ROWS])))
        for name, column in zip(names, columns, strict=True)
    ]


class _Layout:
    """Columns of fixed widths; a row takes as many lines as the page needs for its values."""

    def __init__(self, names: list[str], widths: list[int], page: console.Page) -> None:
        self._names = names
        self._widths = widths
        self._encoding = page.encoding
        self._breaks: set[int] = set()  # columns that begin a line
        used = 0
        for column, width in enumerate(widths):
            used += width + (_GAP if used else 0)
            if page.width is not None and column and used > page.width:
                self._breaks.add(column)
                used = _GAP + width

    def lines(self, values: Iterable[str]) -> bytes:
        """Format a row, or the header."""
        line, lines = "", []
        for column, value in enumerate(values):
            if column in self._breaks:
                lines.append(line.rstrip())
                line = ""
            padding = " " * (self._widths[column] - cell_len(value))
            left = self._names[column] in _LEFT_ALIGNED
            gap = " " * _GAP if column else ""
            line += gap + (value + padding if left else padding + value)
        return ("\n".join([*lines, line.rstrip()]) + "\n").encode(self._encoding)


_WRITERS: dict[str, Writer] = {
    "json": _json,
    "ndjson": _ndjson,
    "csv": _csv,
    "tsv": _tsv,
    "arrow": _arrow,
    "arrows": _arrows,
    "parquet": _parquet,
}
