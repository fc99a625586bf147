import contextlib
import io
import json
from pathlib import Path

import pyarrow as pa
import pytest

from k2cli import output

BATCH = pa.record_batch({"trade_id": pa.array([1, 22]), "side": pa.array(["BUY", "SELL"])})


def written(form, batches):
    stream = io.BytesIO()
    rows = output.write(form, BATCH.schema, iter(batches), stream)
    return rows, stream.getvalue()


@pytest.mark.parametrize("form", output.FORMATS)
def test_every_format_counts_its_rows_and_takes_none_at_all(form):
    assert written(form, [BATCH, BATCH])[0] == 4
    rows, content = written(form, [])
    assert (rows, bool(content)) == (0, True)


def test_a_table_has_columns_of_one_width():
    assert written("table", [BATCH])[1].decode().splitlines() == [
        "trade_id  side",
        "       1  BUY",
        "      22  SELL",
    ]


def test_json_is_one_array_whatever_the_batches():
    rows, content = written("json", [BATCH.slice(0, 0), BATCH, BATCH])
    assert rows == 4
    assert [row["trade_id"] for row in json.loads(content)] == ["1", "22", "1", "22"]
    assert json.loads(written("json", [])[1]) == []


@pytest.mark.parametrize(
    ("asked", "path", "form"),
    [
        (None, None, "table"),
        (None, "x.csv", "csv"),
        (None, "x.PARQUET", "parquet"),
        (None, "x.txt", "table"),
        ("json", "x.csv", "json"),
    ],
)
def test_the_format_is_what_was_asked_else_what_the_name_says(asked, path, form):
    assert output.format_of(asked, Path(path) if path else None) == form


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "rows.csv"
    with contextlib.suppress(ZeroDivisionError), output.target(path) as to:
        to.write(b"half")
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []
    with output.target(path) as to:
        to.write(b"whole")
        assert not path.exists()
    assert [each.name for each in tmp_path.iterdir()] == ["rows.csv"]
    assert path.read_bytes() == b"whole"
