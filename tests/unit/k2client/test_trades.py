import json

import pyarrow as pa
import pytest

import k2client
from k2.v1 import market_pb2, query_service_pb2
from k2client.errors import Invalid
from k2client.trades import PROVENANCE_KEY, Trades, _optional
from tests.unit.k2client.test_flights import PASSING, Chunk, Pool, Reader, endpoint, unavailable


def answer(*turns, retry=None, **provenance):
    schema = pa.schema([("id", pa.int64())])
    plan = query_service_pb2.PlanQueryResponse(
        arrow_schema=schema.serialize().to_pybytes(),
        endpoints=[endpoint()],
        estimate=query_service_pb2.QueryEstimate(rows=9),
        provenance=market_pb2.Provenance(snapshot_id=7, **provenance),
    )
    return Trades(plan, Pool(*turns), retry or k2client.Retry(attempts_max=1), 60.0)


def last_chunk():
    return Chunk([], market_pb2.Provenance(snapshot_id=7, rows_lake=2).SerializeToString())


def test_nothing_is_read_before_it_is_asked_for():
    trades = answer(Reader(Chunk([1, 2]), last_chunk()))
    assert trades._pool.opened == []
    assert (trades.estimate.rows, trades.provenance.snapshot_id) == (9, 7)
    assert trades.to_arrow().column("id").to_pylist() == [1, 2]
    assert trades.provenance.rows_lake == 2


def test_silence_ends_no_stream_before_its_deadline():
    retry = k2client.Retry(silent_attempts_max=2, sleep=lambda _: None)
    turns = [Reader(Chunk([1]), unavailable()), *[PASSING] * 50, Reader(Chunk([1]), Chunk([2]))]
    assert answer(*turns, retry=retry).to_arrow().column("id").to_pylist() == [1, 2]


def test_no_rows_are_a_table_too():
    table = answer(Reader(last_chunk())).to_arrow()
    assert (table.num_rows, table.schema.names) == (0, ["id"])
    assert answer(Reader()).to_polars().columns == ["id"]
    assert list(answer(Reader()).to_pandas().columns) == ["id"]


def test_the_schema_says_where_the_rows_come_from():
    table = answer(Reader(Chunk([1]), last_chunk())).to_arrow()
    said = json.loads(table.schema.metadata[PROVENANCE_KEY])
    assert (said["snapshot_id"], said["rows_lake"]) == ("7", "2")


def test_the_reader_streams():
    reader = answer(Reader(Chunk([1]), Chunk([2]))).reader()
    assert [batch.num_rows for batch in reader] == [1, 1]


def test_it_shows_what_it_is():
    shown = repr(answer(source=market_pb2.DATA_SOURCE_LIVE))
    assert "at most 9 rows, LIVE" in shown


def test_a_library_that_is_not_there_is_said():
    with pytest.raises(Invalid, match="pip install"):
        _optional("k2_no_such_library")
