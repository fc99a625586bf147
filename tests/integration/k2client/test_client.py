"""The client against a K2 of in-memory rows over real sockets."""

import datetime as dt
import os
import subprocess
import sys
from decimal import Decimal

import polars as pl
import pyarrow as pa
import pytest
from google.rpc import code_pb2

import k2client
from k2client import errors
from tests.fakes.k2_server import (
    COMMIT_US,
    FIRST_US,
    SNAPSHOT_IDS,
    TOKEN,
    K2Server,
    status,
    trade_rows,
    unavailable,
)

pytestmark = pytest.mark.integration
RETRY = k2client.Retry(backoff_min_s=0.01)


@pytest.fixture
def server():
    with K2Server() as running:
        yield running


@pytest.fixture
def k2(server):
    with k2client.connect(server.address, retry=RETRY) as client:
        yield client


def test_trades_as_arrow_polars_and_pandas_are_exact(k2, server):
    answer = k2.trades("BTCUSDT")
    assert answer.to_arrow().equals(server.rows)
    frame = answer.to_polars()
    assert frame["quantity"][0] == Decimal("0.00000001")
    assert frame["event_time"][0] == dt.datetime(2021, 1, 8, 0, 0, 0, 7, dt.UTC)
    assert answer.to_pandas()["price"][9] == Decimal("39441.28")


def test_an_answers_token_asks_for_it_again(k2, server):
    answer = k2.trades("BTCUSDT", last="5s")
    assert answer.provenance.token == TOKEN
    times = answer.provenance.range
    assert (times.start_time, times.end_time) == (
        k2client.times.from_us(COMMIT_US - 5_000_000),
        None,
    )
    again = k2.trades("BTCUSDT", start=times.start_time, as_of=answer.provenance.token)
    assert server.requests[-1].trades.as_of_token == TOKEN
    assert again.to_arrow() == answer.to_arrow()


def test_an_answer_is_arrow_for_whoever_takes_it(k2):
    assert pl.DataFrame(k2.trades("BTCUSDT", columns=["trade_id"])).height == 10
    assert pa.table(k2.trades("BTCUSDT")).num_rows == 10


def test_what_is_asked_travels(k2, server):
    k2.trades(
        ["BTCUSDT"],
        exchanges="BINANCE",
        start=FIRST_US,
        end=dt.datetime(2021, 1, 9, tzinfo=dt.UTC),
        limit=3,
        order="desc",
        columns=("trade_id", "price"),
        consistency="committed",
        allow_partial=True,
    )
    asked = server.requests[-1].trades
    assert list(asked.symbols) == ["BTCUSDT"]
    assert list(asked.exchanges) == ["BINANCE"]
    assert asked.range.start_time.ToMicroseconds() == FIRST_US
    assert asked.range.end_time.ToMicroseconds() == FIRST_US + 86_400_000_000
    assert (asked.limit, asked.order, asked.consistency) == (3, 2, 2)
    assert list(asked.columns) == ["trade_id", "price"]
    assert asked.allow_partial


def test_a_limit_and_an_order_cut_the_newest(k2):
    table = k2.trades("BTCUSDT", limit=2, order="desc", columns=["trade_id"]).to_arrow()
    assert table.column("trade_id").to_pylist() == [10, 9]


def test_provenance_is_there_before_the_rows_and_complete_after(k2):
    answer = k2.trades("BTCUSDT")
    before = answer.provenance
    assert before.snapshot_id == SNAPSHOT_IDS[0]
    assert (before.level, before.source, before.completeness) == ("NORMAL", "SIMULATED", "GAPS")
    assert before.rows_lake is None
    assert before.gaps == (k2client.records.Gap("BINANCE", "BTCUSDT", 3, 4),)
    answer.to_arrow()
    after = answer.provenance
    assert (after.rows_lake, after.rows_tail, after.freshness_ms) == (6, 4, 1.5)


