"""A letter is its row and back. How batches are judged is in `test_ops_pump.py`."""

from datetime import UTC, datetime

import pytest

from k2.lake.ingest.event_rows import letter_of, row_of
from tests.support.ops_world import letter


@pytest.mark.parametrize("value", [None, b"", b"\x00\xff"])
def test_a_letter_is_its_row_and_back(value):
    made = letter(5, partition=3, value=value)
    row = row_of(made)
    row["judged"] = datetime.fromtimestamp(row["judged"] / 1_000_000, UTC)
    assert letter_of(row) == made


def test_a_row_read_without_its_bytes_has_none():
    row = row_of(letter(5))
    row["judged"] = datetime.fromtimestamp(row["judged"] / 1_000_000, UTC)
    del row["value"]
    assert letter_of(row).value is None
