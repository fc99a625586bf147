"""Encodes and decodes events of low rate: Confluent wire format, one record at a time.

Trades have a codec of their own (`trade_codec.py`), which decodes a whole batch in columns; an
event that comes a few times a minute needs no speed but must be as safe. Whatever the bytes are,
decoding does not fail: what is not a record of the event is a `Fault`. A writer's schema may add
flat fields and leave out nullable ones; one that gives a column another type cannot give the event.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import fastavro

from k2 import limits
from k2.market.events import Fault
from k2.market.schema import Event, Kind, avro_schema
from k2.tape.avro.trade_codec import HEADER_BYTES, MAGIC
from k2.tape.ports import Schemas

Values = dict[str, Any]

_INT_MAX = 2**31 - 1
_FLAT = frozenset({"null", "boolean", "int", "long", "float", "double", "bytes", "string"})
_UNREADABLE = (ValueError, IndexError, KeyError, TypeError, OverflowError)


class RecordCodec:
    """Encodes and decodes the records of one event. One thread decodes; any may encode.

    Args:
        event: of `market/schema.py`; its columns are strings, numbers, times and bytes.
        schemas: what schema ids mean.
    """

    def __init__(self, event: Event, schemas: Schemas) -> None:
        self._event = event
        self._schemas = schemas
        self._own = fastavro.parse_schema(_plain(avro_schema(event)))
        self._written: dict[int, Any] = {}

    def encode(self, values: Mapping[str, Any], schema_id: int) -> bytes:
        """Encode a message of the schema that `topics.deploy` registered.

        Args:
            values: each column that a message carries; times in microseconds.
            schema_id: what the registry answered.
        """
        out = io.BytesIO()
        out.write(bytes([MAGIC]) + schema_id.to_bytes(HEADER_BYTES - 1, "big"))
        fastavro.schemaless_writer(out, self._own, values)
        return out.getvalue()

    def decode(self, value: bytes | None) -> Values | Fault:
        """Decode the columns of a message, or why it has none; times in microseconds.

        Raises:
            Unavailable: REGISTRY_UNAVAILABLE when its schema was never seen and the registry
                cannot be asked: decode it again later.
            Data: SCHEMA_CONFLICT, CHECKSUM_MISMATCH: what an id means is in doubt.
        """
        if value is None:
            return Fault.NULL_VALUE
        if (fault := _outside(value)) is not Fault.NONE:
            return fault
        written = self._schema(int.from_bytes(value[1:HEADER_BYTES], "big"))
        return Fault.UNKNOWN_SCHEMA if written is None else self._read(value, written)

    def _read(self, value: bytes, written: Any) -> Values | Fault:  # noqa: ANN401 a parsed schema
        stream = io.BytesIO(value)
        stream.seek(HEADER_BYTES)
        try:
            values: Any = fastavro.schemaless_reader(stream, written, self._own)
        except EOFError:
            return Fault.TRUNCATED
        except _UNREADABLE:
            return Fault.BAD_VALUE
        if stream.tell() != len(value):
            return Fault.TRAILING
        return values if self._fits(values) else Fault.BAD_VALUE

    def _fits(self, values: Values) -> bool:
        return all(
            -_INT_MAX - 1 <= values[field.name] <= _INT_MAX
            for field in self._event.fields
            if field.kind is Kind.INT and field.on_tape
        )

    def _schema(self, schema_id: int) -> Any:  # noqa: ANN401 a parsed schema, or None
        if schema_id not in self._written:
            try:
                written = self._schemas.schema(schema_id)
            except KeyError:
                return None  # asked again next time: it may be registered by then
            self._written[schema_id] = _resolved(written, avro_schema(self._event))
        return self._written[schema_id]


def _outside(value: bytes) -> Fault:
    """Return what is wrong with a message before its record begins."""
    if len(value) > limits.RECORD_BYTES_MAX:
        return Fault.OVERSIZE
    if value[:1] != bytes([MAGIC]):
        return Fault.BAD_MAGIC
    return Fault.TRUNCATED if len(value) < HEADER_BYTES else Fault.NONE


def _resolved(written: Mapping[str, Any], own: Mapping[str, Any]) -> Any:  # noqa: ANN401 see above
    """Parse the written schema; None when it cannot give the event."""
    ours = {field["name"]: field for field in own["fields"]}
    try:
        theirs = {field["name"]: field["type"] for field in written["fields"]}
        readable = written["type"] == "record" and all(
            kind == ours[name]["type"] if name in ours else _is_flat(kind)
            for name, kind in theirs.items()
        )
        lacking = [field for name, field in ours.items() if name not in theirs]
        if not readable or any("default" not in field for field in lacking):
            return None
        return fastavro.parse_schema(_plain({**written, "name": own["name"]}))
    except (KeyError, TypeError, AttributeError, fastavro.schema.SchemaParseException):
        return None


def _is_flat(kind: Any) -> bool:  # noqa: ANN401 JSON
    """Return whether a type holds no others: reading one takes bounded time, whatever the bytes."""
    if isinstance(kind, list):
        return all(_is_flat(branch) for branch in kind)
    if isinstance(kind, Mapping):
        return kind.get("type") in _FLAT
    return kind in _FLAT


def _plain(schema: Any) -> Any:  # noqa: ANN401 JSON
    """Without logical types, so that a time stays the number it is."""
    if isinstance(schema, Mapping):
        return {key: _plain(value) for key, value in schema.items() if key != "logicalType"}
    return [_plain(part) for part in schema] if isinstance(schema, list) else schema
