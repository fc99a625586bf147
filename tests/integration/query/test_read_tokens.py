"""Read tokens on a real lake: committed, rewritten, expired, and asked of another server.

Tape and clock are in memory; fold, commit, Iceberg, files, tail, plan and engine are the real ones.
"""

import hashlib
from pathlib import Path

import pytest

from k2.lake.commit.trade_files import Part, write_files
from k2.lake.iceberg.catalog import local_path
from k2.lake.verify.row_checksums import read_rows
from k2.market.offsets import TimeRange
from k2.query.request import Consistency, Order
from tests.support.eventually import eventually
from tests.support.lake_world import LakeWorld
from tests.support.query_stack import LakeStack
from tests.support.trades import NOW_US

pytestmark = pytest.mark.integration

QUESTIONS = (
    {},
    {"symbols": ("BTCUSDT",), "limit": 25, "order": Order.DESC},
    {"range": TimeRange(NOW_US + 10_000, NOW_US + 60_000), "columns": ("trade_id", "price")},
)


@pytest.fixture
def lake(tmp_path):
    world = LakeWorld(tmp_path)
    yield world
    world.close()


def answers(stack, **moment):
    """A hash of every value of every row in order, for each question; and the last provenance."""
    found = []
    for fields in QUESTIONS:
        table, answer = stack.ask(**fields, **moment)
        digest = hashlib.sha256("".join(map(repr, table.to_pylist())).encode())
        found.append((len(table), digest.hexdigest()))
    return found, answer.opened.provenance


def under(stack, token):
    return answers(stack, consistency=Consistency.AS_OF, as_of_token=token)[0]


def go_on(stack, first):
    """More trades, late ones and old ids between them, committed; the tail lets all go."""
    stack.send("BTCUSDT", [*range(first, first + 30), first - 99, 5])
    stack.send("SOLUSDT", range(first // 2, first // 2 + 20))
    stack.commit()
    eventually(lambda: stack.tail.position() == stack.committed)
    stack.clock.advance(10_000)
    stack.view.maintain()


def data_files(lake):
    return [task.file for task in lake.table.scan().plan_files()]


def merge_files(lake):
    """What compaction does: the rows of all files of a day and exchange as one; the old ones go."""
    table = lake.table
    old = data_files(lake)
    rows = [Part(r.partition, r.columns) for f in old for r in read_rows(table.io, f.file_path)]
    new = write_files(rows, 0, table, "merged")
    with table.transaction() as transaction, transaction.update_snapshot().overwrite() as change:
        for file in old:
            change.delete_data_file(file)
        for file in new:
            change.append_data_file(file)
    return old, new


def expire_all_but_the_newest(lake):
    """Their ids."""
    newest = lake.snapshots.current().snapshot_id
    gone = [one.snapshot_id for one in lake.snapshots.list() if one.snapshot_id != newest]
    lake.table.maintenance.expire_snapshots().by_ids(gone).commit()
    assert [one.snapshot_id for one in lake.snapshots.list()] == [newest]
    return gone


def test_a_token_has_the_same_rows_after_commits_a_rewrite_and_expiry(lake):
    with LakeStack(lake, recent_s=0.0) as stack:
        stack.send("BTCUSDT", range(40))
        stack.commit()
        stack.view.maintain()
        stack.send("BTCUSDT", [*range(45, 70), 3, 44])
        stack.send("SOLUSDT", range(10))
        before, provenance = answers(stack)
        token, hint = provenance.token, provenance.snapshot_id
        assert under(stack, token) == before

        for number in range(1, 4):
            go_on(stack, 100 * number)
            assert under(stack, token) == before

        old, new = merge_files(lake)
        assert len(new) < len(old)
        assert hint in expire_all_but_the_newest(lake)
        for file in old:
            Path(local_path(file.file_path)).unlink()
        stack.view.maintain()
        assert under(stack, token) == before

        go_on(stack, 1000)
        assert under(stack, token) == before
        with stack.restarted(recent_s=0.0) as other:
            assert under(other, token) == before
            assert answers(other)[0] != before


def test_the_oldest_snapshot_that_covers_it_answers(lake):
    with LakeStack(lake, recent_s=0.0) as stack:
        stack.send("BTCUSDT", range(40))
        before, provenance = answers(stack)
        for number in range(1, 4):
            go_on(stack, 100 * number)
        moment = {"consistency": Consistency.AS_OF, "as_of_token": provenance.token}
        found, later = answers(stack, **moment)
        assert found == before
        oldest = lake.snapshots.list()[-1]
        assert later.snapshot_id == oldest.snapshot_id
        assert later.positions.covers(provenance.end)
