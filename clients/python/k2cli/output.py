"""Rows to a stream in the format that was asked for, batch by batch: memory stays at one batch.

csv and json carry exact texts (see `exact`), arrow and parquet the columns as they came, with the
answer's provenance in their schema's metadata. A file appears whole or not at all.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from k2cli import exact

TABLE_SAMPLE_ROWS = 1000
_LEFT_ALIGNED = ("exchange", "symbol", "side", "source", "event_time", "receive_time")

FORMATS = ("table", "json", "csv", "arrow", "parquet")
BINARY = ("arrow", "parquet")
Writer = Callable[[pa.Schema, Iterable[pa.RecordBatch], BinaryIO], int]


def write(name: str, schema: pa.Schema, batches: Iterable[pa.RecordBatch], to: BinaryIO) -> int:
    """Write all batches in the format of that name; returns the number of rows."""
    return _WRITERS[name](schema, batches, to)


def format_of(asked: str | None, path: Path | None) -> str:
    """The format asked for, else the one that the file's name ends with, else a table."""
    suffix = path.suffix.removeprefix(".").lower() if path else ""
    return asked or (suffix if suffix in FORMATS else "table")


@contextlib.contextmanager
def target(path: Path | None) -> Iterator[BinaryIO]:
    """Standard output, or a file that takes its name only when everything was written."""
    if path is None:
        stream = sys.stdout.buffer
        yield stream
        stream.flush()
        return
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with unfinished.open("wb") as file:
            yield file
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def _csv(schema: pa.Schema, batches: Iterable[pa.RecordBatch], to: BinaryIO) -> int:
    to.write((",".join(schema.names) + "\n").encode())
    rows = 0
    for batch in batches:
        if lines := exact.csv_lines(batch):
            to.write(("\n".join(lines) + "\n").encode())
        rows += batch.num_rows
    return rows


def _json(_schema: pa.Schema, batches: Iterable[pa.RecordBatch], to: BinaryIO) -> int:
    rows = 0
    to.write(b"[")
    for batch in batches:
        if lines := exact.json_rows(batch):
            to.write((",\n" if rows else "\n").encode() + ",\n".join(lines).encode())
            rows += len(lines)
    to.write(b"\n]\n")
    return rows


def _arrow(schema: pa.Schema, batches: Iterable[pa.RecordBatch], to: BinaryIO) -> int:
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


def _table(schema: pa.Schema, batches: Iterable[pa.RecordBatch], to: BinaryIO) -> int:
    rows = 0
    widths = [len(name) for name in schema.names]
    for batch in batches:
        text = exact.text_batch(batch)
        if not rows and batch.num_rows:
            widths = _widths(text)
            to.write(_line(schema.names, schema.names, widths))
        for row in zip(*(column.to_pylist() for column in text), strict=True):
            to.write(_line(schema.names, [value or "" for value in row], widths))
        rows += batch.num_rows
    if not rows:
        to.write(_line(schema.names, schema.names, widths))
    return rows


def _widths(batch: pa.RecordBatch) -> list[int]:
    sample = batch.slice(0, TABLE_SAMPLE_ROWS)
    return [
        max(len(name), *(len(value or "") for value in column.to_pylist()))
        for name, column in zip(sample.schema.names, sample, strict=True)
    ]


def _line(names: list[str], values: Iterable[str], widths: list[int]) -> bytes:
    cells = [
        value.ljust(width) if name in _LEFT_ALIGNED else value.rjust(width)
        for name, value, width in zip(names, values, widths, strict=True)
    ]
    return ("  ".join(cells).rstrip() + "\n").encode()


_WRITERS: dict[str, Writer] = {
    "table": _table,
    "json": _json,
    "csv": _csv,
    "arrow": _arrow,
    "parquet": _parquet,
}
