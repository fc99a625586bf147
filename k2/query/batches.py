"""Prepares record batches for sending: canonical order, exact types, bounded size."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from k2 import limits
from k2.market import schema
from k2.market.events import TIME_MAX_US, Bools, Int64s
from k2.market.instrument import Instrument

Indices = npt.NDArray[np.intp]

_KEYS = ("event_time", "exchange", "symbol", "trade_id")
_QUANTITY = schema.arrow_schema(schema.TRADE).field("quantity").type
_LABEL_BYTES = 12  # estimate for a text in a row


def canonical_order(rows: pa.RecordBatch) -> Indices:
    """Return the indices that put rows in canonical order.

    Files are runs of ascending times, which a stable sort by time merges. Rows of one moment that
    are not known to be in order then are put in order by all keys: texts cost most of that.

    Args:
        rows: with at least the columns that order them.
    """
    times = rows.column("event_time").cast(pa.int64()).to_numpy()
    if bool((times[1:] > times[:-1]).all()):
        return np.arange(len(times))
    order: Indices = np.argsort(times, kind="stable")
    places = _unsettled(rows, times[order], order)
    if 8 * len(places) > len(times):  # taking texts costs more than reading them in place
        return by_all_keys(rows)
    if len(places):
        chosen = order[places]
        keys = rows.select(_KEYS).take(pa.array(chosen))
        order[places] = chosen[by_all_keys(keys)]
    return order


def _unsettled(rows: pa.RecordBatch, times: Int64s, order: Indices) -> Indices:
    """Return the places of an order by time whose rows may have to change them.

    A row stays behind another of its moment where it follows it in the file, too, with the same
    symbol and no lower id. If all rows of a moment stay, the moment is in order.
    """
    tied = np.flatnonzero(times[1:] == times[:-1]) + 1
    if not len(tied):
        return tied
    ids = rows.column("trade_id").to_numpy()
    row, before = order[tied], order[tied - 1]
    stays = (row == before + 1) & (ids[row] >= ids[before]) & _like_before(rows)[row]
    moment = np.concatenate(([0], np.cumsum(times[1:] != times[:-1])))
    unsettled = np.zeros(len(times), dtype=np.bool_)
    unsettled[moment[tied[~stays]]] = True
    return np.flatnonzero(unsettled[moment])


def _like_before(rows: pa.RecordBatch) -> Bools:
    """Which rows have the exchange and the symbol of the row before them."""
    like = np.zeros(rows.num_rows, dtype=np.bool_)
    like[1:] = True
    for name in ("exchange", "symbol"):
        texts = rows.column(name)
        like[1:] &= pc.equal(texts[1:], texts[:-1]).to_numpy(zero_copy_only=False)
    return like


def by_all_keys(rows: pa.RecordBatch) -> Indices:
    """Return the same as `canonical_order`, whatever is in order already."""
    times = rows.column("event_time").cast(pa.int64()).to_numpy()
    symbols, exchanges = _ranks(rows.column("symbol")), _ranks(rows.column("exchange"))
    order: Indices = np.lexsort((rows.column("trade_id").to_numpy(), symbols, exchanges, times))
    return order


def _ranks(texts: pa.StringArray) -> Indices:
    """Return the rank of each text among the distinct ones; texts compare as in DuckDB."""
    encoded = texts.dictionary_encode()
    names = encoded.dictionary.to_pylist()
    rank = {name: place for place, name in enumerate(sorted(names))}
    ranks: Indices = np.array([rank[name] for name in names], dtype=np.intp)
    codes: Indices = encoded.indices.to_numpy()
    return ranks[codes]


def rows_of(size_bytes: int, columns: pa.Schema) -> int:
    """Estimate how many rows of these columns fit into a number of bytes."""
    width = sum(
        field.type.bit_width // 8 if pa.types.is_primitive(field.type) else _LABEL_BYTES
        for field in columns
    )
    return max(1024, min(65_536, size_bytes // width // 1024 * 1024))


def first_rows(rows: pa.RecordBatch) -> dict[Instrument, int]:
    """Return the first row of each instrument."""
    names = pa.table(rows.select(["exchange", "symbol"]))
    numbered = names.append_column("row", pa.array(np.arange(rows.num_rows)))
    firsts = numbered.group_by(["exchange", "symbol"]).aggregate([("row", "min")])
    return {
        Instrument(each["exchange"], each["symbol"]): each["row_min"] for each in firsts.to_pylist()
    }


def digest_key(rows: pa.RecordBatch, row: int) -> pa.RecordBatch:
    """Return a key, in the form of a canonical one, that is another for almost any other row."""
    content = repr(rows.slice(row, 1).to_pylist()).encode()
    number = int.from_bytes(hashlib.blake2b(content, digest_size=8).digest()) >> 1
    key = {"event_time": [0], "exchange": [""], "symbol": [""], "trade_id": [number]}
    return pa.RecordBatch.from_pydict(key)


def bounded(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """Split a batch in halves until each piece is small enough to send."""
    if batch.nbytes <= limits.FLIGHT_BATCH_BYTES_MAX or batch.num_rows == 1:
        yield batch
        return
    half = batch.num_rows // 2
    yield from bounded(batch.slice(0, half))
    yield from bounded(batch.slice(half))


def conformed(batch: pa.RecordBatch, columns: pa.Schema) -> pa.RecordBatch:
    """Return the requested columns with exactly the types of the schema.

    DuckDB's types differ in name only; a column that no file has comes as nulls of any type.
    """
    arrays = [
        _typed(column, field.type) for field, column in zip(columns, batch.columns, strict=True)
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=columns)


def _typed(column: pa.Array, kind: pa.DataType) -> pa.Array:
    if column.type == schema.NARROW_QUANTITY and kind == _QUANTITY:
        column = column.view(kind)  # copies nothing: both are 128 bits wide in memory
    elif column.type != kind:
        nothing = column.null_count == len(column)
        column = pa.nulls(len(column), kind) if nothing else column.cast(kind)
    return _nameable(column) if pa.types.is_timestamp(kind) else column


def narrowed(rows: pa.RecordBatch) -> pa.RecordBatch:
    """Return rows with quantity as `schema.NARROW_QUANTITY`, if they have it and every value fits.

    Beside narrow files DuckDB would else widen what it reads of them.
    """
    place = rows.schema.get_field_index("quantity")
    if place < 0:
        return rows
    values = rows.column(place)
    extremes = pc.min_max(values).as_py().values()
    if any(value is not None and abs(value) >= schema.NARROW_END for value in extremes):
        return rows
    return rows.set_column(place, "quantity", values.view(schema.NARROW_QUANTITY))


def _nameable(times: pa.Array) -> pa.Array:
    """Limit times to the end of the year 9999: epochs of rules 0 may hold later ones."""
    micros = times.view(pa.int64())
    if (pc.max(micros).as_py() or 0) <= TIME_MAX_US:
        return times
    return pc.min_element_wise(micros, TIME_MAX_US, skip_nulls=False).view(times.type)
