import contextlib
import gzip
import io
import json
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click
import pyarrow as pa
import pytest

from k2cli import console, output

BATCH = pa.record_batch({"trade_id": pa.array([1, 22]), "side": pa.array(["BUY", "SELL"])})


def written(form, batches):
    stream = io.BytesIO()
    rows = output.write(form, BATCH.schema, iter(batches), stream)
    return rows, stream.getvalue()


@pytest.mark.parametrize("form", output.FORMATS)
def test_every_format_counts_its_rows_and_takes_none_at_all(form):
    assert written(form, [BATCH, BATCH])[0] == 4
    rows, content = written(form, [])
    assert (rows, bool(content)) == (0, form != "ndjson")


def test_a_table_has_columns_of_one_width():
    assert written("table", [BATCH])[1].decode().splitlines() == [
        "trade_id  side",
        "       1  BUY",
        "      22  SELL",
    ]


@pytest.mark.parametrize("width", range(1, 60))
def test_a_table_is_folded_between_columns_and_never_cut(width):
    numbers = pa.array([1234567890123456, 22])
    batch = pa.record_batch(
        {"trade_id": numbers, "symbol": ["BTCUSDT", "ETHUSDT"], "price": numbers}
    )
    stream = io.BytesIO()
    output.write("table", batch.schema, [batch], stream, console.Page(width, "utf-8"))
    lines = stream.getvalue().decode().splitlines()
    assert len(lines) == 3 * (1 if width >= 43 else 2 if width >= 25 else 3)
    assert " ".join(lines).split() == [
        *("trade_id", "symbol", "price"),
        *("1234567890123456", "BTCUSDT", "1234567890123456", "22", "ETHUSDT", "22"),
    ]
    if width >= 18:
        assert max(map(len, lines)) <= width


def test_a_table_is_legible_in_the_encoding_of_its_page_and_exact_in_a_file():
    batch = pa.record_batch({"symbol": ["币安人生USDT", "BTC"], "price": ["1.5", "22.5"]})
    stream = io.BytesIO()
    output.write("table", batch.schema, [batch], stream, console.Page(None, "ascii"))
    assert stream.getvalue().decode("ascii").splitlines() == [
        "symbol                        price",
        r"\u5e01\u5b89\u4eba\u751fUSDT    1.5",
        "BTC                            22.5",
    ]
    stream = io.BytesIO()
    output.write("table", batch.schema, [batch], stream)
    assert stream.getvalue().decode("utf-8").splitlines() == [
        "symbol        price",
        "币安人生USDT    1.5",
        "BTC            22.5",
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
        (None, "x", "table"),
        (None, "x.csv.gz", "csv"),
        (None, "x.tsv", "tsv"),
        (None, "x.jsonl", "ndjson"),
        (None, "x.ndjson.GZ", "ndjson"),
        (None, "x.arrow", "arrow"),
        (None, "x.feather", "arrow"),
        (None, "x.arrows", "arrows"),
        ("arrow", None, "arrows"),
        ("arrow", "x.feather", "arrow"),
        ("arrow", "x.bin", "arrows"),
        ("json", "x.csv", "json"),
        ("csv", "x.xlsx", "csv"),
    ],
)
def test_the_format_is_what_was_asked_else_what_the_name_says(asked, path, form):
    assert output.format_of(asked, Path(path) if path else None) == form


@pytest.mark.parametrize("name", ["x.xlsx", "x.csv.zst", "x.parquet.gz", "x.txt.gz", "x.gz"])
def test_a_name_that_says_another_format_is_refused_with_the_known_ones(name):
    with pytest.raises(click.UsageError, match=r"\.csv.*\.feather.*\.parquet"):
        output.format_of(None, Path(name))


def test_tsv_and_ndjson_are_what_their_names_say():
    assert written("tsv", [BATCH])[1] == b"trade_id\tside\n1\tBUY\n22\tSELL\n"
    lines = written("ndjson", [BATCH, BATCH])[1].splitlines()
    assert [json.loads(line)["trade_id"] for line in lines] == ["1", "22", "1", "22"]
    odd = pa.record_batch({"a": ["x\ty", "a,b"]})
    stream = io.BytesIO()
    output.write("tsv", odd.schema, [odd], stream)
    assert stream.getvalue() == b'a\n"x\ty"\na,b\n'


def test_a_compressed_file_is_whole_and_always_the_same(tmp_path):
    path = tmp_path / "x.csv.gz"
    assert output.is_compressed(path)
    packed = []
    for _ in range(2):
        with output.target(path, compressed=True) as to:
            output.write("csv", BATCH.schema, [BATCH], to)
        packed.append(path.read_bytes())
    assert packed[0] == packed[1]
    assert gzip.decompress(packed[0]) == written("csv", [BATCH])[1]


@pytest.mark.parametrize("form", output.FORMATS)
def test_a_fifo_stays_one_and_its_reader_gets_the_rows(tmp_path, form):
    path = tmp_path / "pipe.arrow"
    os.mkfifo(path)
    form = output.format_of(form, path)
    assert form != "arrow"  # its file form needs a reader that can seek
    with ThreadPoolExecutor(1) as pool:
        read = pool.submit(path.read_bytes)
        with output.target(path) as to:
            output.write(form, BATCH.schema, [BATCH], to)
        assert read.result(10) == written(form, [BATCH])[1]
    assert path.is_fifo()


def test_a_descriptor_is_written_into(tmp_path):
    with (tmp_path / "file").open("w+b") as file:
        with output.target(Path(f"/dev/fd/{file.fileno()}")) as to:
            to.write(b"rows")
        assert file.read() == b"rows"
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("existing", [True, False])
def test_a_link_stays_and_the_file_it_names_is_replaced(tmp_path, existing):
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (tmp_path / "link.csv").symlink_to("elsewhere/named.csv")
    if existing:
        (folder / "named.csv").write_bytes(b"before")
    with output.target(tmp_path / "link.csv") as to:
        to.write(b"rows")
        assert (folder / "named.csv").exists() == existing
    assert (tmp_path / "link.csv").is_symlink()
    assert [(each.name, each.read_bytes()) for each in folder.iterdir()] == [("named.csv", b"rows")]


def test_a_file_keeps_its_mode(tmp_path):
    path = tmp_path / "private.csv"
    path.touch(0o600)
    with output.target(path) as to:
        to.write(b"rows")
        modes = {stat.S_IMODE(each.stat().st_mode) for each in tmp_path.iterdir()}
        assert modes == {0o600}
    assert (stat.S_IMODE(path.stat().st_mode), path.read_bytes()) == (0o600, b"rows")


def test_another_process_finds_the_file_though_it_is_a_descriptor_of_this_one(tmp_path):
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as reader, os.fdopen(writing, "wb"):
        path = output.for_another_process(Path(f"/dev/fd/{writing}"))
        if path.parent.parts[:2] == ("/", "proc"):
            assert path == Path(f"/proc/{os.getpid()}/fd/{writing}")
        with path.open("wb") as to:
            to.write(b"frames")
        assert reader.read(6) == b"frames"
    (tmp_path / "link.jsonl").symlink_to("named.jsonl")
    assert output.for_another_process(tmp_path / "link.jsonl") == tmp_path / "link.jsonl"


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
