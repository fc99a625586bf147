"""Adds columns to a table when a later version of K2 knows more of its event.

A later K2 may know additional optional columns. They are added to the table at start under new
field ids; the ids of all other columns stay as they are in the files. Files written earlier lack
the column, and its rows read as null there (`market.offsets.FileStat.lacks`). An earlier K2 ignores
an optional column that it does not know.

Nothing else is changed automatically. A required column cannot be added to rows that have no value
for it, and another type is another meaning: such a table is refused, naming each column.
"""

from __future__ import annotations

import logging

from pyiceberg.exceptions import CommitFailedException
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.types import NestedField

from k2.errors import Data, Reason
from k2.lake.iceberg.catalog import Conflict, reaching_lake, retry_conflicts

_log = logging.getLogger(__name__)


def lacking(have: Schema, want: Schema, name: str) -> tuple[NestedField, ...]:
    """Find the optional columns of an event that its table does not have yet.

    Args:
        have: the table's schema.
        want: the event's (`tables.iceberg_schema`); its field ids do not matter.
        name: of the table, for messages.

    Raises:
        Data: LAKE_CORRUPT when the table differs in anything else, naming each column.
    """
    wrong = []
    missing = []
    found = {field.name: field for field in have.fields}
    for field in want.fields:
        there = found.pop(field.name, None)
        if there is None and not field.required:
            missing.append(field)
        elif there is None:
            wrong.append(f"{field.name} is missing, and rows cannot be without it")
        elif _form(there) != _form(field):
            wrong.append(f"{field.name} is {_form(there)} and must be {_form(field)}")
    wrong += [
        f"{field.name} is {_form(field)} and not known to this K2"
        for field in found.values()
        if field.required
    ]
    if wrong:
        raise Data(
            Reason.LAKE_CORRUPT,
            f"table {name} is not as K2 makes it: {'; '.join(wrong)}; start the K2 that wrote it,"
            " restore it, or start a new data directory",
            metadata={"table": name},
        )
    return tuple(missing)


def _form(field: NestedField) -> str:
    return f"{'required' if field.required else 'optional'} {field.field_type}"


def evolve(table: Table, want: Schema) -> Table:
    """Add the optional columns that a table lacks; safe to call from many processes.

    Args:
        table: as it was read.
        want: its event's schema.

    Returns:
        The table as it is then.

    Raises:
        Data: LAKE_CORRUPT, see `lacking`.
        Unavailable: LAKE_UNAVAILABLE.
    """
    name = ".".join(table.name())

    def attempt(number: int) -> Table:
        head = table if number == 1 else table.catalog.load_table(table.name())
        missing = lacking(head.schema(), want, name)
        if not missing:
            return head
        try:
            with head.update_schema() as update:
                for field in missing:
                    update.add_column(field.name, field.field_type, field.doc)
        except CommitFailedException as error:
            raise Conflict(f"new columns of table {name}") from error
        _log.info("table %s has new columns: %s", name, ", ".join(field.name for field in missing))
        return table.catalog.load_table(table.name())

    with reaching_lake():
        return retry_conflicts(attempt)
