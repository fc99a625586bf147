"""Writes the tables of `docs/data-dictionary.md`: `python -m scripts.data_dictionary`.

A table stands between `<!-- columns NAME -->` and `<!-- end -->`; all else is written by hand. The
columns and what they mean are those of `k2/market/schema.py`, and the order of rows and the
partitions those of the tables' layouts. The file is committed; a test writes it again and compares.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pyarrow as pa

from k2.lake.iceberg.tables import OPS_LAYOUTS, TRADES_LAYOUT, TableLayout

FILE = Path(__file__).parents[1] / "docs/data-dictionary.md"
_BLOCK = re.compile(r"(<!-- columns (\S+) -->\n).*?(?=<!-- end -->)", re.DOTALL)


def tables() -> dict[str, Callable[[], Iterator[str]]]:
    """List what can be written, by name."""
    layouts = (TRADES_LAYOUT, *OPS_LAYOUTS.values())
    return {layout.name: lambda layout=layout: _stored(layout) for layout in layouts}


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