def test_batches_are_streamed_and_an_abandoned_stream_is_cancelled(k2, server):
    server.rows = pa.concat_tables([trade_rows(1000)] * 100)
    server.batch_rows = 1000
    batches = k2.trades("BTCUSDT").batches()
    assert next(batches).num_rows == 1000
    batches.close()
    assert server.cancelled.wait(10)


def test_a_forked_child_is_refused_and_harms_nothing(k2, server):
    assert k2.trades("BTCUSDT").to_arrow().num_rows == 10
    answer = k2.trades("BTCUSDT")
    half = answer.batches()
    assert next(half).num_rows == 4
    child = os.fork()
    if not child:
        codes = {"OTHER_PROCESS": 7}
        try:
            for call in (k2.status, answer.to_arrow, lambda: next(half)):
                with pytest.raises(errors.Invalid) as caught:
                    call()
            k2.close()
            half.close()
        finally:
            os._exit(codes.get(caught.value.reason, 1))
    _, status_ = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status_) == 7
    assert sum(batch.num_rows for batch in half) == 6
    assert k2.trades("BTCUSDT").to_arrow().num_rows == 10


FORKING = """
import os, sys, k2client
k2 = k2client.connect(sys.argv[1])
half = k2.trades("BTCUSDT").batches()
next(half)
child = os.fork()
if child:
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
sys.exit(7)
"""


def test_a_forked_child_ends_although_it_has_its_parents_connections(server):
    ended = subprocess.run([sys.executable, "-c", FORKING, server.address], timeout=60, check=False)
    assert ended.returncode == 7


def test_a_broken_stream_goes_on_where_it_broke(k2, server):
    server.fail_rows = [(0, unavailable()), (4, unavailable()), (8, unavailable("DRAINING"))]
    assert k2.trades("BTCUSDT").to_arrow().equals(server.rows)


def test_a_stream_is_not_opened_for_ever(server):
    retry = k2client.Retry(attempts_max=2, backoff_min_s=0.01)
    with k2client.connect(server.address, retry=retry) as k2:
        server.fail_rows = [(0, unavailable())] * 3
        with pytest.raises(errors.Unavailable) as caught:
            k2.trades("BTCUSDT").to_arrow()
    assert caught.value.reason == "TAIL_BEHIND"
    assert len(server.fail_rows) == 1


def test_a_partial_answer_is_never_stitched(k2, server):
    server.missing = [server.missing_lake()]
    server.fail_rows = [(4, unavailable())]
    answer = k2.trades("BTCUSDT", allow_partial=True)
    assert answer.provenance.missing[0].reason == "LAKE_UNAVAILABLE"
    with pytest.raises(errors.Unavailable):
        answer.to_arrow()


def test_a_refused_ticket_is_said_at_once(k2, server):
    failure = status(code_pb2.INVALID_ARGUMENT, "TICKET_EXPIRED", "plan again")
    server.fail_rows = [(0, failure)]
    with pytest.raises(errors.Invalid) as caught:
        k2.trades("BTCUSDT").to_arrow()
    assert caught.value.reason == "TICKET_EXPIRED"


@pytest.mark.parametrize(
    ("asked", "kind", "reason"),
    [
        ({"symbols": "NOSUCH"}, errors.NotFound, "UNKNOWN_SYMBOL"),
        ({"limit": -1}, errors.Invalid, "LIMIT_OUT_OF_BOUNDS"),
        ({"columns": ["prise"]}, errors.Invalid, "UNKNOWN_COLUMN"),
        ({"as_of": 77}, errors.NotFound, "UNKNOWN_SNAPSHOT"),
        ({"as_of": "k2t1.AAAA"}, errors.Invalid, "BAD_TOKEN"),
    ],
)
def test_reasons_become_exceptions(k2, asked, kind, reason):
    with pytest.raises(kind) as caught:
        k2.trades(**{"symbols": "BTCUSDT"} | asked)
    assert caught.value.reason == reason
    assert caught.value.metadata["hint"] == "tests"


