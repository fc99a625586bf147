import csv
import gzip
import io
import json
from datetime import UTC, datetime
from decimal import Decimal

import pyarrow as pa
import pyarrow.feather
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest

from k2.market import schema
from k2cli.shapes.asking import summary
from k2client import records
from tests.fakes.k2_server import TOKEN


def test_people_get_a_table_and_the_provenance_on_stderr(k2, asked):
    done = k2("trades", "BTCUSDT", "--limit", 2)
    assert done.code == 0
    header, first, second = done.stdout.splitlines()
    assert header.split() == [
        "event_time", "exchange", "symbol", "trade_id", "side", "price", "quantity",
    ]  # fmt: skip
    assert first.split()[:3] == ["2021-01-08T00:00:00.000007Z", "BINANCE", "BTCUSDT"]
    assert second.split()[-2:] == ["39433.28000000", "0.00000001"]
    assert "snapshot 9007199254740993" in done.stderr
    assert "simulated · GAPS · level NORMAL · 1 gaps (2 trade ids missing)" in done.stderr


def test_csv_has_the_columns_of_the_trade_and_exact_decimals(k2, asked):
    done = k2("trades", "BTCUSDT", "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert tuple(rows[0]) == schema.TRADE.columns
    assert len(rows) == 10
    assert rows[0]["trade_id"] == "1"
    assert rows[0]["event_time"] == "2021-01-08T00:00:00.000007Z"
    assert rows[0]["quantity"] == "0.00000001"
    assert Decimal(rows[9]["price"]) == Decimal("39441.28")
    assert json.loads(rows[0]["vendor_data"]) == {"m": "true"}


def test_json_is_one_document_with_ids_as_strings(k2, asked):
    rows = k2("trades", "BTCUSDT", "--format", "json", "--order", "desc").json
    assert [row["trade_id"] for row in rows] == [str(number) for number in range(10, 0, -1)]
    assert rows[-1]["quantity"] == "0.00000001"
    assert rows[-1]["vendor_data"] == {"m": "true"}
    for option in (("--to", "20200101"), ("--from", "20990101")):
        assert k2("trades", "BTCUSDT", "--json", *option).json == []


READERS = {
    "parquet": pq.read_table,
    "arrow": lambda path: pa.ipc.open_file(path).read_all(),
    "feather": pyarrow.feather.read_table,
    "arrows": lambda path: pa.ipc.open_stream(path).read_all(),
}


@pytest.mark.parametrize("name", [f"rows.{suffix}" for suffix in READERS])
def test_a_files_name_says_its_format(k2, asked, tmp_path, name):
    done = k2("trades", "BTCUSDT", "-o", tmp_path / name)
    assert (done.code, done.stdout) == (0, "")
    path = tmp_path / name
    table = READERS[name.removeprefix("rows.")](path)
    assert table.column("price").to_pylist() == asked.rows.column("price").to_pylist()
    assert table.column("trade_id").to_pylist() == list(range(1, 11))


def test_a_compressed_file_holds_every_column_for_programs(k2, asked, tmp_path):
    done = k2("trades", "BTCUSDT", "-o", tmp_path / "rows.csv.gz")
    assert (done.code, done.stdout) == (0, "")
    with gzip.open(tmp_path / "rows.csv.gz", "rt", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert (len(rows), tuple(rows[0])) == (10, schema.TRADE.columns)


def test_what_was_written_before_a_failure_is_no_file(k2, asked, tmp_path):
    asked.missing = [asked.missing_lake()]
    asked.fail_rows = [(4, asked.gone())]
    done = k2("trades", "BTCUSDT", "--allow-partial", "-o", tmp_path / "rows.csv")
    assert (done.code, done.stderr) == (1, "k2: TAIL_BEHIND: not just now\n")
    assert [path.name for path in tmp_path.iterdir()] == []


def test_every_option_travels(k2, asked):
    options = [
        "--exchange",
        "BINANCE",
        "--from",
        "2021-01-08T00:00:00Z",
        "--to",
        "1610064000005000",
    ]
    options += ["--limit", "3", "--order", "desc", "--columns", "trade_id,price", "--as-of", "12"]
    done = k2("trades", "BTCUSDT,BTCUSDT", *options, "--allow-partial", "--format", "csv")
    assert done.stdout.splitlines()[0] == "trade_id,price"
    asked_for = asked.requests[-1].trades
    assert list(asked_for.symbols) == ["BTCUSDT"]  # each once
    assert asked_for.range.end_time.ToMicroseconds() == 1610064000005000
    assert asked_for.as_of_snapshot_id == 12
    assert asked_for.allow_partial
    k2("trades", "BTCUSDT", "--last", "15m", "--consistency", "committed")
    asked_for = asked.requests[-1].trades
    assert (asked_for.last.seconds, asked_for.consistency) == (900, 2)
    k2("trades", "BTCUSDT", "--as-of", "2021-01-08T00:00:06Z")
    assert asked.requests[-1].trades.WhichOneof("as_of") == "as_of_time"
    k2("trades", "BTCUSDT", "--as-of", TOKEN)
    assert asked.requests[-1].trades.as_of_token == TOKEN


def test_how_to_ask_again_is_said(k2, asked):
    done = k2("trades", "BTCUSDT", "--to", "2021-01-09")
    assert done.stderr.splitlines()[-1] == f"the same rows again: --as-of {TOKEN}"
    done = k2("trades", "BTCUSDT", "--last", "5s")
    assert done.stderr.splitlines()[-1] == (
        f"the same rows again: --from 2021-01-08T00:00:00+00:00 (for --last) --as-of {TOKEN}"
    )
    asked.missing = [asked.missing_lake()]
    done = k2("trades", "BTCUSDT", "--allow-partial")
    assert "again" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        (["NOSUCH"], 1, "UNKNOWN_SYMBOL"),
        (["BTCUSDT", "--limit", "-1"], 2, "LIMIT_OUT_OF_BOUNDS"),
        (["BTCUSDT", "--columns", "prise"], 2, "UNKNOWN_COLUMN"),
        (["BTCUSDT", "--as-of", "77"], 1, "UNKNOWN_SNAPSHOT"),
        (["BTCUSDT", "--as-of", "k2t1.AAAA"], 2, "BAD_TOKEN"),
        (["BTCUSDT", "--last", "soon"], 2, "BAD_REQUEST"),
        (["BTCUSDT", "--from", "yesterday"], 2, "BAD_REQUEST"),
        (["BTCUSDT", "--order", "sideways"], 2, "BAD_REQUEST"),
        (["BTCUSDT", "-o", "nowhere/rows.csv"], 2, "BAD_REQUEST"),
        (["BTCUSDT", "-o", "rows.xlsx"], 2, "BAD_REQUEST"),
        (["BTC\udce5USDT"], 2, "BAD_REQUEST"),
        ([], 2, "BAD_REQUEST"),
    ],
)
def test_bad_input_is_one_line_with_a_reason(k2, asked, arguments, code, reason):
    done = k2("trades", *arguments)
    assert (done.code, done.stdout) == (code, "")
    assert done.stderr.startswith(f"k2: {reason}: ")
    assert done.stderr.count("\n") == 1


COVERED = datetime(2021, 1, 8, 0, 0, 6, tzinfo=UTC)


def test_the_summary_names_what_is_missing():
    nowhere = records.OffsetVector(0, ())
    part = records.MissingPart("lake", "LAKE_UNAVAILABLE", "locked")
    origin = records.Provenance(
        None,
        None,
        nowhere,
        nowhere,
        None,
        "SOFT",
        "LIVE",
        "PARTIAL",
        (),
        0,
        (part,),
        None,
        1,
        None,
        None,
        None,
        records.TimeRange(None, None),
        COVERED,
        1500.0,
    )
    assert summary(1234, origin) == (
        "1,234 rows · no snapshot yet · live · PARTIAL · level SOFT"
        " · covered until 2021-01-08 00:00:06.000Z"
        " · as of 1.500 s in the future: check the clock of this machine"
        " · lake missing: LAKE_UNAVAILABLE: locked"
    )
