"""A later K2 on an earlier one's lake: what was written before and after is one table.

Tape and clock are in memory; fold, commit, Iceberg, files, tail, plan and engine are the real ones.
"""

import pyarrow as pa
import pytest

from k2.errors import Invalid
from k2.lake.iceberg.tables import ensure_tables
from k2.lake.verify.row_checksums import PartitionRows, RowChecksums, read_rows
from k2.market import schema
from k2.market.fold import FoldState
from k2.market.offsets import OffsetVector, TimeRange
from k2.query import admission
from k2.query.request import Consistency, Order, TradesRequest
from tests.support.eventually import eventually
from tests.support.lake_world import LakeWorld
from tests.support.messages import record, trade, written
from tests.support.query_stack import LakeStack
from tests.support.tomorrow import AVRO, NEWER_ID, OPTIONAL, comes
from tests.support.trades import NOW_US

pytestmark = pytest.mark.integration

BTC = ("BTCUSDT",)
SCHEMAS = {NEWER_ID: AVRO}
TODAY = schema.TRADE.columns


@pytest.fixture
def lake(tmp_path):
    world = LakeWorld(tmp_path)
    yield world
    world.close()


@pytest.fixture
def before(lake):
    """Today's K2, with rows in lake and tail."""
    with LakeStack(lake, schemas=SCHEMAS) as stack:
        stack.send("BTCUSDT", range(0, 100, 2))
        stack.commit()
        stack.view.maintain()
        stack.send("BTCUSDT", range(100, 120, 2))
        yield stack


def send_newer(stack, ids):
    """Trades of a writer that fills the later columns, every third of them."""
    for trade_id in ids:
        at = NOW_US + trade_id * 1000
        one = trade(trade_id=trade_id, event_time_us=at, receive_time_us=at + 500)
        more = dict.fromkeys(field.name for field in OPTIONAL)
        if trade_id % 3 == 0:
            more |= {"note": f"n{trade_id}", "buyer_order": trade_id}
        stack.tape.append(0, written(record(one) | more, AVRO, NEWER_ID))


def expected_notes(ids):
    return [f"n{each}" if each % 2 and each % 3 == 0 else None for each in ids]


def test_the_table_goes_on_through_an_upgrade_and_back(before, lake, monkeypatch):
    old_rows, answer = before.ask(symbols=BTC)
    token = answer.opened.provenance.token
    first = lake.snapshots.current()
    send_newer(before, range(1, 60, 2))  # a newer writer; today's K2 passes over what it adds
    mixed, _ = before.ask(symbols=BTC)
    assert mixed.schema.names == list(TODAY)
    with monkeypatch.context() as patch:
        comes(patch)
        evolved = ensure_tables(lake.catalog)
        assert "note" in evolved.schema().column_names
        with before.restarted(schemas=SCHEMAS) as after:
            check_later(after, mixed, first, token, old_rows)
            committed = after.committed, dict(after.states)
    before.committed, before.states = committed
    table, _ = before.ask(symbols=BTC)  # today's K2 again, on the evolved table
    assert table.schema.names == list(TODAY)
    assert table.column("trade_id").to_pylist()[-1] == 198
    before.send("BTCUSDT", [500])
    before.writer = lake.committer("w9")
    before.commit()
    eventually(lambda: before.ids(symbols=BTC, consistency=Consistency.COMMITTED)[-1] == 500)


def check_later(after, mixed, first, token, old_rows):
    """The later K2: the same rows, null where nobody said anything."""
    table, answer = after.ask(symbols=BTC)
    assert (answer.rows_lake, answer.rows_tail) == (50, 40)
    assert table.select(list(TODAY)).equals(mixed)
    ids = table.column("trade_id").to_pylist()
    assert table.column("note").to_pylist() == expected_notes(ids)

    send_newer(after, range(61, 100, 2))
    after.send("BTCUSDT", range(120, 200, 2))  # writers of before go on beside it
    whole, answer = after.ask(symbols=BTC)
    assert answer.rows_tail == 100
    ids = whole.column("trade_id").to_pylist()
    assert whole.column("note").to_pylist() == expected_notes(ids)
    assert whole.column("buyer_order").null_count == whole.column("note").null_count
    after.commit()
    after.view.maintain()
    after.clock.advance(10_000)
    after.view.maintain()
    assert after.tail.stats().rows == 0

    again, answer = after.ask(symbols=BTC)
    assert (answer.rows_lake, answer.rows_tail) == (150, 0)
    assert again.equals(whole)  # old files, new files
    old, _ = after.ask(consistency=Consistency.AS_OF, as_of_snapshot=first.snapshot_id)
    assert len(old) == 50
    assert old.column("note").null_count == 50
    of_token, _ = after.ask(symbols=BTC, consistency=Consistency.AS_OF, as_of_token=token)
    assert of_token.select(list(TODAY)).equals(old_rows)
    assert differing(after) == []


def differing(stack):
    """Places where the lake does not hold the rows as the tape has them, column by column."""
    ends = stack.committed.offsets
    lake, tape = RowChecksums(ends), RowChecksums(ends)
    for stat in stack.snapshots.files(stack.snapshots.current().snapshot_id):
        for rows in read_rows(stack.world.table.io, stat.path):
            lake.add(rows)
    with stack.restarted(schemas=SCHEMAS) as other:
        other.committed = OffsetVector.zero(0, len(ends))
        other.states = dict.fromkeys(other.states, FoldState())
        for piece in other.judged():
            tape.add(PartitionRows(piece.partition, piece.accepted[0]))
    assert [lake.rows(p) for p in range(len(ends))] == [tape.rows(p) for p in range(len(ends))]
    return lake.differing(tape)


@pytest.mark.parametrize("held", [0, 10**9])
def test_every_question_can_be_asked_of_old_and_new_files(before, lake, monkeypatch, held):
    monkeypatch.setattr(admission, "PART_BYTES_MAX", held)  # sorted by DuckDB, or here
    comes(monkeypatch)
    ensure_tables(lake.catalog)
    with before.restarted(schemas=SCHEMAS) as stack:
        send_newer(stack, range(1, 100, 2))
        stack.commit()
        stack.view.maintain()
        stack.send("BTCUSDT", [200])
        send_newer(stack, [201])
        ids = [*range(100), *range(100, 120, 2), 200, 201]
        table, _ = stack.ask(columns=("note", "trade_id"))
        assert table.column("trade_id").to_pylist() == ids
        assert table.column("note").to_pylist() == expected_notes(ids)
        table, _ = stack.ask(columns=("settles",), limit=30, order=Order.DESC)
        assert (len(table), table.column("settles").null_count) == (30, 30)
        old = TimeRange(NOW_US, NOW_US + 1000)
        table, _ = stack.ask(columns=("note", "buyer_order", "settles"), range=old)
        assert table.to_pylist() == [dict.fromkeys(table.schema.names)]
        assert table.schema == schema_of(*table.schema.names)


def schema_of(*names):
    later = schema.arrow_schema(schema.TRADE)
    return pa.schema([later.field(name) for name in names])


def test_todays_k2_does_not_know_the_later_columns(before):
    with pytest.raises(Invalid):
        before.view.plan(TradesRequest(columns=("note",)))
