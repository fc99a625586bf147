"""Chooses the form of an answer by Accept or `?format=`, and writes rows in it, batch by batch."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from k2client import arrow_text
from k2client.errors import Invalid

Batches = Iterable[pa.RecordBatch]
Writer = Callable[[pa.Schema, Batches], Iterator[bytes]]


@dataclass(frozen=True)
class AnswerForm:
    """A form of answers.

    Attributes:
        name: in `?format=`.
        media_type: of the answer, and in Accept.
        also: other names of it in Accept.
        suffix: of a file that holds it.
        write: writes rows as chunks, the first of them with the first batch; None for JSON, which
            is made whole.
    """

    name: str
    media_type: str
    suffix: str
    write: Writer | None = None
    also: tuple[str, ...] = ()


def _csv(schema: pa.Schema, batches: Batches) -> Iterator[bytes]:
    head = ",".join(schema.names) + "\n"
    for batch in batches:
        lines = arrow_text.csv_lines(batch)
        yield (head + "".join(f"{line}\n" for line in lines)).encode()
        head = ""
    yield head.encode()


def _ndjson(_schema: pa.Schema, batches: Batches) -> Iterator[bytes]:
    for batch in batches:
        yield "".join(f"{line}\n" for line in arrow_text.json_rows(batch)).encode()


def _arrow(schema: pa.Schema, batches: Batches) -> Iterator[bytes]:
    written = io.BytesIO()
    with pa.ipc.new_stream(written, schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
            yield _taken(written)
    yield _taken(written)


def _parquet(schema: pa.Schema, batches: Batches) -> Iterator[bytes]:
    # The writer never looks back, so what was sent can be forgotten; positions go on counting.
    written = _Sink()
    with pq.ParquetWriter(pa.PythonFile(written, "w"), schema, compression="zstd") as writer:
        for batch in batches:
            writer.write_batch(batch)
            yield written.taken()
    yield written.taken()


def _taken(written: io.BytesIO) -> bytes:
    chunk = written.getvalue()
    written.seek(0)
    written.truncate()
    return chunk


class _Sink(io.RawIOBase):
    """A file that is only appended to, and given away as it grows."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._at = 0

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def write(self, data: object) -> int:
        part = bytes(data)  # type: ignore[call-overload]  # a buffer of Arrow
        self._parts.append(part)
        self._at += len(part)
        return len(part)

    def taken(self) -> bytes:
        chunk = b"".join(self._parts)
        self._parts.clear()
        return chunk


JSON: Final = AnswerForm("json", "application/json", "json")
NDJSON: Final = AnswerForm(
    "ndjson", "application/x-ndjson", "ndjson", _ndjson, ("application/ndjson", "application/jsonl")
)
CSV: Final = AnswerForm("csv", "text/csv", "csv", _csv)
ARROW: Final = AnswerForm("arrow", "application/vnd.apache.arrow.stream", "arrows", _arrow)
PARQUET: Final = AnswerForm(
    "parquet",
    "application/vnd.apache.parquet",
    "parquet",
    _parquet,
    ("application/x-parquet", "application/parquet"),
)
FORMS: Final = (JSON, NDJSON, CSV, ARROW, PARQUET)  # the first is preferred


def chosen(accept: str, name: str | None = None) -> AnswerForm:
    """Choose the form of an answer.

    Args:
        accept: the header; empty without one.
        name: of the form, which then counts alone.

    Raises:
        Invalid: NOT_ACCEPTABLE when Accept takes none of them.
    """
    if name is not None:
        return next(form for form in FORMS if form.name == name)
    weights = _weights(accept or "*/*")
    best = max(FORMS, key=lambda form: _weight(form, weights))
    if _weight(best, weights) <= 0:
        known = ", ".join(form.media_type for form in FORMS)
        raise Invalid("NOT_ACCEPTABLE", f"Accept takes none of {known}; ?format= chooses too")
    return best


def _weights(accept: str) -> dict[str, float]:
    """Read the weight of each media range."""
    found: dict[str, float] = {}
    for part in accept.split(","):
        kind, *parameters = [piece.strip().lower() for piece in part.split(";")]
        given = next((one[2:] for one in parameters if one.startswith("q=")), "1")
        try:
            found[kind] = float(given)
        except ValueError:
            found[kind] = 0.0
    return found


def _weight(form: AnswerForm, weights: dict[str, float]) -> float:
    """Return the weight of a form by the most specific range that has it."""
    main = form.media_type.partition("/")[0]
    for kind in (form.media_type, *form.also, f"{main}/*", "*/*"):
        if kind in weights:
            return weights[kind]
    return 0.0