def test_calls_are_tried_again_as_told(k2, server):
    server.fail_calls = [unavailable("STARTING"), unavailable("STARTING")]
    assert k2.degradation().level == "SOFT"
    assert server.calls == ["GetDegradation"] * 3


def test_a_wait_that_outlives_the_deadline_is_not_begun(server):
    server.fail_calls = [unavailable(retry_after_s=30)]
    k2 = k2client.connect(server.address, deadline_s=5)
    with k2, pytest.raises(errors.Unavailable) as caught:
        k2.feeds()
    assert caught.value.retry_after_s == 30


def test_nobody_listening_is_said_plainly():
    retry = k2client.Retry(attempts_max=1)
    k2 = k2client.connect("127.0.0.1:1", retry=retry)
    with k2, pytest.raises(errors.Unavailable, match=r"nothing answers at 127") as caught:
        k2.status()
    assert caught.value.reason == "PEER_UNAVAILABLE"
    assert "\n" not in caught.value.message


def test_the_key_goes_with_every_call(server):
    with k2client.connect(server.address, "k2_id_secret") as k2:
        k2.status()
    assert server.keys == ["k2_id_secret"]


def test_snapshots_walk_the_pages(k2, server):
    found = k2.snapshots()
    assert [each.snapshot_id for each in found] == list(SNAPSHOT_IDS)
    assert server.calls == ["ListSnapshots"] * 2
    assert found[0].parent_id == SNAPSHOT_IDS[1]
    assert found[1].parent_id is None
    assert found[0].counters[0].duplicate == 2
    assert [each.snapshot_id for each in k2.snapshots(limit=1)] == [SNAPSHOT_IDS[0]]


def test_one_snapshot_by_id_by_time_or_the_current(k2):
    assert k2.snapshot().snapshot_id == SNAPSHOT_IDS[0]
    assert k2.snapshot(12).snapshot_id == 12
    assert k2.snapshot("12").snapshot_id == 12
    assert k2.snapshot(dt.datetime(2021, 1, 8, 0, 0, 4, tzinfo=dt.UTC)).snapshot_id == 12
    with pytest.raises(errors.NotFound):
        k2.snapshot(13)


def test_what_k2_says_of_itself(k2):
    level = k2.degradation()
    assert level.processes[0].pressures[1].reading is None
    assert level.time == dt.datetime.fromtimestamp(COMMIT_US / 1e6, dt.UTC)
    feed = k2.feeds()[0]
    assert [each.acknowledged_trade_id for each in feed.symbols] == [2**60, None]
    assert feed.counters == {"queue": "0"}
    status_now = k2.status()
    assert [each.name for each in status_now.components] == ["broker", "query"]
    assert status_now.components[0].pid is None
    assert set(k2.health().values()) == {"SERVING"}
    assert k2.settings() == {"lake.commit_interval_s": 10.0}


def test_verify_reports_progress_and_the_outcome(k2, server):
    seen = []
    found = k2.verify(progress=lambda *step: seen.append(step))
    assert found.ok
    assert seen == [("folding", 5, 10)]
    server.verify_ok = False
    assert k2.verify().report == {"ok": False, "holes": []}


def test_maintenance_reports_progress_and_what_it_did(k2, server):
    seen = []
    found = k2.compact(progress=lambda *step: seen.append(step))
    assert (found.merges, found.files_merged, found.rows_rewritten) == (2, 16, 2**40)
    assert seen == [("merging", 1, 2)]
    assert k2.expire().snapshots_dropped == 3
    assert not server.requests[-1].HasField("older_than_time")
    found = k2.expire(older_than="2021-01-08")
    assert (found.snapshots_kept, found.files_waiting, found.message) == (7, 9, "3 dropped")
    assert server.requests[-1].older_than_time.ToMicroseconds() == 1_610_064_000_000_000
