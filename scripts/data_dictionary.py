"""Writes the tables of `docs/data-dictionary.md`: `python -m scripts.data_dictionary`.

A table stands between `<!-- columns NAME -->` and `<!-- end -->`; all else is written by hand. The
columns and what they mean are those of `k2/market/schema.py`, and the order of rows and the
partitions those of the tables' layouts. The columns of answers are those of `k2/query/shapes`; what
they mean is written here. The file is committed; a test writes it again and compares.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

import pyarrow as pa

from k2.lake.iceberg.tables import OPS_LAYOUTS, TRADES_LAYOUT, TableLayout
from k2.market.schema import TRADE, arrow_schema
from k2.query import shapes
from k2.query.shapes.shape import Reading, Shape

FILE = Path(__file__).parents[1] / "docs/data-dictionary.md"
ANSWERS = "answers"
MEANINGS: Mapping[str, str] = {
    "bar_start": "The first moment of the bar.",
    "date": "The day, in the time zone asked for.",
    "exchange": "Id space of the venue.",
    "symbol": "As the venue prints it.",
    "open": "Price of the first trade.",
    "high": "The highest price.",
    "low": "The lowest price.",
    "close": "Price of the last trade.",
    "volume": "Sum of quantities, in the base currency, exact.",
    "quote_volume": "Sum of price times quantity, in the quote currency, exact.",
    "count": "How many trades.",
    "vwap": "Quote volume by volume, rounded half to even.",
    "twap": "Mean of prices by the time that each held, rounded half to even.",
    "buy_volume": "The part of the volume whose aggressor bought.",
    "final": "Whether no trade of it can come any more, by what feed and ledger vouch for.",
    "start_time": "Time of the first trade.",
    "end_time": "Time of the last trade; of a twap, where it ends.",
    "first_time": "Time of the first trade.",
    "last_time": "Time of the last trade.",
    "first_trade_id": "Id of the first trade.",
    "last_trade_id": "Id of the last trade.",
    "largest_quantity": "Quantity of the largest trade.",
    "status": "available, degraded, pending or missing.",
    "gaps": "How many runs of ids are missing.",
    "missing_ids": "How many ids are missing.",
    "horizon_us": "How long after the trade, in microseconds.",
    "price_then": "The last price by then.",
    "markout": "How far the price moved by then in favour of the aggressor, per unit.",
}
_NO_FUTURE = (
    "The last price weighs until the end of the range. Of a range that goes on, or has no end, it"
    " weighs until the newest trade of the answer, of whichever instrument. A range has ended when"
    " a trade of one of the instruments at or after its end is known, within an hour of it."
)
NOTES: Mapping[str, str] = {
    "bars": "With `fill=prev` a bar without trades has the last close as its four prices. Before"
    " the first trade of the range that is the price of the last trade in the hour before the"
    " range; it is null where there is none, or the range has no start.",
    "summary": f"The twap is that over the day. {_NO_FUTURE}",
    "twap": _NO_FUTURE,
}
_BLOCK = re.compile(r"(<!-- columns (\S+) -->\n).*?(?=<!-- end -->)", re.DOTALL)


def tables() -> dict[str, Callable[[], Iterator[str]]]:
    """List what can be written, by name."""
    layouts = (TRADES_LAYOUT, *OPS_LAYOUTS.values())
    stored = {layout.name: partial(_stored, layout) for layout in layouts}
    return stored | {ANSWERS: _answers}


def written(text: str, known: Mapping[str, Callable[[], Iterator[str]]]) -> str:
    """Write every table of a text again."""

    def block(found: re.Match[str]) -> str:
        return found[1] + "\n".join(known[found[2]]()) + "\n"

    return _BLOCK.sub(block, text)


def _stored(layout: TableLayout) -> Iterator[str]:
    """Write the columns of a table of the lake, and how its rows are laid out."""
    yield from ("| column | type | meaning |", "| --- | --- | --- |")
    for field, column in zip(layout.event.fields, layout.columns, strict=True):
        null = ", nullable" if field.nullable else ""
        yield f"| {field.name} | {type_name(column.type)}{null} | {field.doc} |"
    parts = ", ".join((*(f"`{name}`" for name in layout.split_by), f"day of `{layout.day_of}`"))
    order = ", ".join(f"`{name}`" for name in layout.sorted_by)
    yield f"\nPartitioned by {parts}; sorted by {order} in each file."


def kinds_of_answers() -> list[Shape]:
    """Make one of each shape that an answer may have, with its options by default; by name."""
    found = {}
    for module in pkgutil.iter_modules(shapes.__path__, f"{shapes.__name__}."):
        for _, kind in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
            if issubclass(kind, Shape) and not inspect.isabstract(kind):
                found[kind.name] = kind()
    return [found[name] for name in sorted(found)]


def _answers() -> Iterator[str]:
    """Write the columns of every shape; those of the trade by a link."""
    trade = arrow_schema(TRADE)
    for shape in kinds_of_answers():
        if shape.reading is not Reading.TABLE:
            yield f"\n### {shape.name}\n\nThe columns of the [trade](#markettrades)."
            continue
        fields = list(shape.schema)
        yield f"\n### {shape.name}\n"
        if [field.name for field in fields[: len(trade)]] == trade.names:
            yield "The columns of the [trade](#markettrades), then:\n"
            fields = fields[len(trade) :]
        yield from ("| column | type | meaning |", "| --- | --- | --- |")
        for field in fields:
            null = ", nullable" if field.nullable else ""
            yield f"| {field.name} | {type_name(field.type)}{null} | {meaning(field.name)} |"
        if shape.name in NOTES:
            yield f"\n{NOTES[shape.name]}"
    yield ""


def meaning(column: str) -> str:
    """Say what a column of an answer means."""
    if column.startswith("right_"):
        return f"`{column.removeprefix('right_')}` of the trade of the other symbol."
    return MEANINGS[column]


def type_name(kind: pa.DataType) -> str:
    """Name a type as SQL does: `decimal(18,8)`."""
    name = re.sub(r"decimal128\((\d+), (\d+)\)", r"decimal(\1,\2)", str(kind))
    return (
        name.replace("timestamp[us, tz=UTC]", "timestamp(us, UTC)")
        .replace("<", "(")
        .replace(">", ")")
    )


if __name__ == "__main__":
    FILE.write_text(written(FILE.read_text(), tables()))
    print(f"{FILE.name}: {', '.join(tables())}")
